//! HOST, PORT, TLS_PORT, UNIX_SOCKET and the TLS files to [`Listen`] and [`TlsIdentity`].

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::Path,
};

use super::reader::Reader;
use crate::config::{
    env::RawSettings,
    identity::{self, TlsIdentity},
    model::Listen,
    scalar::{self, InvalidValue},
};

impl Reader {
    pub(super) fn listen(&mut self, raw: &RawSettings, root: &Path) -> Option<Listen> {
        let hosts = self.read("HOST", &raw.host, addresses);
        let port = self.read("PORT", &raw.port, scalar::port);
        let tls_port = self.read("TLS_PORT", &raw.tls_port, scalar::port);
        let (hosts, port) = (hosts?, port?);
        let at = |port| hosts.iter().map(move |host| SocketAddr::new(*host, port));
        let has_tls = raw.tls_cert_file.is_some() || raw.tls_key_file.is_some();
        let (plain, tls) = match tls_port {
            Some(tls_port) if tls_port == port && port != 0 => {
                let bad = InvalidValue::because("is the same as PORT")
                    .hint("choose another one, or unset TLS_PORT: then PORT itself speaks TLS");
                self.fault("TLS_PORT", bad);
                return None;
            }
            Some(_) if !has_tls => {
                let bad = InvalidValue::because("is set without a certificate")
                    .hint("set TLS_CERT_FILE and TLS_KEY_FILE, or unset TLS_PORT");
                self.fault("TLS_PORT", bad);
                return None;
            }
            Some(tls_port) => (at(port).collect(), at(tls_port).collect()),
            None if has_tls => (Vec::new(), at(port).collect()),
            None => (at(port).collect(), Vec::new()),
        };
        let unix = raw.unix_socket.as_ref().map(|path| root.join(path));
        Some(Listen { plain, tls, unix })
    }

    /// The pair to serve TLS with, if both files are named.
    pub(super) fn identity(&mut self, raw: &RawSettings, root: &Path) -> Option<TlsIdentity> {
        for (said, text, missing, other) in [
            (
                "TLS_CERT_FILE",
                &raw.tls_cert_file,
                "TLS_KEY_FILE",
                &raw.tls_key_file,
            ),
            (
                "TLS_KEY_FILE",
                &raw.tls_key_file,
                "TLS_CERT_FILE",
                &raw.tls_cert_file,
            ),
        ] {
            if text.is_some() && other.is_none() {
                let bad = InvalidValue::because(format!("is set without {missing}"))
                    .hint(format!("set {missing}, too, or unset {said}"));
                self.fault(said, bad);
            }
        }
        let chain = self.read("TLS_CERT_FILE", &raw.tls_cert_file, |path| {
            identity::chain(&root.join(path))
        });
        let key = self.read("TLS_KEY_FILE", &raw.tls_key_file, |path| {
            identity::key(&root.join(path))
        });
        match identity::pair(chain?, key?) {
            Ok(identity) => Some(identity),
            Err(bad) => {
                self.fault("TLS_KEY_FILE", bad);
                None
            }
        }
    }
}

/// The addresses of a host of this machine.
///
/// `localhost` is 127.0.0.1 without asking: with PORT=0, two addresses would get two ports.
fn addresses(host: &str) -> Result<Vec<IpAddr>, InvalidValue> {
    let host = host.trim();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    if host.contains([':', '/', '@', ' ']) {
        return Err(
            InvalidValue::because("is not a host").hint("the port has its own variable, PORT")
        );
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (host, 0)
        .to_socket_addrs()
        .map_err(|_| InvalidValue::because("does not resolve"))?
    {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        Err(InvalidValue::because("does not resolve"))
    } else {
        Ok(addresses)
    }
}
