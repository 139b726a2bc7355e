//! Certificates that the health check trusts.
//!
//! It trusts the exact certificate that the settings name, regardless of its issuer and names: the
//! question is only if the server serves it. A URL may also lead to a certificate that the system
//! trusts. If the files hold no valid pair, while the server keeps its last good one, any certificate
//! on this machine's own port is trusted. Signatures are always checked: a copy of the certificate
//! without its key is not enough.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::upstream::dial;

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
    let provider = Arc::new(ring::default_provider());
    let verifier = CertificateVerifier {
        own,
        system,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct CertificateVerifier {
    own: Option<CertificateDer<'static>>,
    system: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// The server shows another certificate.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is not that of TLS_CERT_FILE")]
struct AnotherCertificate;

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.as_ref() == Some(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match (&self.system, &self.own) {
            (None, None) => Ok(ServerCertVerified::assertion()),
            (Some(system), _) => system.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            (None, Some(_)) => {
                let problem = OtherError(Arc::new(AnotherCertificate));
                Err(CertificateError::Other(problem).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
