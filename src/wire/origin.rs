//! Origins of web pages (RFC 6454) and the names that this machine answers to.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Reports whether an origin belongs to the host of the request. A TLS terminator in front of the
/// proxy makes `https` of a request in clear; an `http` origin over TLS does not match.
pub fn is_same(origin: &str, host: &str, is_tls: bool) -> bool {
    let authority = match origin.split_once("://") {
        Some(("https", authority)) => authority,
        Some(("http", authority)) if !is_tls => authority,
        _ => return false,
    };
    !authority.is_empty() && authority.eq_ignore_ascii_case(host)
}

/// Reports whether the value of a `Host` names this machine: `localhost`, 127.0.0.0/8 or `[::1]`,
/// with any port.
pub fn is_loopback_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return is_port(port) && address.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    let is_local = name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|address: Ipv4Addr| address.is_loopback());
    is_local && is_port(port)
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok(),
        None => text.is_empty(),
    }
}
