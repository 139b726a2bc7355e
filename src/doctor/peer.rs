//! A TLS handshake that keeps the chain of the peer, also where it is not trusted.
//!
//! The verdict is that of the authorities that the proxy trusts; it is never softened.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::CertificateFacts,
    upstream::dial::{PeerCertificates, judged},
};

/// Rule by which a chain is accepted.
pub(super) enum PeerTrust {
    /// These authorities sign it, and it names the host.
    Authorities(RootCertStore),
    /// Any: nothing but a question about its own health goes to the peer.
    Any,
}

/// Chain of a peer.
#[derive(Debug, Default)]
pub(super) struct PeerChain {
    /// Its own certificate first.
    certificates: Vec<CertificateDer<'static>>,
}

impl PeerChain {
    /// Facts of its own certificate.
    pub(super) fn leaf(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(self.certificates.first()?)
    }

    /// True if its own certificate is this one.
    pub(super) fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.first() == Some(certificate)
    }

    /// Name of the authority at its top.
    pub(super) fn authority(&self) -> Option<String> {
        let top = CertificateFacts::read(self.certificates.last()?)?;
        Some(top.issuer)
    }

    /// Reports whether one of the authorities that browsers trust signs it.
    pub(super) fn is_public(&self, host: &str) -> bool {
        let mut public = RootCertStore::empty();
        public.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let (Some(leaf), Ok(name), Ok(verifier)) = (
            self.certificates.first(),
            ServerName::try_from(host.to_owned()),
            verifier(public),
        ) else {
            return false;
        };
        let between = self.certificates.get(1..).unwrap_or_default();
        // a moment at which it is valid: an end of its validity would be found before its authority
        let at = match CertificateFacts::read(leaf) {
            Some(facts) => now().min(facts.ends - 1).max(facts.begins + 1),
            None => now(),
        };
        let at = Duration::from_secs(u64::try_from(at).unwrap_or_default());
        let at = UnixTime::since_unix_epoch(at);
        // other faults are reported by the handshake
        !matches!(
            verifier.verify_server_cert(leaf, between, &name, &[], at),
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            ))
        )
    }
}

fn verifier(authorities: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(
        Arc::new(authorities),
        Arc::new(ring::default_provider()),
    )
    .build()
    .map_err(|error| Error::General(error.to_string()))
}

/// Shakes hands with a peer that should be `host`; gives its chain in either case.
pub(super) async fn shake_hands(
    tcp: TcpStream,
    host: &str,
    trust: PeerTrust,
) -> (PeerChain, io::Result<TlsStream<TcpStream>>) {
    let host = host.strip_suffix('.').unwrap_or(host).to_owned();
    let inner = match trust {
        PeerTrust::Any => Ok(None),
        PeerTrust::Authorities(store) => verifier(store).map(Some),
    };
    let seen = Arc::<Mutex<Vec<CertificateDer<'static>>>>::default();
    let config = inner.and_then(|inner| {
        let seen = Arc::clone(&seen);
        judged(Box::new(move |shown: &PeerCertificates<'_>| {
            let chain = std::iter::once(shown.leaf).chain(shown.between);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = chain.map(|it| it.clone().into_owned()).collect();
            drop(seen);
            let Some(inner) = &inner else { return Ok(()) };
            shown.judged_by(&**inner)
        }))
    });
    let outcome = match (config, ServerName::try_from(host)) {
        (Ok(config), Ok(name)) => {
            TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await
        }
        (Err(error), _) => Err(io::Error::other(error)),
        (_, Err(error)) => Err(io::Error::other(error)),
    };
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let certificates = std::mem::take(&mut *seen);
    (PeerChain { certificates }, outcome)
}

/// The fault of a certificate in the error of a handshake.
pub(super) fn certificate_error(error: &io::Error) -> Option<&CertificateError> {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::InvalidCertificate(fault)) => Some(fault),
        _ => None,
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
