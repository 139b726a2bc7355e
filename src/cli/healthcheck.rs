//! `healthcheck`: asks the running server's `/health`, for images without shell or curl.
//!
//! One small blocking exchange with a deadline. It needs only HOST, PORT, TLS_PORT, UNIX_SOCKET and
//! TLS_CERT_FILE of the configuration: a file that became invalid must not make a healthy server
//! look sick. The Unix socket is asked first, then the ports; the first that is healthy will do,
//! since they all belong to one process.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use rustls::pki_types::ServerName;

use self::{exchange::HealthTarget, trust::CertificateTrustError};
use super::output;
use crate::config::{ConfigSource, Flags, Listen, Scheme, Upstream};

pub(super) mod exchange;
pub(super) mod trust;

#[derive(Debug, Clone, Args)]
pub(super) struct Healthcheck {
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
    /// Ask this URL instead of what HOST and PORT say
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    pub(super) settings: Flags,
}

pub(super) fn run(asked: &Healthcheck) -> ExitCode {
    match ask(asked) {
        Ok(()) => output::say(b"healthy\n"),
        Err(unhealthy) => {
            output::complain(&unhealthy);
            ExitCode::FAILURE
        }
    }
}

/// Reason for which the server does not count as healthy.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("--url: {0}")]
    Url(#[from] crate::config::InvalidUpstream),
    #[error("--url: {0} is not a name that a certificate can have")]
    Name(String),
    #[error("{0}")]
    Config(#[from] crate::config::ConfigErrors),
    #[error("{0}")]
    Trust(#[from] CertificateTrustError),
    #[error("PORT is 0, so the port is unknown: name it with --port or --url")]
    UnknownPort,
    #[error("could not resolve {host}: {error}")]
    Resolve { host: String, error: io::Error },
    #[error("no answer from {target}: {error}")]
    NoAnswer {
        target: HealthTarget,
        error: io::Error,
    },
    #[error("{target} answered with status {status}")]
    Status {
        target: HealthTarget,
        status: String,
    },
}

fn ask(asked: &Healthcheck) -> Result<(), Unhealthy> {
    let (targets, authority, path) = match &asked.url {
        Some(url) => of_url(url, asked)?,
        None => {
            let targets = of_settings(asked)?;
            // an address, or `localhost` for a path
            let authority = targets
                .first()
                .map(HealthTarget::authority)
                .unwrap_or_default();
            (targets, authority, "/health".to_owned())
        }
    };
    let deadline = Instant::now() + asked.timeout;
    let mut last = Err(Unhealthy::Resolve {
        host: authority.clone(),
        error: io::ErrorKind::NotFound.into(),
    });
    for target in targets {
        last = match target.status(&authority, &path, deadline) {
            Ok(status) if status == "200" => return Ok(()),
            Ok(status) => Err(Unhealthy::Status { target, status }),
            Err(error) => Err(Unhealthy::NoAnswer { target, error }),
        };
    }
    last
}

/// Targets, authority and path of a URL.
fn of_url(
    url: &str,
    asked: &Healthcheck,
) -> Result<(Vec<HealthTarget>, String, String), Unhealthy> {
    let url: Upstream = url.parse()?;
    let host = url.host.clone();
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|error| Unhealthy::Resolve { host, error })?;
    let targets = match url.scheme {
        Scheme::Http => addresses.map(HealthTarget::Tcp).collect(),
        Scheme::Https => {
            let name = ServerName::try_from(url.host.clone())
                .map_err(|_| Unhealthy::Name(url.host.clone()))?;
            // the system store may do without it
            let source = ConfigSource::of_process(asked.settings.clone());
            let own = source.certificate().ok().flatten();
            let config = trust::own_or_system(own)?;
            addresses
                .map(|address| HealthTarget::Tls(address, name.clone(), config.clone()))
                .collect()
        }
    };
    let path = match url.prefix.as_str() {
        "" => "/health".to_owned(),
        prefix => prefix.to_owned(),
    };
    Ok((targets, url.authority, path))
}

/// Targets from the settings of the listeners.
fn of_settings(asked: &Healthcheck) -> Result<Vec<HealthTarget>, Unhealthy> {
    let source = ConfigSource::of_process(asked.settings.clone());
    let Listen { plain, tls, unix } = source.listen()?;
    let at = |addresses: Vec<SocketAddr>| {
        addresses
            .into_iter()
            .filter(|address| address.port() != 0)
            .flat_map(reachable)
    };
    let mut targets: Vec<HealthTarget> = unix.into_iter().filter_map(of_path).collect();
    targets.extend(at(plain).map(HealthTarget::Tcp));
    let mut tls = at(tls).peekable();
    if tls.peek().is_some() {
        let config = match source.certificate() {
            Ok(own) => trust::only(own)?,
            // the server refused this pair, too, and serves the one before
            Err(_) => trust::any_with_key()?,
        };
        targets.extend(tls.map(|address| {
            let name = ServerName::from(address.ip());
            HealthTarget::Tls(address, name, config.clone())
        }));
    }
    match targets.is_empty() {
        true => Err(Unhealthy::UnknownPort),
        false => Ok(targets),
    }
}

#[cfg(unix)]
fn of_path(path: PathBuf) -> Option<HealthTarget> {
    Some(HealthTarget::Unix(path))
}

#[cfg(not(unix))]
fn of_path(_path: PathBuf) -> Option<HealthTarget> {
    None
}

/// Addresses by which this machine reaches a listener.
pub(super) fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
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
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

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
            settings: Flags::default(),
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
