//! Keys, limits and audit of the process: opened at the start, ended after the last exchange, and the socket
//! that verbs on this machine ask.

#[cfg(unix)]
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use std::{process::ExitCode, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    access::{Access, Pepper},
    config::{AccessMode, Boot, Live},
    registry::{
        CurrentSettings, LedgerThread, OpenError, Registry, RegistryKind, RegistrySettings,
        SharingThread,
    },
    state::RedisLimits,
};

#[cfg(unix)]
use crate::state::{LockError, StateLock};

/// Name of the socket in `DATA_DIR`.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Keys and limits, as far as there are any.
#[derive(Default)]
pub(super) struct KeyDesk {
    /// Keys and limits for operators; none where there is no place to keep them, or they are off.
    pub(super) registry: Option<Arc<Registry>>,
    /// Keys and limits for the workers.
    pub(super) access: Option<Arc<Access>>,
    ledger: Option<LedgerThread>,
    sharing: Option<SharingThread>,
}

impl KeyDesk {
    /// Opens the store of `DATA_DIR`. One that cannot be used ends the start, unless keys are optional.
    pub(super) fn open(
        boot: &Boot,
        live: &Arc<ArcSwap<Live>>,
        boot_id: &str,
    ) -> Result<Self, ExitCode> {
        let settings = &boot.access;
        let (Some(data_dir), true) = (&boot.data_dir, settings.mode != AccessMode::Off) else {
            return Ok(Self::default());
        };
        let live = Arc::clone(live);
        let opened = Registry::open(
            RegistrySettings {
                data_dir: data_dir.clone(),
                pepper: settings.pepper.clone(),
                state: settings.state.clone(),
                kind: RegistryKind::Server(boot_id.to_owned()),
            },
            Box::new(move || current(&live.load())),
        );
        let registry = match opened {
            Ok(registry) => Arc::new(registry),
            Err(error) if settings.mode == AccessMode::Optional => {
                log::error!(
                    "[Access] {error}; requests with a key are refused, those without one pass (ACCESS=optional)"
                );
                return Ok(Self {
                    access: Some(Arc::new(none()?)),
                    ..Self::default()
                });
            }
            // nothing says that there are keys
            Err(error)
                if settings.mode == AccessMode::Auto
                    && settings.state.is_none()
                    && !matches!(error, OpenError::Lost(_))
                    && !Registry::has_store(data_dir) =>
            {
                log::warn!("[Access] {error}; there can be no keys until the next start");
                return Ok(Self::default());
            }
            Err(error) => {
                log::error!("[Access] {error}");
                return Err(ExitCode::FAILURE);
            }
        };
        let access = registry.access();
        access.set_contact(settings.contact.as_deref());
        let ledger =
            LedgerThread::start(&registry, settings.webhook.as_ref()).map_err(|error| {
                log::error!("[Access] no thread for the ledger: {error}; restart the proxy");
                ExitCode::FAILURE
            })?;
        let sharing = settings.state.as_ref().map(|state| {
            let replicas = u32::try_from(settings.replicas.get()).unwrap_or(u32::MAX);
            let store = Box::new(RedisLimits::new(state));
            SharingThread::start(&access, boot_id, replicas, store).map_err(|error| {
                log::error!("[Limits] no thread for shared limits: {error}; restart the proxy");
                ExitCode::FAILURE
            })
        });
        Ok(Self {
            registry: Some(registry),
            access: Some(access),
            ledger: Some(ledger),
            sharing: sharing.transpose()?,
        })
    }

    /// Logs what is in effect, if there are keys.
    pub(super) fn announce(&self) {
        let keys = self.access.as_ref().map(|access| access.keys());
        if let Some(keys) = keys.filter(|keys| !keys.is_empty()) {
            let revoked = keys.iter().filter(|key| key.is_revoked()).count();
            log::info!("[Access] {} keys, {revoked} of them revoked", keys.len());
        }
        let registry = self.registry.iter();
        for warning in registry.flat_map(|registry| registry.credential_warnings()) {
            log::warn!("[Access] {warning}");
        }
    }

    /// Asks the threads to end, after the last exchange: none waits for another one.
    pub(super) fn prepare_end(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.ask_end();
        }
        if let Some(ledger) = &self.ledger {
            ledger.ask_end();
        }
    }

    /// Writes the exact sums, after the last exchange.
    pub(super) fn end(self) {
        if let Some(sharing) = self.sharing {
            sharing.end();
        }
        if let Some(ledger) = self.ledger {
            ledger.end();
        }
    }
}

/// The settings that keys depend on.
fn current(live: &Live) -> CurrentSettings {
    CurrentSettings {
        prices: Arc::clone(&live.prices),
        has_credential: Some(live.has_all_credentials()),
    }
}

/// Access without keys, so that each key is refused rather than forwarded.
fn none() -> Result<Access, ExitCode> {
    let pepper = Pepper::generate()
        .ok()
        .and_then(|text| Pepper::new(text.as_bytes()).ok());
    let pepper = pepper.ok_or(ExitCode::FAILURE)?;
    Ok(Access::none(pepper))
}

