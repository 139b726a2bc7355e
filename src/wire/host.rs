//! Grammar of `Host`, `:authority` and the authority of an absolute-form target (RFC 9110 §7.2, RFC
//! 3986 §3.2.2): `uri-host [":" port]`, without user information.
//!
//! Upstreams route by this text and log it, so anything that the grammar does not allow is refused.

use std::{net::Ipv6Addr, str};

/// Reports whether a value is a host with or without a port. An empty one is: RFC 9112 §3.2 sends
/// it for a target without an authority.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = split(value);
    port.iter().all(u8::is_ascii_digit)
        && match host.strip_prefix(b"[") {
            Some(literal) => literal.strip_suffix(b"]").is_some_and(is_address),
            None => is_name(host),
        }
}

/// Compares two valid values as authorities of one scheme: case does not count, and the scheme's
/// default port may be left out (RFC 3986 §6.2.2.1, §6.2.3).
pub fn is_same(one: &[u8], other: &[u8], default_port: &[u8]) -> bool {
    let (host, port) = split(one);
    let (other_host, other_port) = split(other);
    let ports = [port, other_port].map(|port| if port.is_empty() { default_port } else { port });
    host.eq_ignore_ascii_case(other_host) && ports[0] == ports[1]
}

/// Host and port, the latter without its colon. A name has no colon; an address in brackets may have.
fn split(value: &[u8]) -> (&[u8], &[u8]) {
    let from = match value.first() {
        Some(b'[') => memchr::memchr(b']', value).unwrap_or(0),
        _ => 0,
    };
    match memchr::memchr(b':', &value[from..]) {
        Some(at) => (&value[..from + at], &value[from + at + 1..]),
        None => (value, b""),
    }
}

/// `IPv6address` or `IPvFuture`. A zone is of the machine that names it, and is not sent (RFC 6874 §4).
fn is_address(literal: &[u8]) -> bool {
    let Ok(literal) = str::from_utf8(literal) else {
        return false;
    };
    literal.parse::<Ipv6Addr>().is_ok() || is_future_address(literal)
}

fn is_future_address(literal: &str) -> bool {
    let Some((version, address)) = literal
        .strip_prefix(['v', 'V'])
        .and_then(|rest| rest.split_once('.'))
    else {
        return false;
    };
    let is_of_address = |octet| is_of_name(octet) || octet == b':';
    !version.is_empty()
        && version.bytes().all(|octet| octet.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(is_of_address)
}

/// `reg-name`, which includes every `IPv4address`.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [octet, after @ ..] = rest {
        rest = match (*octet, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            (octet, after) if is_of_name(octet) => after,
            _ => return false,
        };
    }
    true
}

/// `unreserved` or `sub-delims`.
fn is_of_name(octet: u8) -> bool {
    OF_NAME[octet as usize]
}

/// Lookup table of [`is_of_name`], which runs for every octet of every `Host`.
const OF_NAME: [bool; 256] = {
    let marks = b"-._~!$&'()*+,;=";
    let mut is_of_name = [false; 256];
    let mut octet = 0;
    while octet < 128 {
        is_of_name[octet] = (octet as u8).is_ascii_alphanumeric();
        octet += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        is_of_name[marks[mark] as usize] = true;
        mark += 1;
    }
    is_of_name
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_follow_the_grammar() {
        for value in [
            "",
            "a",
            "A.example",
            "a_b-c~d",
            "a:8088",
            "a:",
            "127.0.0.1:80",
            "[::1]",
            "[2001:DB8::1]:443",
            "[::ffff:10.0.0.1]:",
            "[v1.a:b]",
            "xn--bcher-kva.example",
            "a%2Fb",
            "a,b",
        ] {
            assert!(is_host(value.as_bytes()), "{value}");
        }
        for value in [
            "foo bar",
            "a/../b",
            "a@b",
            "u:p@a",
            "[::1",
            "::1",
            "[::1]a",
            "[]",
            "[a]",
            "[v.a]",
            "[v1.]",
            "[fe80::1%25eth0]",
            "a:b:c",
            "a:b",
            "a:80x",
            "a: 80",
            "<script>",
            "a#b",
            "a?b",
            "a%2",
            "a%zz",
            "b\u{fc}cher",
            "a\"",
            "a\\b",
        ] {
            assert!(!is_host(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn case_and_the_schemes_own_port_do_not_count() {
        for (one, other, is) in [
            ("a", "a", true),
            ("A.b", "a.B", true),
            ("a:80", "a", true),
            ("a:", "a:80", true),
            ("[::A]:80", "[::a]", true),
            ("a:81", "a", false),
            ("a:81", "a:8", false),
            ("a", "b", false),
            ("[::1]", "[::2]", false),
        ] {
            assert_eq!(
                is_same(one.as_bytes(), other.as_bytes(), b"80"),
                is,
                "{one} {other}"
            );
        }
    }

    proptest! {
        /// Whatever is taken, it is one authority: nothing in it ends a host or begins another part.
        #[test]
        fn what_is_taken_is_one_authority(value in "[\\[\\]:@/?#% ,.a-f0-9-]{0,12}") {
            if is_host(value.as_bytes()) {
                prop_assert!(!value.contains(['@', '/', '?', '#', ' ']), "{}", value);
                prop_assert!(value.matches(':').count() <= 1 || value.starts_with('['), "{}", value);
                prop_assert!(is_same(value.as_bytes(), value.to_uppercase().as_bytes(), b"80"));
            }
        }
    }
}
