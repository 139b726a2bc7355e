//! Conversion of an HTTP/2 request head to the head that HTTP/1.1 gives (RFC 9113 §8.3).
//!
//! The h2 crate has already refused malformed heads (RFC 9113 §8.2): connection-specific fields,
//! missing or repeated pseudo-fields, lengths that contradict each other or the content. Heads that
//! h2 lets through and that two parsers could read in two ways are refused here.

use actix_web::http::Method;
use bytes::Bytes;
use http::{header, request::Parts};

use crate::{
    error::DownstreamError,
    wire::{
        MAX_FIELDS, MAX_HEAD,
        body::Framing,
        head::{Fields, RequestHead, Transport, Version, content_length, tokens},
        host::{is_host, is_same},
        role::{Role, is_name},
        upgrade::tunnelled,
    },
};

/// Content after a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockEnd {
    /// The stream ends with the block: there is no content.
    Stream,
    /// Only the block ends: content may follow.
    Block,
}

/// Converts the head of a request.
///
/// # Errors
/// The head has no equivalent in HTTP/1.1, is not served here, is too large, or is ambiguous.
pub fn http2_request_head(
    parts: &Parts,
    ends: BlockEnd,
    transport: Transport,
) -> Result<RequestHead, DownstreamError> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let upgrade = protocol.map(|protocol| {
        let protocol: &[u8] = protocol.as_ref();
        // it names one, where `Upgrade` has a list
        let found = tunnelled([protocol]).filter(|found| found == protocol);
        found.ok_or(DownstreamError::UnsupportedProtocol)
    });
    let upgrade = upgrade.transpose()?;
    let method = match (&parts.method, &upgrade) {
        // RFC 8441 §5: what is a GET with `Upgrade` in HTTP/1.1
        (&http::Method::CONNECT, Some(_)) => Method::GET,
        (&http::Method::CONNECT, None) => return Err(DownstreamError::UnsupportedTarget),
        (method, _) => Method::from_bytes(method.as_str().as_bytes())
            .map_err(|_| DownstreamError::MalformedHead)?,
    };
    let target = target(parts, &method)?;
    let fields = fields(parts, &target)?;
    let (mut length, mut expects_continue) = (None, false);
    for field in fields.iter() {
        match field.role() {
            Role::ContentLength => {
                // a second one is refused even if it agrees, as in HTTP/1.1
                if length.is_some() {
                    return Err(DownstreamError::AmbiguousFraming);
                }
                let value = content_length(field.value);
                length = Some(value.ok_or(DownstreamError::AmbiguousFraming)?);
            }
            Role::Expect => {
                expects_continue |=
                    tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"100-continue"));
            }
            _ => {}
        }
    }
    let framing = match (&upgrade, length, ends) {
        (Some(_), Some(_), _) => return Err(DownstreamError::AmbiguousFraming),
        (Some(_), None, _) => Framing::UntilClose,
        (None, Some(length), _) => Framing::Length(length),
        (None, None, BlockEnd::Stream) => Framing::None,
        (None, None, BlockEnd::Block) => Framing::Chunked,
    };
    let has_content = matches!(framing, Framing::Chunked | Framing::Length(1..));
    Ok(RequestHead {
        method,
        target,
        version: Version::Http2,
        transport,
        fields,
        framing,
        expects_continue: expects_continue && has_content && ends == BlockEnd::Block,
        upgrade,
        notes: <_>::default(),
    })
}

/// `:path`, verbatim.
fn target(parts: &Parts, method: &Method) -> Result<Bytes, DownstreamError> {
    let Some(target) = parts.uri.path_and_query() else {
        return Err(DownstreamError::MalformedHead);
    };
    // without scheme and authority, h2 lets a request pass that has no `:path` (RFC 9113 §8.3.1)
    if parts.uri.authority().is_none() && parts.uri.clone().into_parts().path_and_query.is_none() {
        return Err(DownstreamError::MalformedHead);
    }
    let target = target.as_str();
    if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
        Ok(Bytes::copy_from_slice(target.as_bytes()))
    } else {
        Err(DownstreamError::UnsupportedTarget)
    }
}

