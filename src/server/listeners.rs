//! The sockets to listen on: those that systemd passed, or else those that the settings name.

use std::{net::SocketAddr, process::ExitCode};

#[cfg(unix)]
use super::{
    activation::{self, PassedError},
    unix::{self, SocketFile, UnixError},
};
use super::{
    listener::Listener,
    sockets::{self, BindError},
};
use crate::config::Listen;

/// All of them.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The sockets.
    pub(super) sockets: Vec<Listener>,
    /// Another process made the sockets and passed them.
    pub(super) are_passed: bool,
    /// The file of ours, which goes when this is dropped.
    #[cfg(unix)]
    pub(super) file: Option<SocketFile>,
}

impl Listeners {
    /// The addresses of those that have one.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().filter_map(Listener::address)
    }

    /// Reports that HOST keeps the network out.
    pub(super) fn are_local(&self) -> bool {
        !self.are_passed && self.sockets.iter().all(Listener::is_local)
    }
}

/// Reason for which no socket listens.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum ListenError {
    Bind(#[from] BindError),
    #[cfg(unix)]
    Unix(#[from] UnixError),
    #[cfg(unix)]
    Passed(#[from] PassedError),
}

impl ListenError {
    /// 2 for what the configuration lacks, 1 for what fails at run time.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            #[cfg(unix)]
            Self::Passed(PassedError::NoCertificate(_)) => ExitCode::from(2),
            #[cfg(unix)]
            Self::Unix(fault) if fault.is_of_the_path() => ExitCode::from(2),
            #[cfg(unix)]
            Self::Unix(_) | Self::Passed(_) => ExitCode::FAILURE,
            Self::Bind(_) => ExitCode::FAILURE,
        }
    }
}

/// Listens everywhere, or nowhere.
pub(super) fn open(listen: &Listen, has_certificate: bool) -> Result<Listeners, ListenError> {
    #[cfg(unix)]
    {
        let tls = activation::TlsDefaults {
            is_possible: has_certificate,
            is_usual: listen.plain.is_empty() && !listen.tls.is_empty(),
        };
        let sockets = activation::take(tls)?;
        if !sockets.is_empty() {
            return Ok(Listeners {
                sockets,
                are_passed: true,
                file: None,
            });
        }
    }
    #[cfg(not(unix))]
    let _ = has_certificate;
    let tls_variable = match listen.plain.is_empty() {
        true => "PORT",
        false => "TLS_PORT",
    };
    let plain = sockets::bind(&listen.plain, "PORT")?;
    let tls = sockets::bind(&listen.tls, tls_variable)?;
    let plain = plain.into_iter().map(Listener::Plain);
    let sockets = plain.chain(tls.into_iter().map(Listener::Tls));
    let mut listeners = Listeners {
        sockets: sockets.collect(),
        are_passed: false,
        #[cfg(unix)]
        file: None,
    };
    #[cfg(unix)]
    if let Some(path) = &listen.unix {
        let (socket, file) = unix::bind(path)?;
        listeners.sockets.push(Listener::Unix(socket));
        listeners.file = Some(file);
    }
    Ok(listeners)
}
