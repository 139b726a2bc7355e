//! Trusted certificate authorities of upstreams, as one rustls configuration for the whole process.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set, else the system store, else (an image
//! without one) Mozilla's list, which is compiled in; `UPSTREAM_CA_FILE` adds to any of them.
//! There is no way to turn verification off. The store is read when the first TLS connection needs
//! it: that costs 2.5 ms (19 ms from a cold disk) and 0.9 MB on a Debian store of 145 authorities,
//! which an `http` upstream never pays.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

use crate::{
    config::{CertificateFacts, HttpVersion, in_der},
    wire::page,
};

/// The TLS configuration of the process, made at the first call of [`Trust::config`]. Clones share
/// it.
#[derive(Debug, Clone)]
pub struct Trust(Arc<SharedTrust>);

#[derive(Debug)]
struct SharedTrust {
    extra_ca: Option<PathBuf>,
    configs: Mutex<Option<TlsConfigs>>,
}

/// One configuration for each set of protocols that ALPN may offer (RFC 7301). They share the
/// authorities and the tickets of earlier sessions.
#[derive(Debug)]
struct TlsConfigs {
    http11: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    auto: Arc<ClientConfig>,
}

impl TlsConfigs {
    fn new(http11: Arc<ClientConfig>) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::clone(&http11);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            http2: offering(&[b"h2"]),
            auto: offering(&[b"h2", b"http/1.1"]),
            http11,
        }
    }

    fn of(&self, http: HttpVersion) -> Arc<ClientConfig> {
        Arc::clone(match http {
            HttpVersion::Http11 => &self.http11,
            HttpVersion::Http2 => &self.http2,
            HttpVersion::Auto => &self.auto,
        })
    }
}

