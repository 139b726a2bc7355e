//! A certificate for the proxy, and clients that trust it and nothing else.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring, pki_types::CertificateDer,
};

use super::{DEADLINE, ProxyBuilder, Wire};

/// A client's end of a connection under TLS.
pub(crate) type TlsWire = Wire<StreamOwned<ClientConnection, TcpStream>>;

/// A certificate for this machine, and its key.
pub(crate) struct Pair {
    /// The certificate in PEM.
    pub(crate) cert: String,
    /// The key in PEM.
    pub(crate) key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    /// A new one, signed by itself.
    pub(crate) fn new() -> Self {
        Self::signed(|_| {})
    }

    /// The same, but it ends after this number of days, or ended before today.
    pub(crate) fn ending_in(days: i64) -> Self {
        let end = jiff::Zoned::now().date() + jiff::Span::new().days(days);
        Self::signed(|params| {
            let [month, day] = [end.month(), end.day()].map(|it| u8::try_from(it).unwrap());
            params.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
        })
    }

    fn signed(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        change(&mut params);
        let cert = params.self_signed(&key).unwrap();
        Self {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().clone(),
        }
    }

    /// A proxy that serves it.
    pub(crate) fn served(&self, builder: ProxyBuilder) -> ProxyBuilder {
        builder
            .file(CERT, &self.cert)
            .file(KEY, &self.key)
            .env("TLS_CERT_FILE", CERT)
            .env("TLS_KEY_FILE", KEY)
    }

    /// What a client needs that offers these versions and HTTP/1.1.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A connection that has shaken hands, if the server has this certificate.
    pub(crate) fn try_connect(&self, addr: SocketAddr) -> io::Result<TlsWire> {
        connect(self.client(rustls::ALL_VERSIONS), addr)
    }

    /// Shakes hands on a connection that has waited.
    #[track_caller]
    pub(crate) fn shake_hands(&self, tcp: TcpStream) -> TlsWire {
        shake_hands(self.client(rustls::ALL_VERSIONS), tcp).expect("the proxy shakes hands")
    }

    /// A connection that has shaken hands.
    #[track_caller]
    pub(crate) fn connect(&self, addr: SocketAddr) -> TlsWire {
        self.try_connect(addr).expect("the proxy shakes hands")
    }
}

/// Shakes hands.
pub(crate) fn connect(config: Arc<ClientConfig>, addr: SocketAddr) -> io::Result<TlsWire> {
    shake_hands(config, TcpStream::connect(addr)?)
}

/// Shakes hands on a connection.
fn shake_hands(config: Arc<ClientConfig>, mut tcp: TcpStream) -> io::Result<TlsWire> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    tcp.set_write_timeout(Some(DEADLINE))?;
    let name = "localhost".try_into().unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    Ok(Wire::new(StreamOwned::new(session, tcp)))
}

impl TlsWire {
    /// Says `close_notify`, and closes.
    pub(crate) fn close(mut self) {
        let stream = self.stream();
        stream.conn.send_close_notify();
        let _ = stream.conn.write_tls(&mut stream.sock);
    }

    /// Aborts the connection with a RST.
    pub(crate) fn reset(mut self) {
        socket2::SockRef::from(&self.stream().sock)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    }
}

/// Where the certificate lies below the working directory.
pub(crate) const CERT: &str = "tls/cert.pem";
/// Where its key lies.
pub(crate) const KEY: &str = "tls/key.pem";
