//! The checks of `DATA_DIR`: room, a write that the disk has, the databases, the chain of the audit.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    check::{Check, CheckGroup, plural},
    run::bounded_blocking,
};
use crate::{
    audit::ChainReport,
    state::{self, DatabaseFinding},
    telemetry::activity,
};

const GROUP: CheckGroup = CheckGroup::Data;

/// Free bytes below which the history soon cannot be written, and below which the next write may fail.
const ROOM: (u64, u64) = (1 << 30, 64 << 20);
/// Time for a write to reach the disk above which each change of a key is slow.
const SLOW: Duration = Duration::from_millis(250);

/// Result of the check of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFinding {
    /// Chains.
    pub chains: usize,
    /// Lines of all of them.
    pub lines: u64,
    /// The first break, in words.
    pub broken: Option<String>,
    /// Reason for which they were compared with no checkpoint.
    pub unanchored: Option<String>,
}

impl AuditFinding {
    /// The finding on chains that were verified, and why without checkpoints.
    pub fn of(chains: &[ChainReport], unanchored: Option<String>) -> Self {
        let broken = chains
            .iter()
            .find_map(|chain| Some((chain, chain.broken.as_ref()?)));
        Self {
            chains: chains.len(),
            lines: chains
                .iter()
                .map(|chain| (chain.last + 1).saturating_sub(chain.first.max(1)))
                .sum(),
            broken: broken.map(|(chain, broken)| {
                format!(
                    "chain {} at line {}: {}",
                    chain.chain, broken.seq, broken.why
                )
            }),
            unanchored,
        }
    }
}

/// Checks the chain of the audit; the error says why it cannot be checked.
pub type AuditCheck = Box<dyn FnOnce() -> Result<AuditFinding, String> + Send>;

/// Places that the proxy writes to.
#[derive(Default)]
pub struct DataPlaces {
    /// `DATA_DIR`.
    pub directory: Option<PathBuf>,
    /// Checks the audit, where there may be one.
    pub audit: Option<AuditCheck>,
    /// The socket of a server that this user may not use.
    pub denied: Option<DeniedSocket>,
}

/// The socket of a server that this user may not use, so that the server cannot be asked.
#[derive(Debug, Clone)]
pub struct DeniedSocket {
    /// The place.
    pub path: PathBuf,
    /// Name of the user that it belongs to.
    pub owner: Option<String>,
}

impl DeniedSocket {
    fn check(&self) -> Check {
        let path = self.path.display();
        let what = match fs::symlink_metadata(&self.path) {
            Ok(_) => format!("a server has {path}, which this user may not use"),
            // its folder is closed
            Err(_) => format!("this user may not use {path}, where a server may listen"),
        };
        let (of_whom, user) = match &self.owner {
            Some(owner) => (format!(" (it is that of {owner})"), &**owner),
            None => (String::new(), "USER"),
        };
        Check::fail(
            GROUP,
            "admin_socket",
            format!("{what}{of_whom}: the server was not asked"),
            format!(
                "run doctor as the user of the server: sudo -u {user} anthropic-proxy doctor; or ask it by its URL \
                 (--server)"
            ),
        )
    }
}

/// Checks `DATA_DIR`.
pub async fn data_checks(places: DataPlaces) -> Vec<Check> {
    let DataPlaces {
        directory,
        audit,
        denied,
    } = places;
    let mut checks: Vec<_> = denied.iter().map(DeniedSocket::check).collect();
    checks.extend(directory_checks(directory, audit).await);
    checks
}

async fn directory_checks(directory: Option<PathBuf>, audit: Option<AuditCheck>) -> Vec<Check> {
    let Some(directory) = directory else {
        let why = "not tried: DATA_DIR is not set, so nothing is kept over a restart";
        return vec![Check::skip(GROUP, "directory", why)];
    };
    match fs::metadata(&directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            let why = format!("{} is not a directory", directory.display());
            return vec![Check::fail(
                GROUP,
                "directory",
                why,
                "set DATA_DIR to a directory",
            )];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!(
                "{} does not exist yet: the server makes it",
                directory.display()
            );
            return vec![Check::skip(GROUP, "directory", why)];
        }
        Err(error) => {
            let why = format!("{} cannot be looked at: {error}", directory.display());
            return vec![Check::fail(
                GROUP,
                "directory",
                why,
                as_the_server(&directory),
            )];
        }
    }
    let mut checks = Vec::new();
    let path = directory.clone();
    let (space, took) = bounded_blocking(move || space(&path)).await;
    checks.push(space.unwrap_or_else(|| late("space")).took(took));
    let path = directory.clone();
    let (synced, took) = bounded_blocking(move || synced(&path)).await;
    checks.push(synced.unwrap_or_else(|| late("fsync")).took(took));
    for name in [state::STATE_FILE, activity::HISTORY_FILE] {
        let path = directory.join(name);
        let (found, took) = bounded_blocking(move || database(&path)).await;
        let mut check = found.unwrap_or_else(|| {
            let why = "not checked: it is too large for 5 s";
            Check::skip(GROUP, "database", why)
        });
        check.subject = Some(name.to_owned());
        checks.push(check.took(took));
    }
    if let Some(audit) = audit {
        let (found, took) = bounded_blocking(audit).await;
        checks.push(audited(found).took(took));
    }
    checks
}

