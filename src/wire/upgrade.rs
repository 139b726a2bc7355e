//! Protocols that a client may switch to through the proxy (RFC 9110 §7.8, RFC 8441).
//!
//! One filter serves `Upgrade` of HTTP/1.1 and `:protocol` of an extended CONNECT. Protocols that
//! carry HTTP are not tunnelled: requests inside would bypass the edit, the limits and the
//! metering. `h2c` is obsolete (RFC 9113 §3.1), and TLS inside a connection (RFC 2817) would hide
//! requests as well.

use bytes::{Bytes, BytesMut};

use super::head::tokens;

/// Filters these lists to one list of protocols that are tunnelled; `None` if there is none. An
/// element that is no protocol is dropped: a lenient upstream could take it for one that is not
/// tunnelled.
pub fn tunnelled<'a>(lists: impl IntoIterator<Item = &'a [u8]>) -> Option<Bytes> {
    let mut protocols = BytesMut::new();
    for protocol in lists.into_iter().flat_map(tokens) {
        if !is_tunnelled(protocol) {
            continue;
        }
        if !protocols.is_empty() {
            protocols.extend_from_slice(b", ");
        }
        protocols.extend_from_slice(protocol);
    }
    (!protocols.is_empty()).then(|| protocols.freeze())
}

/// Reports whether a protocol is `protocol-name ["/" protocol-version]` and does not carry HTTP.
fn is_tunnelled(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |&octet| octet == b'/');
    let name = parts.next().unwrap_or_default();
    is_token(name) && parts.next().is_none_or(is_token) && !carries_http(name)
}

/// Reports whether a protocol carries HTTP requests. Drafts have their number behind the name
/// (`h2c-14`, which nghttp2 still takes), and some write the version without a slash (`HTTP2`).
fn carries_http(name: &[u8]) -> bool {
    CARRY_HTTP.iter().any(|known| {
        let Some((start, rest)) = name.split_at_checked(known.len()) else {
            return false;
        };
        let is_versioned = rest.first() == Some(&b'-') || !rest.iter().any(u8::is_ascii_alphabetic);
        start.eq_ignore_ascii_case(known) && is_versioned
    })
}

/// Reports whether octets are a token (RFC 9110 §5.6.2).
fn is_token(octets: &[u8]) -> bool {
    let is_tchar = |octet: &u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet);
    !octets.is_empty() && octets.iter().all(is_tchar)
}

/// Names of HTTP, of its framings, and of the transports that HTTP uses.
const CARRY_HTTP: [&[u8]; 8] = [
    b"http", b"https", b"h2", b"h2c", b"h3", b"spdy", b"tls", b"ssl",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(lists: &[&str]) -> Option<String> {
        let found = tunnelled(lists.iter().map(|list| list.as_bytes()));
        found.map(|octets| String::from_utf8(octets.to_vec()).unwrap())
    }

    #[test]
    fn what_carries_http_is_never_tunnelled() {
        for name in [
            "h2c", "H2C", "h2", "h2c-14", "h2-16", "h2c/1", "HTTP/2.0", "http/1.1", "HTTP",
            "HTTP2", "HTTP/", "https/1", "h3", "h3-29", "SPDY/3.1", "TLS/1.0", "tls", "TLS1.3",
            "ssl/3",
        ] {
            for list in [
                name.to_owned(),
                format!(" {name}\t"),
                format!(",{name},,"),
                format!("{name}, {name}"),
            ] {
                assert_eq!(filtered(&[&list]), None, "{list:?}");
            }
            let beside = format!("{name},websocket");
            assert_eq!(filtered(&[&beside]).unwrap(), "websocket");
            assert_eq!(filtered(&["a", name, "b"]).unwrap(), "a, b");
        }
    }

    #[test]
    fn other_protocols_pass_as_they_are() {
        for name in [
            "websocket",
            "WebSocket",
            "foo/2",
            "connect-udp",
            "httpx",
            "h2o",
            "tlsish",
            "x/h2c",
        ] {
            assert_eq!(filtered(&[name]).unwrap(), name);
        }
        assert_eq!(filtered(&["a/1 ,h2c,", "TLS/1.0, b"]).unwrap(), "a/1, b");
    }

    #[test]
    fn what_is_no_protocol_is_dropped() {
        for list in [
            "",
            " ",
            ",",
            "h2c /1",
            "h2c h2c",
            "foo bar",
            "foo/",
            "/1",
            "a/b/c",
            "foo;q=1",
            "\"h2c\"",
            "h2c\u{b}",
            "foo\r\nx: y",
            "\u{e9}",
        ] {
            assert_eq!(filtered(&[list]), None, "{list:?}");
        }
    }
}