/// The fields, `host` first, as HTTP/1.1 has them.
fn fields(parts: &Parts, target: &[u8]) -> Result<Fields, DownstreamError> {
    let map = &parts.headers;
    let mut octets = parts.method.as_str().len() + target.len();
    let mut count = 1;
    for (name, value) in map {
        let value = value.as_bytes();
        // RFC 9113 §8.2.1; HTTP/1.1 could not carry it
        if value.trim_ascii() != value || !is_name(name.as_str().as_bytes()) {
            return Err(DownstreamError::MalformedHead);
        }
        octets += name.as_str().len() + value.len() + SEPARATORS;
        count += 1;
    }
    if count > MAX_FIELDS || octets > MAX_HEAD {
        return Err(DownstreamError::HeadTooLarge);
    }
    let host = host(parts)?;
    // RFC 9113 §8.2.3: crumbs are one field in HTTP/1.1
    let crumbs: Vec<&[u8]> = map
        .get_all(header::COOKIE)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    let cookie = crumbs.join(&b"; "[..]);
    let mut has_cookie = false;
    let others = map
        .iter()
        .filter(|(name, _)| *name != header::HOST)
        .filter_map(|(name, value)| {
            let value = if *name != header::COOKIE {
                value.as_bytes()
            } else if std::mem::replace(&mut has_cookie, true) {
                return None;
            } else {
                &cookie
            };
            Some((name.as_str().as_bytes(), value))
        });
    Ok(Fields::from_pairs(
        std::iter::once((&b"host"[..], host)).chain(others),
    ))
}

/// The one authority that `:authority` and `host` name (RFC 9113 §8.3.1).
fn host(parts: &Parts) -> Result<&[u8], DownstreamError> {
    let authority = parts.uri.authority().map(|name| name.as_str().as_bytes());
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    let is_valid = |name: Option<&[u8]>| name.is_none_or(is_host);
    // no user information, and no second answer to one question
    if hosts.next().is_some() {
        return Err(DownstreamError::MalformedHead);
    }
    if !is_valid(authority) || !is_valid(host) {
        return Err(DownstreamError::InvalidHost);
    }
    let default_port: &[u8] = match parts.uri.scheme_str() {
        Some("https") => b"443",
        _ => b"80",
    };
    match (authority, host) {
        (Some(authority), Some(host)) if !is_same(authority, host, default_port) => {
            Err(DownstreamError::InvalidHost)
        }
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(DownstreamError::MalformedHead),
    }
}

