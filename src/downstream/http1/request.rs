//! Request head, parsed once and strictly (RFC 9112 §3, §5 and §6).
//!
//! A head that two parsers could read in two ways is refused: forwarded ambiguity enables request
//! smuggling.

use std::mem::MaybeUninit;

use actix_web::http::Method;
use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    error::DownstreamError,
    wire::{
        MAX_FIELDS, MAX_HEAD,
        body::Framing,
        head::{Fields, RequestHead, Transport, Version, content_length, may_be_complete, tokens},
        host::{is_host, is_same},
        role::Role,
        upgrade::tunnelled,
    },
};

/// Request head, and the persistence of its connection.
#[derive(Debug)]
pub struct ParsedRequest {
    /// The head.
    pub head: RequestHead,
    /// Persistence of the connection after this request.
    pub keep_alive: KeepAlive,
}

/// Persistence of a connection (RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// The connection may serve the next request.
    Yes,
    /// The connection is closed after the response.
    No,
}

/// Drops empty lines before a request line (RFC 9112 §2.2): some clients end content with one.
/// Returns true if there were any.
pub(super) fn skip_empty_lines(buffer: &mut BytesMut) -> bool {
    let mut skipped = false;
    loop {
        let length = match &buffer[..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => return skipped,
        };
        buffer.advance(length);
        skipped = true;
    }
}

/// Reports whether a head has begun. The first half of an empty line is none.
pub(super) fn is_begun(octets: &[u8]) -> bool {
    !matches!(octets, b"" | b"\r")
}

