//! Conversion of heads between the two versions: HTTP/1.1 bytes to an HTTP/2 request, and an HTTP/2
//! response to fields (RFC 9113 §8.2 and §8.3).
//!
//! Pure. Fields without a place in HTTP/2 are dropped (§8.2.2); the others keep their values, byte
//! for byte, and their duplicates. Names come out in lower case, as §8.2 has it.

use std::mem::MaybeUninit;

use actix_web::http::{Method, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{
    config::{self, Upstream},
    error::UpstreamError,
    wire::{
        MAX_FIELDS, MAX_HEAD,
        body::Framing,
        head::{Fields, ResponseHead, content_length},
        role::{Role, is_name, may_trail},
    },
};

/// A request head that HTTP/2 cannot carry: the `http` crate takes no target with `#`, `<`, `>`,
/// `` ` `` or the like, none of which RFC 3986 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotRepresentable;

/// The head that was written for HTTP/1.1, as HTTP/2 has it.
///
/// # Errors
/// See [`NotRepresentable`].
pub(super) fn request(
    octets: &[u8],
    upstream: &Upstream,
) -> Result<http::Request<()>, NotRepresentable> {
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, octets, &mut slots)
        .map_err(|_| NotRepresentable)?;
    let method = parsed.method.unwrap_or_default().as_bytes();
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    let mut host = None;
    for field in &*parsed.headers {
        match Role::of(field.name.as_bytes()) {
            Role::Host => host = Some(field.value),
            Role::Connection | Role::HopByHop | Role::Upgrade | Role::TransferEncoding => {}
            // what else it says is about chunks and codings of a hop
            Role::Te if !field.value.eq_ignore_ascii_case(b"trailers") => {}
            Role::Te
            | Role::ContentLength
            | Role::Expect
            | Role::ForwardedFor
            | Role::ForwardedProto
            | Role::ForwardedHost
            | Role::EndToEnd => append(&mut fields, field)?,
        }
    }
    let uri = uri(parsed.path.unwrap_or_default().as_bytes(), host, upstream)?;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(method).map_err(|_| NotRepresentable)?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields;
    Ok(request)
}

/// `:scheme`, `:authority` and `:path` (§8.3.1), the last verbatim.
fn uri(target: &[u8], host: Option<&[u8]>, upstream: &Upstream) -> Result<Uri, NotRepresentable> {
    // what was meant for an outbound proxy is in absolute-form, and went into the tunnel
    let path = match target.iter().position(|&octet| octet == b':') {
        Some(at) if !target.starts_with(b"/") => {
            let rest = target.get(at + 3..).ok_or(NotRepresentable)?;
            let end = rest.iter().position(|&octet| octet == b'/');
            end.map_or(&[][..], |end| &rest[end..])
        }
        _ => target,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match upstream.scheme {
        config::Scheme::Http => Scheme::HTTP,
        config::Scheme::Https => Scheme::HTTPS,
    });
    let ours = || Authority::try_from(upstream.authority.as_str());
    // a host of the client's that is none, or holds a user, does not go out as one
    let authority = match host.map(Authority::try_from) {
        Some(Ok(host)) if !host.as_str().contains('@') => host,
        _ => ours().map_err(|_| NotRepresentable)?,
    };
    parts.authority = Some(authority);
    let verbatim = PathAndQuery::try_from(path).map_err(|_| NotRepresentable)?;
    // a `#` would end it without an error
    if !path.is_empty() && verbatim.as_str().len() != path.len() {
        return Err(NotRepresentable);
    }
    parts.path_and_query = Some(verbatim);
    Uri::from_parts(parts).map_err(|_| NotRepresentable)
}

fn append(fields: &mut HeaderMap, field: &httparse::Header<'_>) -> Result<(), NotRepresentable> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NotRepresentable)?;
    let mut value = HeaderValue::from_bytes(field.value).map_err(|_| NotRepresentable)?;
    value.set_sensitive(is_secret(name.as_str()));
    fields.append(name, value);
    Ok(())
}

/// Tells if a value must not be indexed, on either end (RFC 7541 §7.1.3): its presence in a table
/// could be probed for. These are the known names of credentials, and similar ones.
fn is_secret(name: &str) -> bool {
    matches!(name, "authorization" | "x-api-key" | "cookie")
        || ["token", "secret", "-key", "auth"]
            .iter()
            .any(|part| name.contains(part))
}

/// A trailer section as HTTP/1.1 has it, as a map; `None` if there is nothing in it.
pub(super) fn trailers(raw: &[u8]) -> Option<HeaderMap> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(raw, &mut slots)
    else {
        return None;
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        if may_trail(field.name.as_bytes()) {
            append(&mut fields, field).ok()?;
        }
    }
    (!fields.is_empty()).then_some(fields)
}

