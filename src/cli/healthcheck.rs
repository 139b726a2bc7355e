//! `healthcheck`: asks the running server's `/health`, for images without shell or curl.
//!
//! One small blocking exchange with a deadline. It needs only HOST and PORT of the configuration:
//! a file that became invalid must not make a healthy server look sick.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;

use crate::config::{Scheme, Upstream};

#[derive(Debug, Clone, Args)]
pub(super) struct Healthcheck {
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
    /// Ask this URL instead of what HOST and PORT say
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    settings: super::Settings,
}

pub(super) fn run(asked: &Healthcheck) -> ExitCode {
    match ask(asked) {
        Ok(()) => super::say(b"healthy\n"),
        Err(unhealthy) => {
            super::complain(&unhealthy);
            ExitCode::FAILURE
        }
    }
}

/// Why the server does not count as healthy.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("--url: {0}")]
    Url(#[from] crate::config::InvalidUpstream),
    #[error("--url: only http is spoken here")]
    Https,
    #[error("{0}")]
    Config(#[from] crate::config::Faults),
    #[error("PORT is 0, so the port is unknown: name it with --port or --url")]
    UnknownPort,
    #[error("could not resolve {host}: {error}")]
    Resolve { host: String, error: io::Error },
    #[error("no answer from {address}: {error}")]
    NoAnswer {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("{address} answered with status {status}")]
    Status { address: SocketAddr, status: String },
}

fn ask(asked: &Healthcheck) -> Result<(), Unhealthy> {
    let (addresses, authority, path) = match &asked.url {
        Some(url) => {
            let url: Upstream = url.parse()?;
            if url.scheme == Scheme::Https {
                return Err(Unhealthy::Https);
            }
            let host = url.host.clone();
            let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port)
                .to_socket_addrs()
                .map_err(|error| Unhealthy::Resolve { host, error })?
                .collect();
            let path = if url.prefix.is_empty() {
                "/health".to_owned()
            } else {
                url.prefix
            };
            (addresses, url.authority, path)
        }
        None => {
            let listen = asked.settings.clone().source().listen()?.plain;
            if listen.iter().any(|address| address.port() == 0) {
                return Err(Unhealthy::UnknownPort);
            }
            let addresses: Vec<_> = listen.into_iter().flat_map(reachable).collect();
            let authority = addresses
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            (addresses, authority, "/health".to_owned())
        }
    };
    let deadline = Instant::now() + asked.timeout;
    let mut last = Err(Unhealthy::Resolve {
        host: authority.clone(),
        error: io::ErrorKind::NotFound.into(),
    });
    for address in addresses {
        last = match status(address, &authority, &path, deadline) {
            Ok(status) if status == "200" => return Ok(()),
            Ok(status) => Err(Unhealthy::Status { address, status }),
            Err(error) => Err(Unhealthy::NoAnswer { address, error }),
        };
    }
    last
}

/// Where a listener can be reached from this machine.
fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    let port = listen.port();
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]
        }
        IpAddr::V6(ip) if ip.is_unspecified() => vec![
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        ],
        _ => vec![listen],
    }
}

/// The status code of one GET.
fn status(
    address: SocketAddr,
    authority: &str,
    path: &str,
    deadline: Instant,
) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut part = [0; 512];
    // The status line is enough; it is short.
    while !head.contains(&b'\n') && head.len() < 1024 {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => head.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
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

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if !timeout.is_zero() && timeout <= LONGEST => Ok(timeout),
        _ => Err("not between 0 and 3600 seconds".to_owned()),
    }
}

const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Asks a server that gives `answer` and closes; returns what it was asked, too.
    fn asked(answer: &'static [u8], path: &str) -> (Result<(), Unhealthy>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 256];
            while !request.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..n]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        let result = ask(&healthcheck(&format!("http://{address}{path}"), 10));
        (result, server.join().unwrap())
    }

    fn healthcheck(url: &str, seconds: u64) -> Healthcheck {
        Healthcheck {
            timeout: Duration::from_secs(seconds),
            url: Some(url.to_owned()),
            settings: super::super::Settings {
                env_file: None,
                headers_file: None,
                host: None,
                port: None,
                api_base_url: None,
                workers: None,
            },
        }
    }

    #[test]
    fn a_200_is_healthy() {
        let (result, request) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "");
        assert!(result.is_ok(), "{result:?}");
        assert!(
            request.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"),
            "{request}"
        );
        let (result, request) = asked(b"HTTP/1.1 200 OK\r\n\r\n", "/base/health");
        assert!(result.is_ok(), "{result:?}");
        assert!(
            request.starts_with("GET /base/health HTTP/1.1\r\n"),
            "{request}"
        );
    }

    #[test]
    fn anything_else_is_not() {
        let (result, _) = asked(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "");
        assert!(
            result
                .unwrap_err()
                .to_string()
                .ends_with("answered with status 503")
        );
        assert!(asked(b"SSH-2.0-x\r\n", "").0.is_err());
        assert!(asked(b"", "").0.is_err());
        assert!(ask(&healthcheck("https://127.0.0.1:1", 1)).is_err());
        assert!(ask(&healthcheck("nonsense", 1)).is_err());
    }

    #[test]
    fn a_silent_server_is_not_waited_for() {
        // Connected by the kernel, never accepted.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut asked = healthcheck(&format!("http://{}", listener.local_addr().unwrap()), 1);
        asked.timeout = Duration::from_millis(50);
        assert!(matches!(ask(&asked), Err(Unhealthy::NoAnswer { .. })));
    }

    #[test]
    fn unspecified_addresses_are_asked_at_loopback() {
        let at = |text: &str| {
            reachable(text.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(at("0.0.0.0:1"), ["127.0.0.1:1"]);
        assert_eq!(at("[::]:1"), ["[::1]:1", "127.0.0.1:1"]);
        assert_eq!(at("10.0.0.1:1"), ["10.0.0.1:1"]);
    }
}
