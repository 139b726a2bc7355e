//! The TLS identity of the server: certificate chain and private key, valid as a pair.
//!
//! Both files are read with the rest of the configuration, so that a pair that does not match is an
//! error like any other and the last good pair stays in effect.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{read, scalar::InvalidValue};

/// A certificate with its key, ready to shake hands. Two are equal if they hold the same pair.
#[derive(Clone)]
pub struct TlsIdentity {
    server: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    pair: u64,
}

impl TlsIdentity {
    /// The configuration of the TLS server: ring, TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The certificate of the server itself, in DER.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }
}

impl PartialEq for TlsIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.pair == other.pair
    }
}

impl Eq for TlsIdentity {}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// The certificates of a PEM file, the server's own first.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidValue> {
    let text = read::pem(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidValue::because("has a certificate that is not valid PEM"))?;
    if chain.is_empty() {
        return Err(InvalidValue::because("contains no certificate in PEM"));
    }
    Ok(chain)
}

/// The private key of a PEM file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, InvalidValue> {
    let text = read::text(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        InvalidValue::because(
            "contains no private key in PEM (PKCS #8, PKCS #1 or SEC1, not encrypted)",
        )
    })
}

/// The pair, if it is one.
pub(super) fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsIdentity, InvalidValue> {
    let mut hasher = DefaultHasher::new();
    for certificate in &chain {
        certificate.as_ref().hash(&mut hasher);
    }
    key.secret_der().hash(&mut hasher);
    let leaf = chain
        .first()
        .cloned()
        .ok_or_else(|| InvalidValue::because("contains no certificate in PEM"))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| InvalidValue::because("cannot be used: TLS is not available"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(_) => {
                InvalidValue::because("is not the key of the certificate in TLS_CERT_FILE")
            }
            _ => InvalidValue::because("cannot be used with the certificate in TLS_CERT_FILE"),
        })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsIdentity {
        server: Arc::new(server),
        leaf,
        pair: hasher.finish(),
    })
}
