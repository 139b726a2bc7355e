//! Certificates that the health check trusts.
//!
//! It trusts the exact certificate that the settings name, regardless of its issuer and names: the
//! question is only if the server serves it. A URL may also lead to a certificate that the system
//! trusts. If the files hold no valid pair, while the server keeps its last good one, any certificate
//! on this machine's own port is trusted. Signatures are always checked: a copy of the certificate
//! without its key is not enough.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, Error, OtherError,
    client::{VerifierBuilderError, WebPkiServerVerifier},
    crypto::ring,
    pki_types::CertificateDer,
};

use crate::upstream::dial::{self, PeerCertificates};

/// Reason for which no certificate can be trusted.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CertificateTrustError {
    #[error("TLS_CERT_FILE is not set: there is nothing to compare the server's certificate with")]
    NoCertificate,
    #[error("no system store of certificates: {0}")]
    Store(#[from] dial::TrustStoreError),
    #[error("no system store of certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("TLS is not available: {0}")]
    Provider(#[from] Error),
}

/// Trusts this certificate.
pub(super) fn only(
    own: Option<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, CertificateTrustError> {
    let own = own.ok_or(CertificateTrustError::NoCertificate)?;
    config(Some(own), None)
}

/// Trusts any server that has the key of the certificate that it shows.
pub(super) fn any_with_key() -> Result<Arc<ClientConfig>, CertificateTrustError> {
    config(None, None)
}

/// Trusts this certificate, and those that the system trusts.
pub(in crate::cli) fn own_or_system(
    own: Option<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, CertificateTrustError> {
    let store = Arc::new(dial::store(None)?);
    let system =
        WebPkiServerVerifier::builder_with_provider(store, Arc::new(ring::default_provider()))
            .build()?;
    config(own, Some(system))
}

fn config(
    own: Option<CertificateDer<'static>>,
    system: Option<Arc<WebPkiServerVerifier>>,
) -> Result<Arc<ClientConfig>, CertificateTrustError> {
    let judge = move |shown: &PeerCertificates<'_>| {
        if own.as_ref() == Some(shown.leaf) {
            return Ok(());
        }
        match (&system, &own) {
            (None, None) => Ok(()),
            (Some(system), _) => shown.judged_by(&**system),
            (None, Some(_)) => {
                let problem = OtherError(Arc::new(AnotherCertificate));
                Err(CertificateError::Other(problem).into())
            }
        }
    };
    Ok(Arc::new(dial::judged(Box::new(judge))?))
}

/// The server shows another certificate.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is not that of TLS_CERT_FILE")]
struct AnotherCertificate;
