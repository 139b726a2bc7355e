//! Finds an upstream that is one of our own listeners: each request would come back until something
//! runs out.
//!
//! What can be told before anything listens: addresses, and names that resolve here. A name is
//! resolved only where the port is one of ours, so a start asks no resolver otherwise. An upstream
//! behind an outbound proxy, and one that becomes ours later, is seen when it is dialled.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use super::{
    endpoint::Endpoint,
    error::ConfigError,
    model::Config,
    origin::{Origin, Setting},
    route::OutboundRoute,
};

/// A fault for each upstream that is ourselves.
pub(super) fn faults(config: &Config, settings: &[Setting]) -> Vec<ConfigError> {
    let listen = &config.boot.listen;
    let listeners: Vec<SocketAddr> = listen
        .plain
        .iter()
        .chain(&listen.tls)
        .copied()
        .chain(config.boot.admin_listen)
        .collect();
    let is_set = |name: &str| {
        let setting = settings.iter().find(|it| it.variable.name == name)?;
        (setting.origin != Origin::Default).then_some(setting)
    };
    let Some(setting) = is_set("API_BASE_URL").or_else(|| is_set("API_BASE_URLS")) else {
        return Vec::new();
    };
    let endpoints = config.live.endpoints.iter();
    endpoints
        .filter_map(|endpoint| Some((endpoint, own_listener(endpoint, &listeners)?)))
        .map(|(endpoint, listener)| ConfigError {
            variable: Some(setting.variable.name.to_owned()),
            fix: Some("name the upstream's own address, or listen on another PORT".to_owned()),
            ..ConfigError::at(
                setting.origin.clone(),
                format!(
                    "names {}, which is this proxy itself (it listens on {listener}): requests would \
                     loop",
                    endpoint.upstream
                ),
                "the address of another server",
            )
        })
        .collect()
}

/// The listener that an endpoint leads to.
fn own_listener(endpoint: &Endpoint, listeners: &[SocketAddr]) -> Option<SocketAddr> {
    let port = endpoint.upstream.port;
    let same_port: Vec<_> = listeners.iter().filter(|it| it.port() == port).collect();
    if endpoint.route != OutboundRoute::Direct || same_port.is_empty() {
        return None;
    }
    let host = endpoint.upstream.host.as_str();
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        // a name that does not resolve is no news here
        Err(_) => (host, port)
            .to_socket_addrs()
            .map(|found| found.map(|it| it.ip()).collect())
            .unwrap_or_default(),
    };
    same_port
        .into_iter()
        .find(|listener| addresses.iter().any(|it| reaches(*it, listener.ip())))
        .copied()
}

/// Reports that a connection to `address` arrives at a listener on `listener` with the same port.
fn reaches(address: IpAddr, listener: IpAddr) -> bool {
    let (address, listener) = (address.to_canonical(), listener.to_canonical());
    // to dial "any address" is to dial this machine
    let address = match address {
        IpAddr::V4(it) if it.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(it) if it.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        other => other,
    };
    match listener {
        _ if listener == address => true,
        IpAddr::V4(it) if it.is_unspecified() => address.is_ipv4() && is_of_this_machine(address),
        // it takes IPv4, too
        IpAddr::V6(it) if it.is_unspecified() => is_of_this_machine(address),
        _ => false,
    }
}

/// Reports that the system lets a socket bind to the address.
fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{ConfigSource, Environment, Flags};

    fn load(environment: &[(&str, &str)]) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let environment: Environment = environment.iter().copied().collect();
        let source = ConfigSource::new(Flags::default(), environment).rooted(dir.path());
        source
            .load()
            .map(|_| ())
            .map_err(|faults| faults.to_string())
    }

    #[test]
    fn an_upstream_that_is_ourselves_is_a_fault() {
        for (host, url) in [
            ("127.0.0.1", "http://127.0.0.1:4711"),
            ("127.0.0.1", "http://localhost:4711/prefix"),
            ("127.0.0.1", "https://127.0.0.1:4711"),
            ("127.0.0.1", "http://0.0.0.0:4711"),
            ("0.0.0.0", "http://127.0.0.1:4711"),
            ("0.0.0.0", "http://127.1.2.3:4711"),
            ("::", "http://127.0.0.1:4711"),
        ] {
            let said = load(&[("HOST", host), ("PORT", "4711"), ("API_BASE_URL", url)]);
            let said = said.unwrap_err();
            assert!(
                said.contains("API_BASE_URL (environment): names http")
                    && said.contains("which is this proxy itself"),
                "{host} {url}: {said}"
            );
        }
        let urls = "http://127.0.0.1:1,http://127.0.0.1:4712";
        let said = load(&[
            ("PORT", "4711"),
            ("ADMIN_LISTEN", "127.0.0.1:4712"),
            ("API_BASE_URLS", urls),
        ]);
        assert!(
            said.unwrap_err()
                .contains("API_BASE_URLS (environment): names")
        );
    }

    #[test]
    fn another_server_is_none() {
        for (host, url) in [
            ("127.0.0.1", "http://127.0.0.1:4712"),
            ("127.0.0.1", "http://127.0.0.2:4711"),
            // addresses for documentation (RFC 5737): not of this machine
            ("0.0.0.0", "http://192.0.2.1:4711"),
            ("127.0.0.1", "http://no.such.name.invalid:4711"),
        ] {
            let set = [("HOST", host), ("PORT", "4711"), ("API_BASE_URL", url)];
            assert_eq!(load(&set), Ok(()), "{host} {url}");
        }
        // through an outbound proxy the address is another machine's
        assert_eq!(
            load(&[
                ("PORT", "4711"),
                ("API_BASE_URL", "http://127.0.0.1:4711"),
                ("HTTP_PROXY", "http://192.0.2.1:3128"),
            ]),
            Ok(())
        );
        // sockets that were passed are not those of PORT
        assert_eq!(
            load(&[
                ("PORT", "4711"),
                ("API_BASE_URL", "http://127.0.0.1:4711"),
                ("LISTEN_FDS", "1"),
            ]),
            Ok(())
        );
    }

    #[test]
    fn a_reload_refuses_it_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let write = |text: &str| fs::write(dir.path().join("env/.env"), text).unwrap();
        write("PORT=4711\nAPI_BASE_URL=http://127.0.0.1:4712\n");
        let source = ConfigSource::new(Flags::default(), Environment::default()).rooted(dir.path());
        let last = source.load().unwrap();
        write("PORT=4711\nAPI_BASE_URL=http://127.0.0.1:4711\n");
        let faults = source.load_after(&last).unwrap_err();
        assert!(faults.to_string().contains("env/.env line 2"), "{faults}");
    }
}
