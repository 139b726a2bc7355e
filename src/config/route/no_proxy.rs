//! Exceptions from the outbound proxy: the language of `NO_PROXY`.
//!
//! An entry without a meaning is skipped silently, as in other programs: such lists are written for
//! many of them.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::authority::split_port;
use crate::config::upstream::{Scheme, Upstream};

/// Reports that an entry of the list matches the upstream.
///
/// Entries are separated by commas or white space (curl). No name is resolved to see if its
/// address is in a listed network: curl and Python do not either.
pub(super) fn excepts(list: &str, upstream: &Upstream) -> bool {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .any(|entry| entry_matches(entry, upstream))
}

fn entry_matches(entry: &str, upstream: &Upstream) -> bool {
    // httpx takes `http://host` for one scheme, `all://host` for both.
    let entry = match (entry.split_once("://"), upstream.scheme) {
        (None, _) => entry,
        (Some(("all", rest)), _)
        | (Some(("http", rest)), Scheme::Http)
        | (Some(("https", rest)), Scheme::Https) => rest.trim_end_matches('/'),
        (Some(_), _) => return false,
    };
    let Some((host, port)) = split_port(entry) else {
        return false;
    };
    if port.is_some_and(|port| port != upstream.port) {
        return false;
    }
    if host == "*" {
        return true;
    }
    match IpAddr::from_str(&upstream.host) {
        Ok(address) => network_contains(host, address.to_canonical()),
        Err(_) => domain_contains(host, &upstream.host),
    }
}

fn network_contains(entry: &str, address: IpAddr) -> bool {
    match (IpNet::from_str(entry), IpAddr::from_str(entry)) {
        (Ok(network), _) => network.contains(&address),
        (_, Ok(entry)) => entry.to_canonical() == address,
        _ => false,
    }
}

/// `example.com`, `.example.com` and `*.example.com` all mean the domain and what is below it: so
/// curl and `urllib` read the dot, although Go does not.
fn domain_contains(entry: &str, host: &str) -> bool {
    let entry = entry.strip_prefix('*').unwrap_or(entry);
    let entry = entry
        .trim_start_matches('.')
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if entry.is_empty() {
        return false;
    }
    match host.strip_suffix(&entry) {
        Some(below) => below.is_empty() || below.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Upstream {
        url.parse().unwrap()
    }

    #[test]
    fn entries_are_domains_addresses_and_networks() {
        let table = [
            ("*", "https://api.test", true),
            ("a, * ,b", "https://api.test", true),
            ("*:443", "https://api.test", true),
            ("*:444", "https://api.test", false),
            ("api.test", "https://api.test", true),
            ("API.Test.", "https://api.TEST", true),
            ("api.test", "https://api.test.", true),
            ("test", "https://api.test", true),
            (".test", "https://api.test", true),
            ("*.test", "https://api.test", true),
            (".api.test", "https://api.test", true),
            ("pi.test", "https://api.test", false),
            ("x.api.test", "https://api.test", false),
            (".", "https://api.test", false),
            (",,", "https://api.test", false),
            ("other\tapi.test", "https://api.test", true),
            ("api.test:443", "https://api.test", true),
            ("api.test:8443", "https://api.test", false),
            (".test:8443", "https://api.test:8443", true),
            ("api.test:secret", "https://api.test", false),
            ("https://api.test", "https://api.test", true),
            ("https://api.test/", "https://api.test", true),
            ("http://api.test", "https://api.test", false),
            ("all://api.test", "https://api.test", true),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("10.1.2.3:443", "https://10.1.2.3", true),
            ("10.1.2.3:80", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.1.2.4/8", "https://10.1.2.3", true),
            ("11.0.0.0/8", "https://10.1.2.3", false),
            ("10.0.0.0/33", "https://10.1.2.3", false),
            ("2.3", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://[::ffff:10.1.2.3]", true),
            ("::1", "https://[::1]", true),
            ("[::1]", "https://[::1]", true),
            ("[::1]:443", "https://[::1]", true),
            ("[::1]:80", "https://[::1]", false),
            ("fd00::/8", "https://[fd12::1]", true),
            ("[fd00::/8]", "https://[fd12::1]", true),
            ("fd00::/8", "https://[fe80::1]", false),
            ("localhost", "https://localhost", true),
            ("127.0.0.1", "https://localhost", false),
        ];
        for (list, url, direct) in table {
            assert_eq!(excepts(list, &upstream(url)), direct, "{list} {url}");
        }
    }
}