/// Takes one head from the front of the buffer, if it is complete. `searched` is the length of the
/// buffer that was searched before without success.
///
/// # Errors
/// The head is malformed, too large, or ambiguous.
pub fn parse_request_head(
    buffer: &mut BytesMut,
    searched: &mut usize,
) -> Result<Option<ParsedRequest>, DownstreamError> {
    if buffer.is_empty() {
        return Ok(None);
    }
    // the first octets are parsed at once, so that another protocol is refused at once
    if *searched > 0 && !may_be_complete(buffer, *searched) {
        *searched = buffer.len();
        return within_limit(buffer.len()).map(|()| None);
    }
    *searched = buffer.len();
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(buffer, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return within_limit(buffer.len()).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => return Err(DownstreamError::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(DownstreamError::UnsupportedVersion),
        Err(_) => return Err(DownstreamError::MalformedHead),
    };
    within_limit(length)?;
    *searched = 0;
    let version = if parsed.version == Some(1) {
        Version::Http11
    } else {
        Version::Http10
    };
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| DownstreamError::MalformedHead)?;
    let target = parsed.path.unwrap_or_default();
    let target_at = (target.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    let target = target_at..target_at + target.len();
    let spans = Fields::spans(buffer.as_ptr(), parsed.headers);
    let raw = buffer.split_to(length).freeze();
    let (target, authority) = origin_form(raw.slice(target), &method)?;
    let fields = Fields::with_spans(raw, spans);
    if let Some(authority) = authority {
        authority.check(fields.value("host"))?;
    }
    let facts = Facts::of(&fields, version)?;
    let head = RequestHead {
        method,
        target,
        version,
        transport: Transport::Clear,
        fields,
        framing: facts.framing,
        expects_continue: facts.expects_continue,
        upgrade: facts.upgrade,
        notes: <_>::default(),
    };
    Ok(Some(ParsedRequest {
        head,
        keep_alive: facts.keep_alive,
    }))
}

fn within_limit(octets: usize) -> Result<(), DownstreamError> {
    if octets > MAX_HEAD {
        Err(DownstreamError::HeadTooLarge)
    } else {
        Ok(())
    }
}

/// The authority of an absolute-form target (RFC 9112 §3.2.2).
struct TargetAuthority {
    name: Bytes,
    default_port: &'static [u8],
}

impl TargetAuthority {
    /// Refuses a `Host` that contradicts the target; RFC 9112 §3.2.2 would let the target win.
    fn check(&self, host: Option<&[u8]>) -> Result<(), DownstreamError> {
        if self.name.is_empty() || !is_host(&self.name) {
            return Err(DownstreamError::InvalidHost);
        }
        match host {
            Some(host) if !is_same(&self.name, host, self.default_port) => {
                Err(DownstreamError::InvalidHost)
            }
            // only HTTP/1.0 has none
            Some(_) | None => Ok(()),
        }
    }
}

/// The path and query of a target, and the authority if it names one (RFC 9112 §3.2).
fn origin_form(
    target: Bytes,
    method: &Method,
) -> Result<(Bytes, Option<TargetAuthority>), DownstreamError> {
    if *method == Method::CONNECT {
        return Err(DownstreamError::UnsupportedTarget);
    }
    if target.starts_with(b"/") || (&target[..] == b"*" && *method == Method::OPTIONS) {
        return Ok((target, None));
    }
    let schemes = [("http://", &b"80"[..]), ("https://", b"443")];
    let Some((rest, default_port)) = schemes.iter().find_map(|(scheme, port)| {
        let (start, _) = target.split_at_checked(scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then_some((scheme.len(), *port))
    }) else {
        return Err(DownstreamError::UnsupportedTarget);
    };
    let end = target[rest..]
        .iter()
        .position(|octet| b"/?".contains(octet));
    let end = end.map_or(target.len(), |at| rest + at);
    let path = if end == target.len() {
        Bytes::from_static(b"/")
    } else {
        target.slice(end..)
    };
    if end == rest || !path.starts_with(b"/") {
        return Err(DownstreamError::UnsupportedTarget);
    }
    let name = target.slice(rest..end);
    Ok((path, Some(TargetAuthority { name, default_port })))
}

/// Framing and persistence as the fields state them.
struct Facts {
    framing: Framing,
    keep_alive: KeepAlive,
    expects_continue: bool,
    upgrade: Option<Bytes>,
}

impl Facts {
    fn of(fields: &Fields, version: Version) -> Result<Self, DownstreamError> {
        let (mut length, mut chunked, mut hosts) = (None, false, 0);
        let (mut close, mut keep, mut expects_continue) = (false, false, false);
        let (mut has_upgrade, mut names_upgrade) = (false, false);
        for field in fields.iter() {
            match field.role() {
                Role::ContentLength => {
                    // a second one is refused even if it agrees: no client sends it by accident
                    if length.is_some() {
                        return Err(DownstreamError::AmbiguousFraming);
                    }
                    length =
                        Some(content_length(field.value).ok_or(DownstreamError::AmbiguousFraming)?);
                }
                Role::TransferEncoding => {
                    if chunked
                        || version == Version::Http10
                        || !field.value.eq_ignore_ascii_case(b"chunked")
                    {
                        return Err(DownstreamError::AmbiguousFraming);
                    }
                    chunked = true;
                }
                Role::Host => {
                    if !is_host(field.value) {
                        return Err(DownstreamError::InvalidHost);
                    }
                    hosts += 1;
                }
                Role::Connection => {
                    for token in tokens(field.value) {
                        close |= token.eq_ignore_ascii_case(b"close");
                        keep |= token.eq_ignore_ascii_case(b"keep-alive");
                        names_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                // RFC 9110 §7.8: ignored in HTTP/1.0
                Role::Upgrade => has_upgrade |= version == Version::Http11,
                Role::Expect => {
                    expects_continue |= version == Version::Http11
                        && tokens(field.value)
                            .any(|token| token.eq_ignore_ascii_case(b"100-continue"));
                }
                _ => {}
            }
        }
        // RFC 9112 §3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0
        if hosts > 1 || (hosts == 0 && version == Version::Http11) {
            return Err(DownstreamError::MalformedHead);
        }
        let mut framing = match (chunked, length) {
            (true, Some(_)) => return Err(DownstreamError::AmbiguousFraming),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        // RFC 9110 §7.8: an offer that may be ignored. Without `Connection: upgrade` it was meant for
        // another connection; with content there is no tunnel until the content has ended
        let has_content = !matches!(framing, Framing::None | Framing::Length(0));
        let mut upgrade = None;
        if has_upgrade && names_upgrade && !has_content {
            let values = fields.iter().filter(|field| field.role() == Role::Upgrade);
            upgrade = tunnelled(values.map(|field| field.value));
        }
        if upgrade.is_some() {
            // if the upstream agrees, the body is whatever comes
            framing = Framing::UntilClose;
        }
        let goes_on = match version {
            Version::Http11 | Version::Http2 => !close,
            Version::Http10 => keep && !close,
        };
        Ok(Self {
            framing,
            keep_alive: if goes_on {
                KeepAlive::Yes
            } else {
                KeepAlive::No
            },
            expects_continue: expects_continue
                && !matches!(
                    framing,
                    Framing::None | Framing::Length(0) | Framing::UntilClose
                ),
            upgrade,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_all(octets: &[u8]) -> Result<Option<ParsedRequest>, DownstreamError> {
        parse_request_head(&mut BytesMut::from(octets), &mut 0)
    }

    fn framing(fields: &str) -> Result<Framing, DownstreamError> {
        let head = format!("POST /v1/messages HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        parse_all(head.as_bytes()).map(|parsed| parsed.unwrap().head.framing)
    }

    #[test]
    fn framing_is_unambiguous_or_refused() {
        use DownstreamError::{AmbiguousFraming as Ambiguous, MalformedHead as Malformed};
        for (fields, expected) in [
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
            ("content-length:  12 \r\n", Ok(Framing::Length(12))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                Err(Ambiguous),
            ),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(Ambiguous)),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", Err(Ambiguous)),
            ("Content-Length: +1\r\n", Err(Ambiguous)),
            ("Content-Length: 1, 1\r\n", Err(Ambiguous)),
            ("Content-Length: \r\n", Err(Ambiguous)),
            ("Transfer-Encoding: identity\r\n", Err(Ambiguous)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Ambiguous)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(Ambiguous),
            ),
            ("Transfer-Encoding: xchunked\r\n", Err(Ambiguous)),
            ("Host: b\r\n", Err(Malformed)),
            ("x-folded: a\r\n b\r\n", Err(Malformed)),
            ("Content-Length : 1\r\n", Err(Malformed)),
            ("x: a\0b\r\n", Err(Malformed)),
        ] {
            assert_eq!(framing(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn an_upgrade_is_whole_or_dropped() {
        for (fields, expected) in [
            (
                "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n",
                Ok(Some("WebSocket")),
            ),
            (
                "Connection: upgrade\r\nUpgrade: a/1 ,h2c,\r\nUpgrade: TLS/1.0, b\r\nContent-Length: 0\r\n",
                Ok(Some("a/1, b")),
            ),
            // HTTP in a tunnel is not offered; what is left is an ordinary request, with its body
            (
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n",
                Ok(None),
            ),
            ("Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", Ok(None)),
            ("Connection: upgrade\r\n", Ok(None)),
            ("Connection: upgrade\r\nUpgrade:\r\n", Ok(None)),
            // half of one, and one with content
            ("Upgrade: websocket\r\n", Ok(None)),
            ("Connection: close\r\nUpgrade: h2c\r\n", Ok(None)),
            (
                "Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n",
                Ok(None),
            ),
            (
                "Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n",
                Ok(None),
            ),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let found = parse_all(head.as_bytes()).map(|parsed| parsed.unwrap().head.upgrade);
            let expected: Result<_, DownstreamError> =
                expected.map(|it: Option<&str>| it.map(Bytes::from));
            assert_eq!(found, expected, "{fields:?}");
        }
        let old = b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        assert_eq!(parse_all(old).unwrap().unwrap().head.upgrade, None);
    }

    #[test]
    fn targets_are_taken_verbatim_or_refused() {
        for (line, expected) in [
            ("GET / HTTP/1.1", Some("/")),
            ("GET //a/../b%2F?x=? HTTP/1.1", Some("//a/../b%2F?x=?")),
            ("GET /? HTTP/1.1", Some("/?")),
            ("BREW /pot HTTP/1.1", Some("/pot")),
            ("OPTIONS * HTTP/1.1", Some("*")),
            ("GET http://a/b?c HTTP/1.1", Some("/b?c")),
            ("GET http://a HTTP/1.1", Some("/")),
            ("GET http://A/b HTTP/1.1", Some("/b")),
            ("GET http://a:80/b HTTP/1.1", Some("/b")),
            ("GET HTTPS://a:443?c HTTP/1.1", None),
            ("GET HTTPS://a:443/?c HTTP/1.1", Some("/?c")),
            ("GET https://a:80/b HTTP/1.1", None),
            ("GET http://u@a/b HTTP/1.1", None),
            ("GET http://other/b HTTP/1.1", None),
            ("GET http:///b HTTP/1.1", None),
            ("GET * HTTP/1.1", None),
            ("CONNECT a:443 HTTP/1.1", None),
            ("GET ftp://a/ HTTP/1.1", None),
        ] {
            let found = parse_all(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
            let found = found.ok().flatten().map(|parsed| parsed.head.target);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn a_host_is_one_or_the_head_is_malformed() {
        let parse = |head: String| parse_all(head.as_bytes()).map(|parsed| parsed.is_some());
        for host in ["", "a:8088", "[::1]:80", "a,b"] {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(parse(head), Ok(true), "{host}");
        }
        for host in [
            "foo bar", "a@b", "[::1", "a:b:c", "a/../b", "<script>", "a#b",
        ] {
            for version in ["1.0", "1.1"] {
                let head = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
                assert_eq!(parse(head), Err(DownstreamError::InvalidHost), "{host}");
            }
        }
        // HTTP/1.0 may do without, also where the target names one
        assert_eq!(parse("GET http://a/ HTTP/1.0\r\n\r\n".into()), Ok(true));
        assert_eq!(
            parse("GET http://a/ HTTP/1.1\r\n\r\n".into()),
            Err(DownstreamError::MalformedHead)
        );
    }

    #[test]
    fn a_connection_goes_on_as_its_version_has_it() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", KeepAlive::Yes),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
                KeepAlive::No,
            ),
            ("GET / HTTP/1.0\r\n\r\n", KeepAlive::No),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                KeepAlive::Yes,
            ),
        ] {
            assert_eq!(
                parse_all(head.as_bytes()).unwrap().unwrap().keep_alive,
                expected,
                "{head}"
            );
        }
    }

    #[test]
    fn limits_are_64_kib_and_256_fields() {
        let many = |count: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "x: y\r\n".repeat(count - 1)
            )
        };
        assert_eq!(
            parse_all(many(256).as_bytes())
                .unwrap()
                .unwrap()
                .head
                .fields
                .len(),
            256
        );
        assert_eq!(
            parse_all(many(257).as_bytes()).unwrap_err(),
            DownstreamError::HeadTooLarge
        );
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "y".repeat(MAX_HEAD)
        );
        assert_eq!(
            parse_all(long.as_bytes()).unwrap_err(),
            DownstreamError::HeadTooLarge
        );
    }

    #[test]
    fn empty_lines_before_a_head_are_none_of_it() {
        for (sent, left) in [
            ("", ""),
            ("\r", "\r"),
            ("\r\n", ""),
            ("\n\r\n\n\r", "\r"),
            ("\r\nGET", "GET"),
            ("GET\r\n", "GET\r\n"),
            ("\rGET", "\rGET"),
        ] {
            let mut buffer = BytesMut::from(sent);
            assert_eq!(skip_empty_lines(&mut buffer), sent != left, "{sent:?}");
            assert_eq!(buffer, left, "{sent:?}");
            assert_eq!(is_begun(&buffer), left.contains("GET"), "{sent:?}");
        }
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_octets() {
        assert!(parse_all(b"\x16\x03\x01\x02\x00\x01").is_err());
        assert_eq!(
            parse_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_err(),
            DownstreamError::UnsupportedVersion
        );
    }

    proptest! {
        #[test]
        fn no_split_changes_the_outcome(
            head in "(GET|POST|X) /[a-z/?%]{0,9} HTTP/1\\.[01]\r?\n([A-Za-z-]{1,18}: ?[ -~]{0,9}\r?\n){0,5}\r?\n",
            splits in prop::collection::vec(any::<usize>(), 0..9),
        ) {
            let whole = parse_all(head.as_bytes()).map(|found| found.map(|p| p.head.target));
            let (mut buffer, mut searched, mut at) = (BytesMut::new(), 0, 0);
            let mut cuts: Vec<usize> = splits.iter().map(|cut| cut % (head.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(head.len());
            let mut outcome = Ok(None);
            for cut in cuts {
                buffer.extend_from_slice(&head.as_bytes()[at..cut]);
                at = cut;
                outcome = parse_request_head(&mut buffer, &mut searched).map(|found| found.map(|p| p.head.target));
                if !matches!(outcome, Ok(None)) {
                    break;
                }
            }
            prop_assert_eq!(outcome, whole);
        }
    }
}
