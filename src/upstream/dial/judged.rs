//! TLS configurations for checks that judge a certificate by a rule of their own.
//!
//! The rule says whose certificate it may be; the signatures of the handshake are always checked: a copy of a
//! certificate without its key is not enough. What requests of clients go through is in `trust`.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Certificates that a server shows, and their circumstances.
pub struct PeerCertificates<'a> {
    /// Its own certificate.
    pub leaf: &'a CertificateDer<'a>,
    /// The rest of the chain.
    pub between: &'a [CertificateDer<'a>],
    /// The name that was asked for.
    pub name: &'a ServerName<'a>,
    /// A staple of OCSP.
    pub staple: &'a [u8],
    /// This moment.
    pub now: UnixTime,
}

impl PeerCertificates<'_> {
    /// Leaves the judgement to a verifier.
    ///
    /// # Errors
    /// The verifier's.
    pub fn judged_by(&self, verifier: &impl ServerCertVerifier) -> Result<(), Error> {
        verifier
            .verify_server_cert(self.leaf, self.between, self.name, self.staple, self.now)
            .map(|_| ())
    }
}

/// A rule.
type ChainJudge = Box<dyn Fn(&PeerCertificates<'_>) -> Result<(), Error> + Send + Sync>;

/// The configuration of a client of HTTP/1.1 that goes by this rule.
///
/// # Errors
/// If no version of TLS is available.
pub fn judged(judge: ChainJudge) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = JudgedChain {
        judge,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

struct JudgedChain {
    judge: ChainJudge,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for JudgedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedChain")
    }
}

impl ServerCertVerifier for JudgedChain {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.judge)(&PeerCertificates {
            leaf,
            between,
            name,
            staple,
            now,
        })?;
        Ok(ServerCertVerified::assertion())
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
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
