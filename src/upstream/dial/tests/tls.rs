//! TLS with the upstream: who is trusted, and how each failure is told.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ProtocolVersion, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate authority of our own, and the file that makes the dialer trust it.
pub(super) struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) folder: tempfile::TempDir,
    pub(super) file: PathBuf,
}

impl TestAuthority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
            file,
        }
    }

    /// A server certificate for `names`, changed by `change` before it is signed.
    pub(super) fn server(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> TestIdentity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        TestIdentity {
            certificate: certificate.der().clone(),
            key,
        }
    }

    pub(super) fn dialer(&self) -> Dialer {
        let trust = Trust::new(Some(self.file.clone()));
        dialer(trust, self.folder.path(), "127.0.0.1 api.test other.test\n")
    }
}

pub(super) struct TestIdentity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl TestIdentity {
    pub(super) fn acceptor(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];
const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];

/// Dials `host` while one connection is accepted with `identity`.
async fn dial(
    authority: &TestAuthority,
    host: &str,
    identity: &TestIdentity,
) -> Result<Stream, UpstreamError> {
    let (listener, address) = listen().await;
    let acceptor = identity.acceptor(BOTH, &[]);
    let dialer = authority.dialer();
    let upstream = upstream(Scheme::Https, host, address.port());
    let server = async {
        // What becomes of it is the client's to tell.
        let _ = acceptor.accept(listener.accept().await.unwrap().0).await;
    };
    tokio::join!(server, dialer.dial(&upstream, &OutboundRoute::Direct, LONG)).1
}

#[tokio::test]
async fn a_trusted_upstream_is_spoken_to() {
    let authority = TestAuthority::new();
    let dialer = authority.dialer();
    let identity = authority.server(&["api.test", "127.0.0.1"], |_| {});
    struct Case {
        host: &'static str,
        versions: &'static [&'static SupportedProtocolVersion],
        alpn: &'static [&'static [u8]],
        version: ProtocolVersion,
    }
    let table = [
        Case {
            host: "api.test",
            versions: BOTH,
            alpn: &[b"h2", b"http/1.1"],
            version: ProtocolVersion::TLSv1_3,
        },
        Case {
            host: "api.test.",
            versions: BOTH,
            alpn: &[],
            version: ProtocolVersion::TLSv1_3,
        },
        Case {
            host: "127.0.0.1",
            versions: BOTH,
            alpn: &[],
            version: ProtocolVersion::TLSv1_3,
        },
        Case {
            host: "api.test",
            versions: ONLY_TLS12,
            alpn: &[b"http/1.1"],
            version: ProtocolVersion::TLSv1_2,
        },
    ];
    for Case {
        host,
        versions,
        alpn,
        version,
    } in table
    {
        let (listener, address) = listen().await;
        let acceptor = identity.acceptor(versions, alpn);
        let server = async {
            let tcp = listener.accept().await.unwrap().0;
            echo(acceptor.accept(tcp).await.unwrap()).await;
        };
        let client = async {
            let upstream = upstream(Scheme::Https, host, address.port());
            let mut stream = dialer
                .dial(&upstream, &OutboundRoute::Direct, LONG)
                .await
                .unwrap();
            assert_echo(&mut stream).await;
            assert_eq!(stream.tcp().peer_addr().unwrap(), address);
            let Stream::Tls(tls) = stream else {
                panic!("not under TLS")
            };
            let session = tls.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version));
            let expected = (!alpn.is_empty()).then_some(&b"http/1.1"[..]);
            assert_eq!(session.alpn_protocol(), expected);
        };
        tokio::join!(server, client);
    }
}

#[tokio::test]
async fn certificate_problems_are_certificate_errors() {
    let authority = TestAuthority::new();
    let stranger = TestAuthority::new();
    let mut self_signed = CertificateParams::new(["api.test".to_owned()]).unwrap();
    self_signed.is_ca = IsCa::NoCa;
    let key = KeyPair::generate().unwrap();
    let certificate = self_signed.self_signed(&key).unwrap().der().clone();
    let table = [
        (
            "expired",
            authority.server(&["api.test"], |p| p.not_after = date_time_ymd(2020, 1, 1)),
        ),
        (
            "not yet",
            authority.server(&["api.test"], |p| p.not_before = date_time_ymd(4000, 1, 1)),
        ),
        ("other name", authority.server(&["other.test"], |_| {})),
        ("no name", authority.server(&[], |_| {})),
        ("stranger", stranger.server(&["api.test"], |_| {})),
        ("self-signed", TestIdentity { certificate, key }),
    ];
    for (case, identity) in table {
        let error = dial(&authority, "api.test", &identity).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::TlsCertificateError(_)),
            "{case}: {error:?}"
        );
    }
    let by_address = authority.server(&["api.test"], |_| {});
    let error = dial(&authority, "127.0.0.1", &by_address)
        .await
        .unwrap_err();
    assert!(
        matches!(error, UpstreamError::TlsCertificateError(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn other_failures_of_the_handshake_are_protocol_errors() {
    let authority = TestAuthority::new();
    let identity = authority.server(&["api.test"], |_| {});
    let dialer = authority.dialer();

    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let (listener, address) = listen().await;
        let server = async {
            let mut tcp = listener.accept().await.unwrap().0;
            tcp.read_u8().await.unwrap();
            tcp.write_all(answer).await.unwrap();
        };
        let upstream = upstream(Scheme::Https, "api.test", address.port());
        let client = dialer.dial(&upstream, &OutboundRoute::Direct, LONG);
        let error = tokio::join!(server, client).1.unwrap_err();
        assert!(
            matches!(error, UpstreamError::TlsProtocolError(_)),
            "{error:?}"
        );
    }

    let (listener, address) = listen().await;
    let acceptor = identity.acceptor(BOTH, &[b"h2"]);
    let server = async {
        let _ = acceptor.accept(listener.accept().await.unwrap().0).await;
    };
    let upstream = upstream(Scheme::Https, "api.test", address.port());
    let client = dialer.dial(&upstream, &OutboundRoute::Direct, LONG);
    let error = tokio::join!(server, client).1.unwrap_err();
    assert!(
        matches!(error, UpstreamError::TlsProtocolError(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_silent_handshake_times_out() {
    let authority = TestAuthority::new();
    let (listener, address) = listen().await;
    let upstream = upstream(Scheme::Https, "api.test", address.port());
    let start = Instant::now();
    let error = authority
        .dialer()
        .dial(&upstream, &OutboundRoute::Direct, SHORT)
        .await
        .unwrap_err();
    assert!(
        matches!(error, UpstreamError::ConnectionTimeout),
        "{error:?}"
    );
    assert!(start.elapsed() >= SHORT);
    // TCP stood, and is closed now: nothing but the client's hello, then the end.
    let mut hello = Vec::new();
    listener
        .accept()
        .await
        .unwrap()
        .0
        .read_to_end(&mut hello)
        .await
        .unwrap();
    assert_eq!(hello.first(), Some(&0x16), "a TLS handshake record");
}
