//! One GET on one connection, all of it before one deadline.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, OtherError, StreamOwned,
    pki_types::ServerName,
};

/// An address or socket to ask.
#[derive(Debug, Clone)]
pub(in crate::cli) enum HealthTarget {
    Tcp(SocketAddr),
    Tls(SocketAddr, ServerName<'static>, Arc<ClientConfig>),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl fmt::Display for HealthTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address, ..) => write!(f, "{address}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl HealthTarget {
    /// Value of `Host` if there is no URL.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Tls(address, ..) => address.to_string(),
            #[cfg(unix)]
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The status code of one GET.
    pub(super) fn status(
        &self,
        authority: &str,
        path: &str,
        deadline: Instant,
    ) -> io::Result<String> {
        status(self.open(deadline)?, authority, path).map_err(explained)
    }

    /// A connection, all of it before a deadline.
    pub(in crate::cli) fn open(&self, deadline: Instant) -> io::Result<Box<dyn Transfer>> {
        Ok(match self {
            Self::Tcp(address) => Box::new(connect(address, deadline)?),
            Self::Tls(address, name, config) => {
                let tls = ClientConnection::new(Arc::clone(config), name.clone())
                    .map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, connect(address, deadline)?))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let address = socket2::SockAddr::unix(path)?;
                let socket =
                    socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
                socket.connect_timeout(&address, left(deadline)?)?;
                Box::new(Bounded { socket, deadline })
            }
        })
    }
}

/// A connection in both directions.
pub(in crate::cli) trait Transfer: Read + Write {}

impl<T: Read + Write> Transfer for T {}

fn connect(address: &SocketAddr, deadline: Instant) -> io::Result<Bounded> {
    let tcp = TcpStream::connect_timeout(address, left(deadline)?)?;
    Ok(Bounded {
        socket: tcp.into(),
        deadline,
    })
}

/// A socket that is done with at the deadline, however its peer drips.
struct Bounded {
    socket: socket2::Socket,
    deadline: Instant,
}

impl Read for Bounded {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.deadline)?))?;
        self.socket.read(octets).map_err(timed_out)
    }
}

impl Write for Bounded {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.deadline)?))?;
        self.socket.write(octets).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Turns a blocking socket's word for a timeout into the usual one.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// The certificate check's own message, without the types around it.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
            io::Error::new(error.kind(), cause.to_string())
        }
        _ => error,
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn status(mut stream: impl Read + Write, authority: &str, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    let mut part = [0; 512];
    // The status line is enough; it is short.
    while !head.contains(&b'\n') && head.len() < 1024 {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => head.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let line = head
        .split(|&octet| octet == b'\n')
        .next()
        .unwrap_or_default();
    match line
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
    {
        Some(code) if code.iter().all(u8::is_ascii_digit) => {
            Ok(String::from_utf8_lossy(code).into_owned())
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is not HTTP/1.1",
        )),
    }
}