/// `: ` and CRLF, which HTTP/1.1 counts.
const SEPARATORS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn parts(method: &str, uri: &str, fields: Pairs<'_>) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn parse(uri: &str, fields: Pairs<'_>, ends: BlockEnd) -> Result<RequestHead, DownstreamError> {
        http2_request_head(&parts("POST", uri, fields), ends, Transport::Clear)
    }

    #[test]
    fn targets_stay_as_they_are() {
        for target in ["/", "//x/../%2f?", "/v1/messages?beta=true", "/a?b?c=%20&&"] {
            let head = parse(&format!("http://a{target}"), &[], BlockEnd::Stream).unwrap();
            assert_eq!(head.target, target);
        }
        for (method, uri, expected) in [
            ("CONNECT", "a:443", DownstreamError::UnsupportedTarget),
            ("GET", "http://u@a/", DownstreamError::InvalidHost),
            ("GET", "/", DownstreamError::MalformedHead),
        ] {
            let outcome =
                http2_request_head(&parts(method, uri, &[]), BlockEnd::Stream, Transport::Clear);
            assert_eq!(outcome.unwrap_err(), expected, "{method} {uri}");
        }
    }

    #[test]
    fn fields_come_out_as_http_1_1_has_them() {
        let sent = [
            ("b", "2"),
            ("cookie", "a=1"),
            ("c", ""),
            ("b", "1"),
            ("cookie", "b=2"),
        ];
        let head = parse("http://a:8/", &sent, BlockEnd::Stream).unwrap();
        let found: Vec<_> = head
            .fields
            .iter()
            .map(|field| (field.name, field.value))
            .collect();
        let expected: [(&[u8], &[u8]); 5] = [
            (b"host", b"a:8"),
            (b"b", b"2"),
            (b"b", b"1"),
            (b"cookie", b"a=1; b=2"),
            (b"c", b""),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_http_1_1_has_no_place_for_is_refused() {
        let malformed = DownstreamError::MalformedHead;
        for (name, value) in [("a\"b", "v"), ("x", " v"), ("x", "v\t")] {
            let mut parts = parts("GET", "http://a/", &[]);
            // as h2 does it
            let name = http::HeaderName::from_lowercase(name.as_bytes()).unwrap();
            parts.headers.append(name, value.parse().unwrap());
            let outcome = http2_request_head(&parts, BlockEnd::Stream, Transport::Clear);
            assert_eq!(outcome.unwrap_err(), malformed, "{value:?}");
        }
    }

    #[test]
    fn one_authority_is_named_or_none() {
        let host =
            |fields| parse("http://a/", fields, BlockEnd::Stream).map(|head| head.fields.len());
        assert_eq!(host(&[("host", "a")]), Ok(1));
        assert_eq!(host(&[("host", "A:80")]), Ok(1));
        assert_eq!(
            host(&[("host", "a:443")]),
            Err(DownstreamError::InvalidHost)
        );
        assert_eq!(host(&[("host", "a b")]), Err(DownstreamError::InvalidHost));
        assert_eq!(host(&[("host", "b")]), Err(DownstreamError::InvalidHost));
        assert_eq!(
            host(&[("host", "a"), ("host", "a")]),
            Err(DownstreamError::MalformedHead)
        );
    }

    #[test]
    fn framing_follows_length_and_end() {
        let framing = |fields, ends| parse("http://a/", fields, ends).map(|head| head.framing);
        let ambiguous = Err(DownstreamError::AmbiguousFraming);
        assert_eq!(framing(&[], BlockEnd::Stream), Ok(Framing::None));
        assert_eq!(framing(&[], BlockEnd::Block), Ok(Framing::Chunked));
        for (sent, expected) in [
            (&[("content-length", "7")][..], Ok(Framing::Length(7))),
            (
                &[("content-length", "7"), ("content-length", "7")],
                ambiguous,
            ),
            (&[("content-length", "")], ambiguous),
        ] {
            assert_eq!(framing(sent, BlockEnd::Block), expected, "{sent:?}");
        }
    }

    #[test]
    fn limits_are_64_kib_and_256_fields() {
        let fields = |count| {
            let names: Vec<String> = (0..count).map(|number| format!("x{number}")).collect();
            let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
            parse("http://a/", &pairs, BlockEnd::Stream).map(|head| head.fields.len())
        };
        assert_eq!(fields(MAX_FIELDS - 1), Ok(MAX_FIELDS));
        assert_eq!(fields(MAX_FIELDS), Err(DownstreamError::HeadTooLarge));
        let long = "x".repeat(MAX_HEAD);
        assert_eq!(
            parse("http://a/", &[("x", &long)], BlockEnd::Stream).unwrap_err(),
            DownstreamError::HeadTooLarge
        );
    }

    #[test]
    fn an_extended_connect_is_an_upgrade() {
        let extended = |protocol: &'static str, fields| {
            let mut parts = parts("CONNECT", "https://a/chat", fields);
            parts
                .extensions
                .insert(h2::ext::Protocol::from_static(protocol));
            http2_request_head(&parts, BlockEnd::Block, Transport::Tls)
        };
        let head = extended("websocket", &[]).unwrap();
        assert_eq!(head.upgrade.as_deref(), Some(&b"websocket"[..]));
        assert_eq!(
            (head.method, head.framing, &head.target[..]),
            (Method::GET, Framing::UntilClose, &b"/chat"[..])
        );
        for refused in [
            "h2c",
            "TLS/1.0",
            "HTTP/2.0",
            "http/1.1",
            "websocket, h2c",
            "web socket\r\nx: y",
            "",
        ] {
            assert_eq!(
                extended(refused, &[]).unwrap_err(),
                DownstreamError::UnsupportedProtocol,
                "{refused:?}"
            );
        }
        assert_eq!(
            extended("websocket", &[("content-length", "1")]).unwrap_err(),
            DownstreamError::AmbiguousFraming
        );
    }
}