/// A trailer section as it is written in HTTP/1.1, with its empty line. `None` if it has nothing that
/// may stand in one (RFC 9110 §6.5.1).
pub(super) fn raw_trailers(fields: &HeaderMap) -> Option<Bytes> {
    let all_pass = fields
        .keys()
        .all(|name| may_trail(name.as_str().as_bytes()));
    if fields.is_empty() || !all_pass || !within_limits(fields) {
        return None;
    }
    let mut raw = BytesMut::with_capacity(octets(fields) + 2);
    for (name, value) in fields {
        raw.put_slice(name.as_str().as_bytes());
        raw.put_slice(b": ");
        raw.put_slice(value.as_bytes());
        raw.put_slice(b"\r\n");
    }
    raw.put_slice(b"\r\n");
    Some(raw.freeze())
}

/// The head of a response, and how its body is framed towards the client.
///
/// # Errors
/// [`UpstreamError::HttpResponseHeaderSectionSize`] beyond the limits of docs/contract.md §2.4, and
/// [`UpstreamError::HttpResponseTransferCoding`] for lengths that contradict each other, and
/// [`UpstreamError::HttpProtocolError`] for a name that HTTP/1.1 could not carry.
pub(super) fn response(
    parts: &http::response::Parts,
    method: &Method,
    has_ended: bool,
) -> Result<(ResponseHead, Framing), UpstreamError> {
    if !within_limits(&parts.headers) {
        return Err(UpstreamError::HttpResponseHeaderSectionSize);
    }
    if !parts
        .headers
        .keys()
        .all(|name| is_name(name.as_str().as_bytes()))
    {
        return Err(UpstreamError::HttpProtocolError);
    }
    let status = StatusCode::from_u16(parts.status.as_u16())
        .map_err(|_| UpstreamError::HttpProtocolError)?;
    let length = length(&parts.headers)?;
    let framing = match length {
        _ if *method == Method::HEAD || matches!(status.as_u16(), 204 | 304) => Framing::None,
        _ if has_ended => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    // one length is said, and of a 204 none (RFC 9110 §8.6)
    let mut lengths_left = usize::from(status != 204);
    let pairs = parts.headers.iter().filter(|(name, _)| {
        *name != http::header::CONTENT_LENGTH || std::mem::replace(&mut lengths_left, 0) > 0
    });
    let head = ResponseHead {
        status,
        // HTTP/2 has no reason phrase (§8.3.2)
        reason: Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes()),
        fields: Fields::from_pairs(
            pairs.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        ),
    };
    Ok((head, framing))
}

/// The one length that the fields name. h2 sees to it that the content has the first.
fn length(fields: &HeaderMap) -> Result<Option<u64>, UpstreamError> {
    let mut length = None;
    for value in fields.get_all(http::header::CONTENT_LENGTH) {
        let value = content_length(value.as_bytes());
        match (length, value) {
            (None, Some(_)) => length = value,
            (Some(_), Some(_)) if value == length => {}
            _ => return Err(UpstreamError::HttpResponseTransferCoding),
        }
    }
    Ok(length)
}

fn within_limits(fields: &HeaderMap) -> bool {
    fields.len() <= MAX_FIELDS && octets(fields) <= MAX_HEAD
}

