//! Sockets that systemd made and passed on (`sd_listen_fds(3)`).
//!
//! Where there are any, they replace what HOST, PORT, TLS_PORT and UNIX_SOCKET say. A TCP socket
//! speaks what its name says (`FileDescriptorName=` of the unit): `https` or `tls` TLS, `http` clear
//! text; with any other name it speaks what PORT would: TLS if there is a certificate and no
//! TLS_PORT, else clear text. Names of Unix sockets say nothing, and systemd removes their files.

use std::{
    env, io,
    net::TcpListener,
    os::unix::net::{UnixDatagram, UnixListener},
};

use listenfd::ListenFd;
use socket2::SockRef;

use super::{handover, listener::Listener, sockets};

/// Number of the first passed descriptor.
const FIRST: usize = 3;

/// Reason for which a passed socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassedError {
    #[error(
        "LISTEN_FDS: {0} is neither a TCP nor a Unix stream socket: use ListenStream= in the unit of the socket"
    )]
    NotAStream(Which),
    #[error("LISTEN_FDS: {0} does not listen: set Accept=no in the unit of the socket")]
    NotListening(Which),
    #[error(
        "LISTEN_FDS: {0} is to speak TLS, and there is no certificate: set TLS_CERT_FILE and TLS_KEY_FILE, or change FileDescriptorName= in the unit of the socket"
    )]
    NoCertificate(Which),
    #[error("LISTEN_FDS: {0} cannot be listened on: {1}")]
    Other(Which, #[source] io::Error),
}

/// One descriptor, as an operator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Which {
    descriptor: usize,
    name: String,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "socket {}", self.descriptor)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        Ok(())
    }
}

/// Protocol of TCP sockets whose name does not choose one, and availability of TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct TlsDefaults {
    /// There is a certificate.
    pub(super) is_possible: bool,
    /// PORT would speak TLS.
    pub(super) is_usual: bool,
}

impl TlsDefaults {
    fn is_spoken_on(self, name: &str) -> bool {
        match name {
            "https" | "tls" => true,
            "http" => false,
            _ => self.is_usual,
        }
    }
}

/// Sockets that were passed to this process.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Those of clients.
    pub(super) sockets: Vec<Listener>,
    /// Those of `ADMIN_LISTEN`, from the process that hands over.
    pub(super) admin: Vec<TcpListener>,
    /// The way to tell that process that this one is ready.
    pub(super) ready: Option<UnixDatagram>,
}

/// The sockets that were passed to this process; none if it listens for itself.
pub(super) fn take(tls: TlsDefaults) -> Result<Passed, PassedError> {
    let said = env::var("LISTEN_FDS").unwrap_or_default();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 && !matches!(said.as_str(), "" | "0") {
        log::warn!("[Proxy] LISTEN_FDS={said} is not for this process (LISTEN_PID): ignored");
    }
    let is_handed_over = handover::SocketOwner::of_handover().is_some();
    let mut names = names.split(':');
    let mut taken = Passed::default();
    for index in 0..passed.len() {
        let which = Which {
            descriptor: FIRST + index,
            name: names.next().unwrap_or_default().to_owned(),
        };
        match which.name.as_str() {
            handover::READY if is_handed_over => {
                let ready = passed.take_unix_datagram(index);
                taken.ready = ready.map_err(|cause| PassedError::Other(which, cause))?;
            }
            handover::ADMIN if is_handed_over => {
                let admin = passed.take_tcp_listener(index);
                taken
                    .admin
                    .extend(admin.map_err(|cause| PassedError::Other(which, cause))?);
            }
            _ => taken.sockets.push(one(&mut passed, index, which, tls)?),
        }
    }
    Ok(taken)
}

fn one(
    passed: &mut ListenFd,
    index: usize,
    which: Which,
    tls: TlsDefaults,
) -> Result<Listener, PassedError> {
    if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
        check_listens(&SockRef::from(&tcp), &which)?;
        let failed = |cause| PassedError::Other(which.clone(), cause);
        sockets::bequeath(SockRef::from(&tcp)).map_err(failed)?;
        return match tls.is_spoken_on(&which.name) {
            true if !tls.is_possible => Err(PassedError::NoCertificate(which)),
            true => Ok(Listener::Tls(tcp)),
            false => Ok(Listener::Plain(tcp)),
        };
    }
    let unix: Option<UnixListener> = passed.take_unix_listener(index).ok().flatten();
    match unix {
        Some(unix) => {
            check_listens(&SockRef::from(&unix), &which)?;
            Ok(Listener::Unix(unix))
        }
        None => Err(PassedError::NotAStream(which)),
    }
}

fn check_listens(socket: &SockRef<'_>, which: &Which) -> Result<(), PassedError> {
    match socket.is_listener() {
        Ok(true) => Ok(()),
        Ok(false) => Err(PassedError::NotListening(which.clone())),
        Err(cause) => Err(PassedError::Other(which.clone(), cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_spoken_and_else_it_is_as_on_port() {
        for (name, usual, expected) in [
            ("https", false, true),
            ("tls", false, true),
            ("http", true, false),
            ("proxy.socket", true, true),
            ("proxy.socket", false, false),
            ("", true, true),
        ] {
            let tls = TlsDefaults {
                is_possible: true,
                is_usual: usual,
            };
            assert_eq!(tls.is_spoken_on(name), expected, "{name} {usual}");
        }
    }
}
