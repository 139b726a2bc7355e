//! The TLS handshake with the upstream, and the classification of its failures.
//!
//! The trusted authorities are in [`super::trust`]; there is no deadline here.

use std::{io, sync::Arc};

use rustls::{ClientConfig, Error, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::UpstreamError;

/// TLS with the peer that should be `host`, a name or an address without brackets.
pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, UpstreamError> {
    // The dot that makes a name absolute is DNS syntax; certificates do not have it (RFC 6066 §3).
    let host = host.strip_suffix('.').unwrap_or(host).to_owned();
    let name = ServerName::try_from(host)
        .map_err(|error| UpstreamError::TlsProtocolError(io::Error::other(error)))?;
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(classify)
}

/// Tells certificate problems, which the operator can mend with `UPSTREAM_CA_FILE`, a clock or
/// another host, from other failures. An alert, even one about certificates, is the peer's view of
/// this proxy and no certificate problem.
fn classify(error: io::Error) -> UpstreamError {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(
            Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::InvalidCertRevocationList(_),
        ) => UpstreamError::TlsCertificateError(error),
        _ => UpstreamError::TlsProtocolError(error),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, PeerMisbehaved};

    use super::*;

    #[test]
    fn only_the_certificate_is_a_certificate_error() {
        let certificate = |error: Error| {
            let error = classify(io::Error::new(io::ErrorKind::InvalidData, error));
            matches!(error, UpstreamError::TlsCertificateError(_))
        };
        for problem in [
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::Revoked,
            CertificateError::UnknownIssuer,
            CertificateError::NotValidForName,
            CertificateError::BadSignature,
            CertificateError::BadEncoding,
        ] {
            assert!(
                certificate(Error::InvalidCertificate(problem.clone())),
                "{problem:?}"
            );
        }
        assert!(certificate(Error::NoCertificatesPresented));
        assert!(!certificate(Error::AlertReceived(
            AlertDescription::CertificateRequired
        )));
        assert!(!certificate(Error::AlertReceived(
            AlertDescription::HandshakeFailure
        )));
        assert!(!certificate(Error::PeerMisbehaved(
            PeerMisbehaved::TooMuchEarlyDataReceived
        )));
        assert!(!certificate(Error::DecryptError));
        let reset = classify(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(reset, UpstreamError::TlsProtocolError(_)));
    }
}
