//! A Unix socket to listen on, safe against other users and other processes.
//!
//! Its mode is 0660, regardless of the umask: write permission is permission to use the proxy, so
//! owner and group of the process have it and other users do not; the directory may narrow it
//! further. A stale socket, which a killed process leaves behind, is replaced; anything else at the
//! path is left alone. The file is removed at the end, unless it is another process's by then.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::sockets::BACKLOG;

const MODE: u32 = 0o660;

/// Reason for which a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnixError {
    #[error(
        "UNIX_SOCKET: {} is in use: another process listens there; stop it, or set another path", .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "UNIX_SOCKET: {} exists and is not a socket: it is left alone; move it away, or set another path", .0.display()
    )]
    NotASocket(PathBuf),
    #[error("UNIX_SOCKET: the directory of {} does not exist: create it", .0.display())]
    NoDirectory(PathBuf),
    #[error("UNIX_SOCKET: {} is too long: a socket's path has at most 107 bytes", .0.display())]
    TooLong(PathBuf),
    #[error("UNIX_SOCKET: no permission for {}: the directory must be writable for this user", .0.display())]
    Denied(PathBuf),
    #[error("UNIX_SOCKET: could not listen on {path}: {1}", path = .0.display())]
    Other(PathBuf, #[source] io::Error),
}

impl UnixError {
    /// Reports that another path is needed, independent of other processes.
    pub(super) fn is_of_the_path(&self) -> bool {
        match self {
            Self::NotASocket(_) | Self::NoDirectory(_) | Self::TooLong(_) | Self::Denied(_) => true,
            Self::InUse(_) | Self::Other(..) => false,
        }
    }
}

/// The file of a socket; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    is_left: bool,
}

impl SocketFile {
    /// The file of a socket at this path.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
            is_left: false,
        })
    }
}

impl SocketFile {
    /// Leaves the file to the process that goes on with its socket.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_left && identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // a failure cannot be reported; the next start replaces the socket
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device, inode and time of its making: another process may have replaced it, and an inode that
/// became free is soon used again.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

/// Listens on a path.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), UnixError> {
    let address = SockAddr::unix(path).map_err(|_| UnixError::TooLong(path.to_owned()))?;
    make_room(path)?;
    listen(path, &address).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            UnixError::NoDirectory(path.to_owned())
        }
        io::ErrorKind::AddrInUse => UnixError::InUse(path.to_owned()),
        io::ErrorKind::PermissionDenied => UnixError::Denied(path.to_owned()),
        _ => UnixError::Other(path.to_owned(), cause),
    })
}

/// Listens on a path in the place of another process, for the owner alone: the name moves to the new socket at
/// once, and the earlier process leaves it there.
pub(super) fn replace(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    const OWNER: u32 = 0o600;
    if let Ok(metadata) = fs::symlink_metadata(path)
        && !metadata.file_type().is_socket()
    {
        return Err(io::Error::other(
            "it exists and is not a socket; move it away",
        ));
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // left behind by a process of this number that was killed
    let _ = fs::remove_file(&beside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&beside)?)?;
    let renamed = fs::set_permissions(&beside, fs::Permissions::from_mode(OWNER))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = renamed {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok((socket.into(), SocketFile::of(path)?))
}

/// Listener of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupant {
    /// There is none: no file, or one that a killed process left behind.
    None,
    /// A process, with its id where the system tells it.
    Process(Option<i32>),
}

/// The process that listens on a path.
pub(super) fn occupant(path: &Path) -> io::Result<Occupant> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // a listener whose queue is full lets wait
    socket.set_nonblocking(true)?;
    match socket.connect(&address) {
        Ok(()) => Ok(Occupant::Process(peer(&socket))),
        Err(cause) => match cause.kind() {
            io::ErrorKind::WouldBlock => Ok(Occupant::Process(None)),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(Occupant::None),
            _ => Err(cause),
        },
    }
}

#[cfg(target_os = "linux")]
fn peer(socket: &Socket) -> Option<i32> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

#[cfg(not(target_os = "linux"))]
fn peer(_: &Socket) -> Option<i32> {
    None
}

/// Removes a stale socket.
fn make_room(path: &Path) -> Result<(), UnixError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(UnixError::NotASocket(path.to_owned()));
    }
    match occupant(path) {
        Ok(Occupant::Process(_)) => Err(UnixError::InUse(path.to_owned())),
        Ok(Occupant::None) => fs::remove_file(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => UnixError::Denied(path.to_owned()),
            _ => UnixError::Other(path.to_owned(), cause),
        }),
        Err(cause) => Err(UnixError::Other(path.to_owned(), cause)),
    }
}

fn listen(path: &Path, address: &SockAddr) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(address)?;
    let file = SocketFile::of(path)?;
    // before it listens: until then no client gets in, regardless of the mode that the umask gave it
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_with_its_mode_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(matches!(bind(&path), Err(UnixError::InUse(_))));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_its_late_owner_leaves_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, late) = bind(&path).unwrap();
        drop(listener);
        let (_listener, _file) = bind(&path).unwrap();
        drop(late);
        assert!(path.exists());
    }

    #[test]
    fn a_socket_replaces_that_of_another_process_which_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (first, file) = replace(&path).unwrap();
        let (second, later) = replace(&path).unwrap();
        drop((first, file));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop((second, later));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "kept").unwrap();
        assert!(replace(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "kept").unwrap();
        assert!(matches!(bind(&path), Err(UnixError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        let missing = dir.path().join("no/s");
        assert!(matches!(bind(&missing), Err(UnixError::NoDirectory(_))));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(bind(&long), Err(UnixError::TooLong(_))));
    }
}
