//! Host and port of an outbound proxy, and of an entry of `NO_PROXY`.

use std::{net::IpAddr, str::FromStr};

/// Host without brackets and the port, if one is given.
pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = split_port(authority).ok_or("the port is not a number from 1 to 65535")?;
    if host.is_empty() {
        return Err("no host".to_owned());
    }
    if IpAddr::from_str(host).is_ok() {
        let bare_ipv6 = host.contains(':') && !authority.starts_with('[');
        return match bare_ipv6 {
            true => Err("an IPv6 address stands in brackets, as in http://[::1]:3128".to_owned()),
            false => Ok((host.to_owned(), port)),
        };
    }
    // `_` is no host name character by RFC 1123, but Docker Compose makes such names.
    if !host
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
    {
        return Err("the host is neither a name nor an address".to_owned());
    }
    Ok((host.to_owned(), port))
}

/// Splits `host[:port]`, `[v6][:port]` and bare `v6`; `None` for a port that is none. An empty
/// port (`host:`) is no port (RFC 3986 §3.2.3).
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            match rest {
                "" => (host, ""),
                rest => (host, rest.strip_prefix(':')?),
            }
        }
        None if authority.matches(':').count() > 1 => (authority, ""),
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    match port {
        "" => Some((host, None)),
        port => Some((host, Some(port.parse().ok().filter(|&port| port != 0)?))),
    }
}
