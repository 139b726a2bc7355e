//! HOST, PORT, TLS_PORT, UNIX_SOCKET and the TLS files to [`Listen`] and [`TlsIdentity`].

use std::{net::SocketAddr, path::Path};

use super::reader::Reader;
use crate::config::{
    certificate::{CERTIFICATE_ENDS_SOON, CertificateFacts},
    env::Settings,
    identity::{self, TlsIdentity},
    model::Listen,
    scalar::InvalidValue,
};

impl Reader {
    pub(super) fn listen(&mut self, settings: &Settings, root: &Path) -> Listen {
        let Settings { host, port, .. } = settings;
        let at = |port| host.iter().map(move |host| SocketAddr::new(*host, port));
        let has_tls = settings.tls_cert_file.is_some() || settings.tls_key_file.is_some();
        let (plain, tls) = match settings.tls_port {
            Some(tls_port) => {
                if tls_port == *port && tls_port != 0 && !self.is_faulty("PORT") {
                    let bad = InvalidValue::because("is the same as PORT")
                        .hint("choose another one, or unset TLS_PORT: then PORT itself speaks TLS");
                    self.fault("TLS_PORT", bad);
                } else if !has_tls {
                    let bad = InvalidValue::because("is set without a certificate")
                        .hint("set TLS_CERT_FILE and TLS_KEY_FILE, or unset TLS_PORT");
                    self.fault("TLS_PORT", bad);
                }
                (at(*port).collect(), at(tls_port).collect())
            }
            None if has_tls => (Vec::new(), at(*port).collect()),
            None => (at(*port).collect(), Vec::new()),
        };
        let unix = settings.unix_socket.as_ref().map(|path| root.join(path));
        Listen { plain, tls, unix }
    }

    /// The pair to serve TLS with, if both files are named.
    pub(super) fn identity(&mut self, settings: &Settings, root: &Path) -> Option<TlsIdentity> {
        let Settings {
            tls_cert_file: chain,
            tls_key_file: key,
            ..
        } = settings;
        for (said, missing) in [
            ("TLS_CERT_FILE", "TLS_KEY_FILE"),
            ("TLS_KEY_FILE", "TLS_CERT_FILE"),
        ] {
            let is_said = |name| self.merged.text(name).is_some();
            if is_said(said) && !is_said(missing) {
                let bad = InvalidValue::because(format!("is set without {missing}"))
                    .hint(format!("set {missing}, too, or unset {said}"));
                self.fault(said, bad);
            }
        }
        let chain = self.opened("TLS_CERT_FILE", chain.as_deref(), root, identity::chain);
        let key = self.opened("TLS_KEY_FILE", key.as_deref(), root, identity::key);
        let pair = identity::pair(chain?, key?);
        let pair = pair.map_err(|bad| self.fault("TLS_KEY_FILE", bad)).ok()?;
        self.warn_of_end(&pair);
        Some(pair)
    }

    /// Warns of a certificate that has expired, or soon will.
    fn warn_of_end(&mut self, pair: &TlsIdentity) {
        let now = jiff::Timestamp::now().as_second();
        let facts = CertificateFacts::read(pair.leaf());
        let facts = facts.filter(|facts| facts.days_left(now) < CERTIFICATE_ENDS_SOON);
        let (Some(facts), Some(setting)) = (facts, self.merged.setting("TLS_CERT_FILE")) else {
            return;
        };
        let end = jiff::Timestamp::from_second(facts.ends);
        let date = end.map_or_else(
            |_| "an unknown date".to_owned(),
            |end| end.strftime("%Y-%m-%d").to_string(),
        );
        let effect = match facts.ends <= now {
            true => format!("has a certificate that expired on {date}: clients refuse it"),
            false => format!("has a certificate that expires on {date}: clients refuse it then"),
        };
        let message = format!("{effect}; renew it, the file is read again by itself");
        let origin = setting.origin.clone();
        self.merged.warn("TLS_CERT_FILE", origin, message);
    }
}
