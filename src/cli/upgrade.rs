//! `upgrade`: has the running server hand its sockets over to a new process of the program as it is on the disk
//! now. The server does it; this asks (`SIGUSR2`) and waits for the outcome.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::output;
use crate::config::{ConfigErrors, ConfigSource, Flags};

/// For the new process to be ready: a little longer than the server waits.
const PATIENCE: Duration = Duration::from_secs(65);
/// Between looks at who answers.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Args)]
pub(super) struct Upgrade {
    /// Process id of the server; without it, the server that listens on admin.sock in DATA_DIR
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// Reason for which no new process took over.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error(
        "DATA_DIR is not set, so the server is not known: set it to the server's, or give --pid"
    )]
    NoDirectory,
    #[error("no server listens on {path}: {1}; start one, or give --pid", path = .0.display())]
    NoServer(PathBuf, #[source] io::Error),
    #[error(
        "this user may not use {path}: {1}; run this as the user of the server, or give --pid", path = .0.display()
    )]
    Denied(PathBuf, #[source] io::Error),
    #[error("{0} is not the id of a process")]
    NoPid(i32),
    #[error("process {0} cannot be asked: {1}")]
    NotAsked(i32, #[source] io::Error),
    #[error(
        "process {0} still serves after {patience} s: the new one failed or was not ready; the server's log says why",
        patience = PATIENCE.as_secs()
    )]
    NotTaken(i32),
    #[error(
        "process {0} still serves: the new one ended before it was ready; the server's log says why"
    )]
    Ended(i32),
}

pub(super) fn run(asked: &Upgrade) -> ExitCode {
    match upgrade(asked) {
        Ok(said) => output::say(said.as_bytes()),
        Err(error) => {
            output::complain(&error);
            match error {
                UpgradeError::Config(_) | UpgradeError::NoDirectory | UpgradeError::NoPid(_) => {
                    output::EXIT_USAGE.into()
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn upgrade(asked: &Upgrade) -> Result<String, UpgradeError> {
    if let Some(id) = asked.pid {
        ask(id)?;
        return Ok(format!(
            "process {id} was asked to hand over; its log says how it goes\n"
        ));
    }
    let source = ConfigSource::of_process(asked.settings.clone());
    let (data_dir, _) = source.access()?;
    let socket = data_dir.ok_or(UpgradeError::NoDirectory)?;
    let socket = socket.join(crate::server::ADMIN_SOCKET);
    let before = listener(&socket).map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => UpgradeError::Denied(socket.clone(), cause),
        _ => UpgradeError::NoServer(socket.clone(), cause),
    })?;
    let ended = ended_children(before);
    ask(before)?;
    output::complain(&format_args!(
        "process {before} was asked to hand over; waiting up to {} s for the new one",
        PATIENCE.as_secs()
    ));
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        // between the two there is a moment without one
        match listener(&socket) {
            Ok(now) if now != before => {
                return Ok(format!(
                    "process {now} has taken over from process {before}\n"
                ));
            }
            Ok(_) if ended.is_some() && ended_children(before) != ended => {
                return Err(UpgradeError::Ended(before));
            }
            _ => thread::sleep(LOOK_INTERVAL),
        }
    }
    Err(UpgradeError::NotTaken(before))
}

/// A count that changes when a child of the process has ended and was waited for: the page faults of such children
/// (`cminflt` of `proc_pid_stat(5)`). A server has no other children than new processes of itself.
fn ended_children(id: i32) -> Option<u64> {
    faults_of_children(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

fn faults_of_children(stat: &str) -> Option<u64> {
    // the name of the program may have spaces and parentheses; the state is the field after it
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(8)?.parse().ok()
}

fn ask(id: i32) -> Result<(), UpgradeError> {
    // 0 and less are groups of processes
    let pid = Some(id).filter(|id| *id > 0).and_then(Pid::from_raw);
    let pid = pid.ok_or(UpgradeError::NoPid(id))?;
    kill_process(pid, Signal::USR2).map_err(|cause| UpgradeError::NotAsked(id, cause.into()))
}

/// The process that listens on a Unix socket.
fn listener(path: &Path) -> io::Result<i32> {
    let socket = UnixStream::connect(path)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    Ok(peer.pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_waited_for_shows() {
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194560 100 77 0 0 1 2 3 4 20 0 1 0 5";
        assert_eq!(faults_of_children(stat), Some(77));
        let own = i32::try_from(std::process::id()).unwrap();
        let before = ended_children(own).unwrap();
        let status = std::process::Command::new("true").status().unwrap();
        assert!(status.success());
        assert!(ended_children(own).unwrap() > before);
    }
}