/// Outcome of listening on the socket of verbs.
#[cfg(unix)]
pub(super) enum OperatorsSocket {
    /// This process listens there.
    Ours(std::os::unix::net::UnixListener, OperatorsFile),
    /// Another living server does, or is about to.
    Occupied,
    /// The path cannot be used.
    Unusable,
}

/// The file of the socket of verbs; it is removed when this is dropped, unless it is another server's by then.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct OperatorsFile {
    data_dir: PathBuf,
    file: Option<super::unix::SocketFile>,
}

#[cfg(unix)]
impl Drop for OperatorsFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // no other server takes its place between the look at whose it is and the removal
        let end = Instant::now() + LONGEST_REMOVAL;
        loop {
            match StateLock::of_socket(&self.data_dir) {
                Ok(_lock) => return drop(file),
                Err(LockError::Held(_)) if Instant::now() < end => thread::sleep(LOCK_INTERVAL),
                // the next start replaces it
                Err(_) => return file.leave(),
            }
        }
    }
}

/// Longest wait for the lock, to remove the file.
#[cfg(unix)]
const LONGEST_REMOVAL: Duration = Duration::from_secs(1);
#[cfg(unix)]
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Listens on the socket of verbs, in the place of a process that has ended or that hands over to this one. That of
/// another living server is left to it. Of servers that start at once, one gets it: the look and the change are one
/// step, under a lock.
#[cfg(unix)]
pub(super) fn listen(data_dir: &Path) -> OperatorsSocket {
    let path = data_dir.join(ADMIN_SOCKET);
    let _lock = match StateLock::of_socket(data_dir) {
        Ok(lock) => lock,
        Err(LockError::Held(_)) => return OperatorsSocket::Occupied,
        Err(LockError::Io(_, error)) => return unusable(&path, &error),
    };
    let is_handover = super::handover::SocketOwner::of_handover().is_some();
    match super::unix::occupant(&path) {
        Ok(super::unix::Occupant::None) => {}
        // the process that hands over started this one
        Ok(super::unix::Occupant::Process(id)) if is_handover && is_parent(id) => {}
        Ok(super::unix::Occupant::Process(_)) => return OperatorsSocket::Occupied,
        Err(error) => return unusable(&path, &error),
    }
    match super::unix::replace(&path) {
        Ok((socket, file)) => {
            let data_dir = data_dir.to_owned();
            let file = Some(file);
            OperatorsSocket::Ours(socket, OperatorsFile { data_dir, file })
        }
        Err(error) => unusable(&path, &error),
    }
}

/// Reports that this is the process that started this one, as far as the system tells.
#[cfg(unix)]
fn is_parent(id: Option<i32>) -> bool {
    let parent = rustix::process::getppid().map(|id| id.as_raw_nonzero().get());
    id.is_none() || id == parent
}

/// Tells that verbs reach another server.
#[cfg(unix)]
pub(super) fn warn_of_occupied(data_dir: &Path) {
    log::warn!(
        "[Admin] another server works with DATA_DIR {} and has {ADMIN_SOCKET}: verbs on this machine reach that one, \
         and this one once that one has ended; give each server a DATA_DIR of its own",
        data_dir.display()
    );
}

#[cfg(unix)]
fn unusable(path: &Path, error: &std::io::Error) -> OperatorsSocket {
    log::warn!(
        "[Admin] {} cannot be listened on: {error}; verbs on this machine (keys, limits, audit) need --server; let \
         this user write DATA_DIR, whose path has at most 80 bytes",
        path.display()
    );
    OperatorsSocket::Unusable
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn of_servers_that_start_at_once_one_gets_the_socket_of_verbs() {
        const SERVERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let barrier = Barrier::new(SERVERS);
        for round in 0..50 {
            let sockets: Vec<_> = thread::scope(|scope| {
                let server = || {
                    barrier.wait();
                    match listen(path) {
                        OperatorsSocket::Ours(socket, file) => Some((socket, file)),
                        OperatorsSocket::Occupied => None,
                        OperatorsSocket::Unusable => panic!("unusable"),
                    }
                };
                let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(server)).collect();
                let sockets = servers.into_iter().filter_map(|it| it.join().unwrap());
                sockets.collect()
            });
            assert_eq!(sockets.len(), 1, "round {round}");
            // those that were too late leave it, and look again
            assert!(matches!(listen(path), OperatorsSocket::Occupied));
            let socket = path.join(ADMIN_SOCKET);
            std::os::unix::net::UnixStream::connect(&socket).unwrap();
            drop(sockets);
            assert!(!socket.exists(), "round {round}");
        }
    }

    #[test]
    fn an_end_leaves_the_file_while_another_server_looks_at_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let OperatorsSocket::Ours(socket, file) = listen(path) else {
            panic!("it is free")
        };
        let lock = StateLock::of_socket(path).unwrap();
        drop((socket, file));
        assert!(path.join(ADMIN_SOCKET).exists());
        drop(lock);
        let OperatorsSocket::Ours(socket, file) = listen(path) else {
            panic!("what an end left behind is replaced")
        };
        drop((socket, file));
        assert!(!path.join(ADMIN_SOCKET).exists());
    }
}
