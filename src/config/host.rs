//! `HOST` to addresses of this machine.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};

use super::scalar::InvalidValue;

/// The addresses of a host of this machine.
///
/// `localhost` is 127.0.0.1 without asking: with PORT=0, two addresses would get two ports.
pub(super) fn addresses(host: &str) -> Result<Vec<IpAddr>, InvalidValue> {
    let host = host.trim();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    if host.contains([':', '/', '@', ' ']) {
        return Err(
            InvalidValue::because("is not a host").hint("the port has its own variable, PORT")
        );
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (host, 0)
        .to_socket_addrs()
        .map_err(|_| InvalidValue::because("does not resolve"))?
    {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        Err(InvalidValue::because("does not resolve"))
    } else {
        Ok(addresses)
    }
}
