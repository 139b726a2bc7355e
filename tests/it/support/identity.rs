//! Certificates of an upstream that speaks TLS, good ones and bad ones.

use std::{net::TcpStream, sync::Arc};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{DEADLINE, ProxyBuilder, Wire};

/// The server's end of a TLS connection.
pub(crate) type TlsWire = Wire<StreamOwned<ServerConnection, TcpStream>>;

/// A certificate authority and what it signed for these names.
#[derive(Clone)]
pub(crate) struct Identity {
    ca: String,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// A certificate for these names, valid for long.
    pub(crate) fn of(names: &[&str]) -> Self {
        Self::signed(names, |_| {})
    }

    /// The same, but it expired long ago.
    pub(crate) fn expired(names: &[&str]) -> Self {
        Self::signed(names, |leaf| {
            leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// The same, but it ends in ten days.
    pub(crate) fn ending_soon(names: &[&str]) -> Self {
        let end = jiff::Zoned::now().date() + jiff::Span::new().days(10);
        Self::signed(names, |leaf| {
            let [month, day] = [end.month(), end.day()].map(|it| u8::try_from(it).unwrap());
            leaf.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
        })
    }

    /// The same, but it signed itself, and the authority knows nothing of it.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            ca: Self::of(&["other.example"]).ca,
            server: server(&pair.cert, &pair.signing_key),
        }
    }

    fn signed(names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let name = &mut ca.distinguished_name;
        name.push(
            rcgen::DnType::CommonName,
            format!("Authority of {}", names[0]),
        );
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = rcgen::CertificateParams::new(names).unwrap();
        change(&mut leaf);
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        Self {
            ca: ca_pem,
            server: server(&leaf, &key),
        }
    }

    /// The server's end of a handshake.
    pub(crate) fn accept(&self, stream: TcpStream) -> TlsWire {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Wire::new(StreamOwned::new(
            ServerConnection::new(self.server.clone()).unwrap(),
            stream,
        ))
    }

    /// The certificate of its authority, in PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.ca
    }

    /// A proxy that trusts it.
    pub(crate) fn trusted(&self, builder: ProxyBuilder) -> ProxyBuilder {
        let path = builder.path("ca.pem");
        builder
            .file("ca.pem", &self.ca)
            .env("UPSTREAM_CA_FILE", path.display())
    }
}

fn server(leaf: &rcgen::Certificate, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    Arc::new(server)
}