fn late(id: &'static str) -> Check {
    Check::fail(
        GROUP,
        id,
        "the file system does not answer within 5 s",
        "check the disk, or the server of a network file system; put DATA_DIR on a local disk",
    )
}

fn as_the_server(path: &Path) -> String {
    format!(
        "run doctor as the user of the server (sudo -u USER), or let this user into {}",
        path.display()
    )
}

/// Free bytes and all bytes of the file system of a path.
#[cfg(unix)]
fn free(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

#[cfg(not(unix))]
fn free(_: &Path) -> io::Result<(u64, u64)> {
    Err(io::ErrorKind::Unsupported.into())
}

fn space(path: &Path) -> Check {
    match free(path) {
        Ok((free, all)) => room(path, free, all),
        Err(error) => Check::skip(GROUP, "space", format!("not known: {error}")),
    }
}

fn room(path: &Path, free: u64, all: u64) -> Check {
    const ID: &str = "space";
    let found = format!("{} MiB of {} MiB are free", free >> 20, all >> 20);
    let fix = format!(
        "free some, or give {} a larger file system; ACCESS_LOG_MAX_SIZE and ACCESS_LOG_KEEP bound the access log",
        path.display()
    );
    match free {
        _ if free < ROOM.1 => Check::fail(GROUP, ID, found, fix),
        _ if free < ROOM.0 => Check::warn(GROUP, ID, found, fix),
        _ => Check::ok(GROUP, ID, found),
    }
}

/// Writes a file that goes away by itself, and waits for the disk.
fn synced(path: &Path) -> Check {
    const ID: &str = "fsync";
    let began = Instant::now();
    let written = tempfile::tempfile_in(path).and_then(|mut file| {
        file.write_all(&[b'x'; 4096])?;
        file.sync_all()
    });
    let took = began.elapsed();
    match written {
        Ok(()) if took > SLOW => Check::warn(
            GROUP,
            ID,
            format!("a write reaches the disk after {} ms", took.as_millis()),
            "put DATA_DIR on a faster disk: each change of a key waits for it; traffic does not",
        ),
        Ok(()) => Check::ok(
            GROUP,
            ID,
            format!("a write reaches the disk after {} ms", took.as_millis()),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::fail(
            GROUP,
            ID,
            format!("this user may not write to {}", path.display()),
            as_the_server(path),
        ),
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Check::fail(
            GROUP,
            ID,
            format!("{} is read-only", path.display()),
            "mount it writable, or point DATA_DIR to a volume that is",
        ),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Check::fail(
            GROUP,
            ID,
            "there is no room left",
            "free some, or give DATA_DIR a larger file system",
        ),
        Err(error) => Check::fail(
            GROUP,
            ID,
            format!("a write does not reach the disk: {error}"),
            "check the disk (dmesg), and put DATA_DIR on a local one",
        ),
    }
}

fn database(path: &Path) -> Check {
    const ID: &str = "database";
    match state::check_database(path) {
        DatabaseFinding::Missing => Check::skip(
            GROUP,
            ID,
            "there is none yet: the server makes it when it is needed",
        ),
        DatabaseFinding::Whole => Check::ok(GROUP, ID, "whole"),
        DatabaseFinding::Busy => Check::skip(GROUP, ID, "not checked: the server is writing"),
        DatabaseFinding::Denied(why) => Check::fail(
            GROUP,
            ID,
            format!("cannot be read: {why}"),
            as_the_server(path),
        ),
        DatabaseFinding::Damaged(why) => Check::fail(
            GROUP,
            ID,
            format!("damaged: {why}"),
            format!(
                "stop the server, move {} away, and put the last backup in its place",
                path.display()
            ),
        ),
    }
}

fn audited(found: Option<Result<AuditFinding, String>>) -> Check {
    const ID: &str = "audit";
    match found {
        Some(Ok(AuditFinding {
            broken: Some(broken),
            ..
        })) => Check::fail(
            GROUP,
            ID,
            format!("the chain is broken: {broken}"),
            "find out who changed files of DATA_DIR/audit; compare with the checkpoints in the log; keep the files \
             (anthropic-proxy audit verify has the details)",
        ),
        Some(Ok(AuditFinding {
            unanchored: Some(why),
            lines,
            ..
        })) => Check::warn(
            GROUP,
            ID,
            format!(
                "the chain is whole by itself ({lines} lines), and its checkpoints are unknown: {why}"
            ),
            "run anthropic-proxy audit verify once the shared state answers",
        ),
        Some(Ok(AuditFinding { chains, lines, .. })) => Check::ok(
            GROUP,
            ID,
            format!(
                "the chain is whole: {} in {}",
                plural(usize::try_from(lines).unwrap_or(usize::MAX), "line"),
                plural(chains, "chain")
            ),
        ),
        Some(Err(why)) => Check::warn(
            GROUP,
            ID,
            format!("not checked: {why}"),
            "run anthropic-proxy audit verify as the user of the server",
        ),
        None => Check::skip(
            GROUP,
            ID,
            "not checked: it takes more than 5 s; anthropic-proxy audit verify does it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    fn status(checks: &[Check], id: &str) -> CheckStatus {
        checks.iter().find(|check| check.id == id).unwrap().status
    }

    async fn of(path: &Path) -> Vec<Check> {
        data_checks(DataPlaces {
            directory: Some(path.to_owned()),
            ..DataPlaces::default()
        })
        .await
    }

    #[tokio::test]
    async fn a_socket_that_this_user_may_not_use_is_told_with_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path, owner: Option<&str>| {
            data_checks(DataPlaces {
                denied: Some(DeniedSocket {
                    path: path.to_owned(),
                    owner: owner.map(str::to_owned),
                }),
                ..DataPlaces::default()
            })
        };
        let socket = dir.path().join("admin.sock");
        fs::write(&socket, "").unwrap();
        let checks = of(&socket, Some("proxy")).await;
        let (check, fix) = (&checks[0], checks[0].fix.as_deref().unwrap());
        assert_eq!(
            (&*check.id, check.status),
            ("admin_socket", CheckStatus::Fail)
        );
        assert!(check.detail.starts_with("a server has"), "{check:?}");
        assert!(check.detail.contains("(it is that of proxy)"), "{check:?}");
        assert!(
            fix.contains("sudo -u proxy anthropic-proxy doctor"),
            "{fix}"
        );
        let hidden = &of(&dir.path().join("x/admin.sock"), None).await[0];
        assert!(
            hidden.detail.contains("where a server may listen"),
            "{hidden:?}"
        );
    }

    #[tokio::test]
    async fn a_directory_that_is_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            status(&of(&dir.path().join("x")).await, "directory"),
            CheckStatus::Skip
        );
        fs::write(dir.path().join("x"), "").unwrap();
        assert_eq!(
            status(&of(&dir.path().join("x")).await, "directory"),
            CheckStatus::Fail
        );
        assert_eq!(
            status(&of(&dir.path().join("x/y")).await, "directory"),
            CheckStatus::Fail
        );
        let none = data_checks(DataPlaces::default()).await;
        assert_eq!(status(&none, "directory"), CheckStatus::Skip);
    }

    #[tokio::test]
    async fn a_database_that_is_damaged_fails() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(state::STATE_FILE), [7; 8192]).unwrap();
        let checks = of(dir.path()).await;
        assert_ne!(status(&checks, "fsync"), CheckStatus::Fail);
        let check = checks.iter().find(|check| check.id == "database").unwrap();
        assert_eq!(check.status, CheckStatus::Fail, "{check:?}");
        assert!(check.fix.as_ref().unwrap().contains("move"), "{check:?}");
    }

    #[test]
    fn room_that_ends_is_a_warning_and_none_is_a_failure() {
        let of = |free| room(Path::new("/data"), free, 1 << 40).status;
        assert_eq!(of(1 << 31), CheckStatus::Ok);
        assert_eq!(of((1 << 30) - 1), CheckStatus::Warn);
        assert_eq!(of((64 << 20) - 1), CheckStatus::Fail);
    }

    #[test]
    fn a_broken_chain_fails_and_one_that_cannot_be_checked_is_a_warning() {
        let finding = |broken: Option<&str>| AuditFinding {
            chains: 1,
            lines: 3,
            broken: broken.map(str::to_owned),
            unanchored: None,
        };
        assert_eq!(audited(Some(Ok(finding(None)))).status, CheckStatus::Ok);
        for (broken, status) in [
            (None, CheckStatus::Warn),
            (Some("line 2"), CheckStatus::Fail),
        ] {
            let unanchored = AuditFinding {
                unanchored: Some("it is away".to_owned()),
                ..finding(broken)
            };
            assert_eq!(audited(Some(Ok(unanchored))).status, status);
        }
        assert_eq!(
            audited(Some(Ok(finding(Some("line 2"))))).status,
            CheckStatus::Fail
        );
        assert_eq!(
            audited(Some(Err("no".to_owned()))).status,
            CheckStatus::Warn
        );
        assert_eq!(audited(None).status, CheckStatus::Skip);
    }
}
