//! The sockets to listen on: those that systemd passed, or else those that the settings name.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

#[cfg(unix)]
use super::{
    activation::{self, Passed, PassedError},
    handover::{self, Heirloom, SocketOwner},
    unix::{self, SocketFile, UnixError},
};
use super::{
    listener::Listener,
    sockets::{self, BindError},
};
use crate::{config::Listen, doctor::ListenerTarget};

/// All of them.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The sockets.
    pub(super) sockets: Vec<Listener>,
    /// systemd made the sockets and passed them.
    pub(super) are_passed: bool,
    /// An earlier process of the program handed them over.
    pub(super) are_inherited: bool,
    /// Those of `ADMIN_LISTEN` that it handed over.
    pub(super) admin: Vec<TcpListener>,
    /// The way to tell that process that this one is ready.
    #[cfg(unix)]
    pub(super) ready: Option<std::os::unix::net::UnixDatagram>,
    /// The file of ours, which goes when this is dropped.
    #[cfg(unix)]
    pub(super) file: Option<SocketFile>,
}

impl Listeners {
    /// The addresses of those that have one.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().filter_map(Listener::address)
    }

    /// Places at which this machine reaches them.
    pub(super) fn targets(&self) -> Vec<ListenerTarget> {
        self.sockets.iter().filter_map(Listener::target).collect()
    }

    /// Handles on all of them and on those of `ADMIN_LISTEN`, for the next process.
    #[cfg(unix)]
    pub(super) fn heirlooms(&self, admin: &[TcpListener]) -> Vec<Heirloom> {
        let of_clients = self.sockets.iter().filter_map(|listener| {
            Some(Heirloom {
                socket: listener.handle()?,
                name: listener.name(),
            })
        });
        let of_admins = admin.iter().filter_map(|listener| {
            Some(Heirloom {
                socket: socket2::SockRef::from(listener).try_clone().ok()?,
                name: handover::ADMIN,
            })
        });
        of_clients.chain(of_admins).collect()
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
        let Passed {
            sockets,
            admin,
            ready,
        } = activation::take(tls)?;
        if !sockets.is_empty() {
            let owner = SocketOwner::of_handover();
            let is_ours = owner == Some(SocketOwner::Program);
            let file = sockets.iter().find_map(Listener::path);
            return Ok(Listeners {
                sockets,
                are_passed: !is_ours,
                are_inherited: owner.is_some(),
                admin,
                ready,
                // one that cannot be looked at stays
                file: file
                    .filter(|_| is_ours)
                    .and_then(|path| SocketFile::of(&path).ok()),
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
        are_inherited: false,
        admin: Vec::new(),
        #[cfg(unix)]
        ready: None,
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
