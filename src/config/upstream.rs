//! `API_BASE_URL` to [`Upstream`] (RFC 3986 §3, RFC 9110 §4.2).
//!
//! It refuses what would have no meaning in front of a client's request target: user, query,
//! fragment. Its complaints never repeat the URL, which may hold a password.

use std::{net::Ipv6Addr, str::FromStr};

use actix_web::http::uri::PathAndQuery;

use super::scalar::{self, InvalidValue};
use crate::secret::shape;

/// The upstream: `scheme://host[:port][/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host name or address, without the brackets of an IPv6 literal.
    pub host: String,
    /// Port, given or the scheme's default.
    pub port: u16,
    /// The value for `Host`: host with brackets where needed, and the port unless it is the
    /// scheme's default.
    pub authority: String,
    /// Path prefix without a trailing slash; empty for none.
    pub prefix: String,
}

/// As it is shown: some gateways have a key in their path.
impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let prefix = shape::prefix(&self.prefix);
        write!(f, "{scheme}://{}{prefix}", self.authority)
    }
}

/// The scheme of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

/// Reason for which a text is not the URL of an upstream, without the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the URL {problem}")]
pub struct InvalidUpstream {
    problem: String,
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        parse(text).map_err(|bad| InvalidUpstream {
            problem: bad.problem.into_owned(),
        })
    }
}

pub(super) fn parse(text: &str) -> Result<Upstream, InvalidValue> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(
            InvalidValue::because("has no scheme").hint("put https:// (or http://) in front")
        );
    };
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => {
            return Err(InvalidValue::because(
                "has a scheme that is neither http nor https",
            ));
        }
    };
    if rest.contains('@') {
        return Err(InvalidValue::because("contains a user or password")
            .hint("put credentials into the headers file (HEADERS_FILE) instead"));
    }
    if rest.contains('?') {
        return Err(InvalidValue::because("has a query"));
    }
    if rest.contains('#') {
        return Err(InvalidValue::because("has a fragment"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority)?;
    let prefix = path.trim_end_matches('/');
    if !prefix.is_empty() && PathAndQuery::try_from(prefix).is_err() {
        return Err(InvalidValue::because(
            "has a character in its path that must be percent-encoded",
        ));
    }
    let bracketed = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    let port = port.unwrap_or(default_port);
    let authority = if port == default_port {
        bracketed
    } else {
        format!("{bracketed}:{port}")
    };
    Ok(Upstream {
        scheme,
        host,
        port,
        authority,
        prefix: prefix.to_owned(),
    })
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), InvalidValue> {
    let (host, port) = if let Some(literal) = authority.strip_prefix('[') {
        let Some((literal, rest)) = literal.split_once(']') else {
            return Err(InvalidValue::because(
                "has an IPv6 address without its closing bracket",
            ));
        };
        let address: Ipv6Addr = literal
            .parse()
            .map_err(|_| InvalidValue::because("has an invalid IPv6 address"))?;
        match rest.strip_prefix(':') {
            Some(port) => (address.to_string(), Some(port)),
            None if rest.is_empty() => (address.to_string(), None),
            None => {
                return Err(InvalidValue::because(
                    "has text between the address and its port",
                ));
            }
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(InvalidValue::because("has more than one colon in its host")
                    .hint("an IPv6 address needs brackets: http://[::1]:8080"));
            }
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(authority)?, None),
        }
    };
    let Some(port) = port else {
        return Ok((host, None));
    };
    match scalar::port(port) {
        Ok(0) | Err(_) => Err(InvalidValue::because("has an invalid port")),
        Ok(port) => Ok((host, Some(port))),
    }
}

/// A name or an IPv4 address, in lower case.
fn name(host: &str) -> Result<String, InvalidValue> {
    if host.is_empty() {
        return Err(InvalidValue::because("has no host"));
    }
    if !host.is_ascii() {
        return Err(InvalidValue::because("has a host that is not ASCII")
            .hint("write an international name in its xn-- form"));
    }
    let labels_fit = host
        .strip_suffix('.')
        .unwrap_or(host)
        .split('.')
        .all(|label| (1..=63).contains(&label.len()));
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if host.len() > 253 || !labels_fit || !host.bytes().all(known) {
        return Err(InvalidValue::because("has an invalid host"));
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        use Scheme::{Http, Https};
        for (text, scheme, host, port, authority, prefix) in [
            (
                "https://anyrouter.top",
                Https,
                "anyrouter.top",
                443,
                "anyrouter.top",
                "",
            ),
            (
                "https://anyrouter.top/",
                Https,
                "anyrouter.top",
                443,
                "anyrouter.top",
                "",
            ),
            (
                "HTTPS://Any.Example:443/a/b/",
                Https,
                "any.example",
                443,
                "any.example",
                "/a/b",
            ),
            ("http://h:443", Http, "h", 443, "h:443", ""),
            ("http://h:80", Http, "h", 80, "h", ""),
            (
                "http://127.0.0.1:9000/x%2Fy//z",
                Http,
                "127.0.0.1",
                9000,
                "127.0.0.1:9000",
                "/x%2Fy//z",
            ),
            ("http://[::1]", Http, "::1", 80, "[::1]", ""),
            (
                "http://[2001:DB8::1]:8080/p",
                Http,
                "2001:db8::1",
                8080,
                "[2001:db8::1]:8080",
                "/p",
            ),
            (
                " http://a_b.example. ",
                Http,
                "a_b.example.",
                80,
                "a_b.example.",
                "",
            ),
        ] {
            let expected = Upstream {
                scheme,
                host: host.into(),
                port,
                authority: authority.into(),
                prefix: prefix.into(),
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_and_not_repeated() {
        for (text, problem) in [
            ("anyrouter.top", "has no scheme"),
            (
                "ftp://canary",
                "has a scheme that is neither http nor https",
            ),
            ("https://", "has no host"),
            ("https:///canary", "has no host"),
            ("https://:80", "has no host"),
            ("https://u:canary@h", "contains a user or password"),
            ("https://u@h", "contains a user or password"),
            ("https://h/?canary", "has a query"),
            ("https://h?canary", "has a query"),
            ("https://h/#canary", "has a fragment"),
            ("https://h:", "has an invalid port"),
            ("https://h:0", "has an invalid port"),
            ("https://h:65536", "has an invalid port"),
            ("https://h:canary", "has an invalid port"),
            ("https://::1", "has more than one colon in its host"),
            (
                "https://[::1",
                "has an IPv6 address without its closing bracket",
            ),
            ("https://[canary]", "has an invalid IPv6 address"),
            ("https://[fe80::1%25eth0]", "has an invalid IPv6 address"),
            (
                "https://[::1]canary",
                "has text between the address and its port",
            ),
            ("https://a b", "has an invalid host"),
            ("https://a..b", "has an invalid host"),
            ("https://bücher.example", "has a host that is not ASCII"),
            (
                "https://h/a b",
                "has a character in its path that must be percent-encoded",
            ),
        ] {
            let bad = parse(text).unwrap_err();
            assert_eq!(bad.problem, problem, "{text}");
            assert!(!format!("{bad:?}").contains("canary"), "{text}");
        }
    }
}