/// Reasons for having no TLS configuration. Each names the file or variable at fault.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    /// `UPSTREAM_CA_FILE` cannot be read, or its PEM is broken.
    #[error("cannot read certificates from {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the reader.
        #[source]
        source: PemFault,
    },
    /// `UPSTREAM_CA_FILE` is no PEM.
    #[error("{} {}", path.display(), in_der(path))]
    Der {
        /// The file.
        path: PathBuf,
    },
    /// `UPSTREAM_CA_FILE` holds no certificate.
    #[error("no certificate in {} (expected: PEM, -----BEGIN CERTIFICATE-----)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// `UPSTREAM_CA_FILE` holds something that is no certificate.
    #[error("a certificate in {} is not usable", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        #[source]
        source: rustls::Error,
    },
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` lead to no certificate at all.
    #[error("no certificate in the locations of SSL_CERT_FILE and SSL_CERT_DIR: {locations}")]
    NoneInEnvironment {
        /// Their values.
        locations: String,
        /// The first error, if reading failed.
        #[source]
        source: Option<rustls_native_certs::Error>,
    },
    /// The cryptography provider lacks TLS 1.2 and 1.3.
    #[error("TLS is not available")]
    Provider(#[source] rustls::Error),
}

/// Fault of a file in PEM.
#[derive(Debug, thiserror::Error)]
pub enum PemFault {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ends within a certificate.
    #[error("it is cut off: the line {0} is missing")]
    Cut(String),
    /// A line begins a certificate, and is malformed.
    #[error("the line {0} is malformed")]
    Line(String),
    /// The characters between two markers are damaged, or too many.
    #[error("{0}")]
    Content(pem::Error),
}

impl From<pem::Error> for PemFault {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::Io(error),
            pem::Error::MissingSectionEnd { end_marker } => {
                let name = text(&end_marker);
                Self::Cut(format!("-----END {name}-----"))
            }
            pem::Error::IllegalSectionStart { line } => Self::Line(text(&line)),
            other => Self::Content(other),
        }
    }
}

/// A line of a file as a text.
fn text(line: &[u8]) -> String {
    page::one_line(String::from_utf8_lossy(line).trim())
}

impl Trust {
    /// Reads nothing yet. `extra_ca` is `UPSTREAM_CA_FILE`.
    pub fn new(extra_ca: Option<PathBuf>) -> Self {
        Self(Arc::new(SharedTrust {
            extra_ca,
            configs: Mutex::new(None),
        }))
    }

    /// The configuration for HTTP/1.1. The first call reads files; a failure is not kept, so that a
    /// repaired file works without a restart.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TrustStoreError> {
        self.config_for(HttpVersion::Http11)
    }

    /// The same for other versions.
    pub fn config_for(&self, http: HttpVersion) -> Result<Arc<ClientConfig>, TrustStoreError> {
        // Held while loading: other workers would only read the same files at the same time. A
        // poisoned lock holds a good value or none.
        let mut configs = self
            .0
            .configs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(match &*configs {
            Some(configs) => configs.of(http),
            None => configs
                .insert(TlsConfigs::new(tls_config(self.0.extra_ca.as_deref())?))
                .of(http),
        })
    }
}

/// The authorities that are trusted; `extra_ca` is `UPSTREAM_CA_FILE`.
///
/// # Errors
/// The fault of a file that the environment or `extra_ca` names.
pub fn store(extra_ca: Option<&Path>) -> Result<RootCertStore, TrustStoreError> {
    roots(&|variable| env::var_os(variable), extra_ca)
}

/// Reads the store and makes the configuration: ring, TLS 1.2 and 1.3, ALPN `http/1.1`.
pub fn tls_config(extra_ca: Option<&Path>) -> Result<Arc<ClientConfig>, TrustStoreError> {
    let roots = store(extra_ca)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustStoreError::Provider)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots(
    lookup: &dyn Fn(&str) -> Option<OsString>,
    extra_ca: Option<&Path>,
) -> Result<RootCertStore, TrustStoreError> {
    let file = lookup("SSL_CERT_FILE");
    let dirs = lookup("SSL_CERT_DIR");
    let named = [&file, &dirs]
        .into_iter()
        .flatten()
        .any(|value| !value.is_empty());
    let mut roots = if named {
        roots_from_environment(file.unwrap_or_default(), dirs.unwrap_or_default())?
    } else {
        // `load_native_certs` takes an empty variable for a path. Here empty is unset, and this
        // directory is the system store (or leads to it) on every distribution with such a store.
        let system = match file.is_some() || dirs.is_some() {
            true => load_certs_from_paths(None, Some(Path::new("/etc/ssl/certs"))),
            false => load_native_certs(),
        };
        let mut roots = RootCertStore::empty();
        // A store holds the odd certificate that webpki cannot parse; the others count.
        roots.add_parsable_certificates(system.certs);
        roots
    };
    if roots.is_empty() {
        log::info!(
            "[Upstream] no system certificate store; the compiled-in certificate authorities are trusted; set SSL_CERT_FILE to trust others"
        );
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = extra_ca {
        add_file(&mut roots, path)?;
    }
    Ok(roots)
}

/// The authorities that the variables name, and no others: an operator who sets them may want to
/// trust less than the system does, so there is no fallback from here.
fn roots_from_environment(
    file: OsString,
    dirs: OsString,
) -> Result<RootCertStore, TrustStoreError> {
    let file = Some(&file).filter(|file| !file.is_empty()).map(Path::new);
    let dirs = env::split_paths(&dirs).filter(|dir| !dir.as_os_str().is_empty());
    let mut locations = Vec::new();
    let mut failures = Vec::new();
    let mut roots = RootCertStore::empty();
    for (file, dir) in [(file.map(Path::to_owned), None)]
        .into_iter()
        .chain(dirs.map(|d| (None, Some(d))))
    {
        locations.extend(
            file.iter()
                .chain(&dir)
                .map(|path| path.display().to_string()),
        );
        let found = load_certs_from_paths(file.as_deref(), dir.as_deref());
        roots.add_parsable_certificates(found.certs);
        failures.extend(found.errors);
    }
    if roots.is_empty() {
        let (locations, source) = (locations.join(", "), failures.into_iter().next());
        return Err(TrustStoreError::NoneInEnvironment { locations, source });
    }
    for failure in failures {
        log::warn!(
            "[Upstream] a certificate of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {failure}; it is skipped; correct or remove it"
        );
    }
    Ok(roots)
}

/// Adds every certificate of a file that the operator chose: all of it must be valid.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustStoreError> {
    let unreadable = |source| TrustStoreError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let before = roots.len();
    let content = fs::read(path).map_err(|error| unreadable(error.into()))?;
    if CertificateFacts::read(&content).is_some() {
        return Err(TrustStoreError::Der {
            path: path.to_owned(),
        });
    }
    // editors of Windows begin a file with it
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
    for certificate in CertificateDer::pem_slice_iter(content) {
        roots
            .add(certificate.map_err(|error| unreadable(error.into()))?)
            .map_err(|source| TrustStoreError::Unusable {
                path: path.to_owned(),
                source,
            })?;
    }
    match roots.len() > before {
        true => Ok(()),
        false => Err(TrustStoreError::Empty {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["ca.test".to_owned()])
            .unwrap()
            .cert
            .pem()
    }

    fn lookup<'a>(
        file: Option<&'a Path>,
        dir: Option<&'a Path>,
    ) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |variable| match variable {
            "SSL_CERT_FILE" => file.map(|path| path.as_os_str().to_owned()),
            _ => dir.map(|path| path.as_os_str().to_owned()),
        }
    }

    #[test]
    fn the_variables_replace_the_system_store() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.pem");
        fs::write(&file, certificate()).unwrap();
        let dir = folder.path().join("more");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("two.pem"), certificate()).unwrap();
        fs::write(dir.join("three.pem"), certificate()).unwrap();
        let missing = folder.path().join("missing");
        let both_dirs = env::join_paths([&dir, &missing]).unwrap();
        let table = [
            (lookup(Some(&file), None), 1),
            (lookup(None, Some(&dir)), 2),
            (lookup(Some(&file), Some(&dir)), 3),
            (lookup(Some(&file), Some(&missing)), 1),
            (lookup(Some(&missing), Some(Path::new(&both_dirs))), 2),
            (lookup(Some(Path::new("")), Some(&dir)), 2),
        ];
        for (lookup, count) in table {
            assert_eq!(roots(&lookup, None).unwrap().len(), count);
        }
    }

    #[test]
    fn variables_that_lead_nowhere_are_a_fault_that_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        let error = roots(&lookup(Some(&missing), Some(folder.path())), None).unwrap_err();
        assert!(matches!(
            error,
            TrustStoreError::NoneInEnvironment {
                source: Some(_),
                ..
            }
        ));
        assert!(error.to_string().contains("missing.pem"), "{error}");
        assert!(
            error.to_string().contains(folder.path().to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn an_empty_variable_is_unset_and_the_store_is_never_empty() {
        let empty = Path::new("");
        assert!(
            roots(&lookup(Some(empty), Some(empty)), None)
                .unwrap()
                .len()
                > 10
        );
    }

    #[test]
    fn the_extra_file_adds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.pem");
        let extra = folder.path().join("extra.pem");
        fs::write(&file, certificate()).unwrap();
        fs::write(
            &extra,
            format!("# comment\n{}\n{}", certificate(), certificate()),
        )
        .unwrap();
        assert_eq!(
            roots(&lookup(Some(&file), None), Some(&extra))
                .unwrap()
                .len(),
            3
        );
    }

    #[test]
    fn a_bad_extra_file_is_a_fault_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("extra.pem");
        let error = || tls_config(Some(&path)).unwrap_err();

        assert!(matches!(error(), TrustStoreError::Unreadable { .. }));
        fs::write(&path, "no certificate").unwrap();
        assert!(matches!(error(), TrustStoreError::Empty { .. }));
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&path, pem).unwrap();
        assert!(matches!(error(), TrustStoreError::Unusable { .. }));
        fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        let TrustStoreError::Unreadable { source, .. } = error() else {
            panic!("{}", error());
        };
        assert_eq!(
            source.to_string(),
            "it is cut off: the line -----END CERTIFICATE----- is missing"
        );
        assert!(error().to_string().contains("extra.pem"));
        let der = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        fs::write(&path, der.cert.der()).unwrap();
        assert!(matches!(error(), TrustStoreError::Der { .. }));
        assert!(error().to_string().contains("openssl x509 -inform DER -in"));
        fs::write(&path, format!("\u{feff}{}", certificate())).unwrap();
        assert!(tls_config(Some(&path)).is_ok());
    }

    #[test]
    fn a_failure_is_not_kept_and_a_success_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("extra.pem");
        let trust = Trust::new(Some(path.clone()));
        assert!(trust.config().is_err());
        fs::write(&path, certificate()).unwrap();
        let config = trust.config().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&config, &trust.clone().config().unwrap()));
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    }
}