/// The size of the fields in HTTP/1.1.
fn octets(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// The client's fields and ours: those of the headers file are few.
const MOST_FIELDS: usize = 2 * MAX_FIELDS;

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(text: &str) -> Result<http::Request<()>, NotRepresentable> {
        request(text.as_bytes(), &"https://up:81/p".parse().unwrap())
    }

    #[test]
    fn a_head_keeps_what_http_2_has_a_place_for() {
        let text = "POST /p//x/../%2f?a=b&c HTTP/1.1\r\nhost: up:81\r\nX-Api-Key: k\r\nb: 2\r\n\
                    A:\r\nB: 3\r\ncontent-length: 5\r\nexpect: 100-continue\r\nte: trailers\r\n\
                    connection: te\r\n\r\n";
        let request = convert(text).unwrap();
        assert_eq!(request.uri().scheme_str(), Some("https"));
        assert_eq!(request.uri().authority().unwrap().as_str(), "up:81");
        let path = request.uri().path_and_query().unwrap();
        assert_eq!(path.as_str(), "/p//x/../%2f?a=b&c");
        let fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("x-api-key", "k"),
                ("b", "2"),
                ("b", "3"),
                ("a", ""),
                ("content-length", "5"),
                ("expect", "100-continue"),
                ("te", "trailers"),
            ]
        );
    }

    #[test]
    fn fields_of_the_connection_are_dropped() {
        let text = "GET / HTTP/1.1\r\nhost: a\r\nConnection: x\r\nKeep-Alive: 1\r\nUpgrade: b\r\n\
                    Proxy-Authorization: c\r\nproxy-connection: d\r\nTransfer-Encoding: chunked\r\n\
                    te: gzip\r\n\r\n";
        assert!(convert(text).unwrap().headers().is_empty());
    }

    #[test]
    fn credentials_are_not_indexed() {
        for (name, secret) in [
            ("Authorization", true),
            ("x-api-key", true),
            ("cookie", true),
            ("x-auth-token", true),
            ("cf-access-client-secret", true),
            ("anthropic-beta", false),
            ("content-type", false),
        ] {
            let request = convert(&format!("GET / HTTP/1.1\r\n{name}: v\r\n\r\n")).unwrap();
            let value = request.headers().values().next().unwrap();
            assert_eq!(value.is_sensitive(), secret, "{name}");
        }
    }

    #[test]
    fn obs_text_passes() {
        let octets = b"GET / HTTP/1.1\r\nx: \xe9\xff\t!\r\n\r\n";
        let request = request(octets, &"http://up".parse().unwrap()).unwrap();
        assert_eq!(request.headers()["x"].as_bytes(), b"\xe9\xff\t!");
        assert_eq!(request.uri().scheme_str(), Some("http"));
    }

    #[test]
    fn targets_are_verbatim_or_refused() {
        for (line, expected) in [
            ("GET /?", Some("/?")),
            ("GET /a:b://c", Some("/a:b://c")),
            ("GET http://up:81/p/x?y", Some("/p/x?y")),
            ("GET http://[::1]:8/x", Some("/x")),
            ("OPTIONS *", Some("*")),
            ("GET /a#b", None),
            ("GET /a<b", None),
        ] {
            let request = convert(&format!("{line} HTTP/1.1\r\nhost: up\r\n\r\n")).ok();
            let path = request.as_ref().map(|request| {
                let path = request.uri().path_and_query();
                path.unwrap().as_str()
            });
            assert_eq!(path, expected, "{line}");
        }
    }

    #[test]
    fn a_host_that_is_no_authority_is_not_sent() {
        for (host, expected) in [
            ("client.test", "client.test"),
            ("[::1]:80", "[::1]:80"),
            ("", "up:81"),
            ("user@evil", "up:81"),
            ("a b", "up:81"),
        ] {
            let request = convert(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).unwrap();
            assert_eq!(request.uri().authority().unwrap().as_str(), expected);
        }
    }

    #[test]
    fn trailers_survive_both_ways_without_framing() {
        let map = trailers(b"X-Sum: 1\r\nx-sum: 2\r\n\r\n").unwrap();
        assert_eq!(raw_trailers(&map).unwrap(), "x-sum: 1\r\nx-sum: 2\r\n\r\n");
        assert!(trailers(b"Content-Length: 1\r\n\r\n").is_none());
        let mut framing = HeaderMap::new();
        framing.insert("content-length", HeaderValue::from_static("1"));
        assert_eq!(raw_trailers(&framing), None);
    }

    #[test]
    fn a_response_is_framed_by_its_length_its_end_or_chunks() {
        let found = |fields: &[(&'static str, &'static str)], status, method, has_ended| {
            let mut builder = http::Response::builder().status(status);
            for (name, value) in fields {
                builder = builder.header(*name, *value);
            }
            let (parts, ()) = builder.body(()).unwrap().into_parts();
            response(&parts, &method, has_ended).unwrap().1
        };
        let length = [("content-length", "5")];
        for (framing, expected) in [
            (found(&[], 200, Method::GET, false), Framing::Chunked),
            (found(&length, 200, Method::GET, false), Framing::Length(5)),
            (found(&[], 200, Method::GET, true), Framing::Length(0)),
            (found(&length, 200, Method::HEAD, true), Framing::None),
            (found(&length, 304, Method::GET, true), Framing::None),
            (found(&[], 204, Method::GET, false), Framing::None),
        ] {
            assert_eq!(framing, expected);
        }
    }

    #[test]
    fn several_lengths_agree_or_are_refused() {
        let found = |values: &[&str]| {
            let mut builder = http::Response::builder();
            for value in values {
                builder = builder.header("content-length", *value);
            }
            let (parts, ()) = builder.body(()).unwrap().into_parts();
            response(&parts, &Method::GET, false)
                .map(|(_, framing)| framing)
                .ok()
        };
        assert_eq!(found(&["5", "5"]), Some(Framing::Length(5)));
        assert_eq!(found(&["5", "05"]), Some(Framing::Length(5)));
        for refused in [&["5", "6"][..], &["5", ""], &["5, 5"], &["+5"]] {
            assert_eq!(found(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_head_beyond_the_limits_is_refused() {
        let refused = |fields: HeaderMap| {
            let mut built = http::Response::new(());
            *built.headers_mut() = fields;
            let (parts, ()) = built.into_parts();
            response(&parts, &Method::GET, true).is_err()
        };
        let many = |count| {
            let mut fields = HeaderMap::new();
            for _ in 0..count {
                fields.append("x", HeaderValue::from_static(""));
            }
            fields
        };
        assert!(!refused(many(MAX_FIELDS)));
        assert!(refused(many(MAX_FIELDS + 1)));
        let mut large = HeaderMap::new();
        large.insert("x", "y".repeat(MAX_HEAD).parse().unwrap());
        assert!(refused(large));
    }
}
