//! A response head, parsed strictly (RFC 9112 §4 and §6.3).
//!
//! Contradictory framing is refused: the bytes after it could be taken for the answer to another
//! request. Repeated equal lengths are reduced to one here, so that a relayed head cannot declare
//! another framing than the one that was read (RFC 9112 §6.3).

use std::mem::MaybeUninit;

use actix_web::http::{Method, StatusCode};
use bytes::BytesMut;

use crate::{
    error::UpstreamError,
    wire::{
        MAX_FIELDS, MAX_HEAD,
        body::Framing,
        head::{Field, Fields, ResponseHead, content_length, tokens},
        role::Role,
    },
};

/// A parsed response head.
#[derive(Debug)]
pub struct ParsedHead {
    /// The head.
    pub head: ResponseHead,
    /// The end of its body.
    pub framing: Framing,
    /// Set if the connection may serve again after it.
    pub reusable: bool,
}

/// Parses one head and takes it from the buffer; `None` if it is not complete.
///
/// # Errors
/// The head is no response head of RFC 9112, or frames its body in two ways.
pub fn parse_head(
    buffer: &mut BytesMut,
    method: &Method,
) -> Result<Option<ParsedHead>, UpstreamError> {
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // RFC 9112 §5.1: a proxy removes them from a response
    parser.allow_spaces_after_header_name_in_responses(true);
    let result = parser.parse_response_with_uninit_headers(&mut parsed, buffer, &mut slots);
    let length = match result {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(UpstreamError::HttpResponseHeaderSectionSize);
        }
        Err(_) => return Err(UpstreamError::HttpProtocolError),
    };
    within_limit(length)?;
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(UpstreamError::HttpProtocolError)?;
    let version_11 = parsed.version == Some(1);
    let reason = parsed.reason.unwrap_or_default();
    let reason_at = (reason.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    let reason = if reason.is_empty() {
        0..0
    } else {
        reason_at..reason_at + reason.len()
    };
    let spans = Fields::spans(buffer.as_ptr(), parsed.headers);
    let raw = buffer.split_to(length).freeze();
    let fields = Fields::with_spans(raw.clone(), spans);
    let mut head = ResponseHead {
        status,
        reason: raw.slice(reason),
        fields,
    };
    let judged = response_framing(&head, method, version_11)?;
    if judged.excess_lengths > 0 {
        head.fields = last_lengths_removed(&head.fields, judged.excess_lengths);
    }
    Ok(Some(ParsedHead {
        head,
        framing: judged.framing,
        reusable: judged.reusable,
    }))
}

/// The framing that a head declares.
struct Judged {
    framing: Framing,
    reusable: bool,
    /// `Content-Length` fields that are not to be relayed.
    excess_lengths: usize,
}

/// The framing of the body (RFC 9112 §6.3), and whether the connection may serve again.
fn response_framing(
    head: &ResponseHead,
    method: &Method,
    version_11: bool,
) -> Result<Judged, UpstreamError> {
    let mut length = None;
    let mut lengths = 0;
    let mut chunked = false;
    let mut reusable = version_11;
    for field in head.fields.iter() {
        match field.role() {
            Role::ContentLength => {
                let value =
                    content_length(field.value).ok_or(UpstreamError::HttpResponseTransferCoding)?;
                if length.is_some_and(|earlier| earlier != value) {
                    return Err(UpstreamError::HttpResponseTransferCoding);
                }
                length = Some(value);
                lengths += 1;
            }
            Role::TransferEncoding => {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(UpstreamError::HttpResponseTransferCoding);
                }
                chunked = true;
            }
            Role::Connection => {
                for token in tokens(field.value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        reusable = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") && !version_11 {
                        reusable = true;
                    }
                }
            }
            _ => {}
        }
    }
    let status = head.status.as_u16();
    // Transfer-Encoding wins, and beside a length or in HTTP/1.0 the connection is not trusted again
    // (§6.1; §6.3, 3.)
    let reusable = reusable && !(chunked && (length.is_some() || !version_11));
    let (framing, reusable) = match (chunked, length) {
        _ if *method == Method::HEAD || matches!(status, 100..=199 | 204 | 304) => {
            (Framing::None, reusable)
        }
        (true, _) => (Framing::Chunked, reusable),
        (false, Some(length)) => (Framing::Length(length), reusable),
        (false, None) => (Framing::UntilClose, false),
    };
    // RFC 9110 §8.6: a 1xx or 204 has none
    let has_length = !chunked && !matches!(status, 100..=199 | 204);
    Ok(Judged {
        framing,
        reusable,
        excess_lengths: lengths - usize::from(has_length).min(lengths),
    })
}

/// The fields without this number of `Content-Length` fields at the end.
fn last_lengths_removed(fields: &Fields, excess: usize) -> Fields {
    let is_length = |field: &Field<'_>| field.role() == Role::ContentLength;
    let kept = fields.iter().filter(is_length).count() - excess;
    let mut seen = 0;
    fields.retain(|field| {
        seen += usize::from(is_length(field));
        !is_length(field) || seen <= kept
    })
}

/// Checks the size of a head against the limit.
pub(super) fn within_limit(octets: usize) -> Result<(), UpstreamError> {
    if octets > MAX_HEAD {
        Err(UpstreamError::HttpResponseHeaderSectionSize)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(head: &str, method: &Method) -> Result<(Framing, bool), UpstreamError> {
        let found = parse_head(&mut BytesMut::from(head), method)?.unwrap();
        Ok((found.framing, found.reusable))
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_rfc_has_it() {
        let (get, head) = (Method::GET, Method::HEAD);
        for (text, method, expected) in [
            ("HTTP/1.1 200 OK\r\n", &get, (Framing::UntilClose, false)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
                &get,
                (Framing::Length(0), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
                &get,
                (Framing::Chunked, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Chunked, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n",
                &get,
                (Framing::Chunked, true),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
                &get,
                (Framing::Chunked, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                &head,
                (Framing::None, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n",
                &get,
                (Framing::Length(5), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Length(5), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                &head,
                (Framing::None, true),
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
                &get,
                (Framing::None, true),
            ),
            ("HTTP/1.1 204 No Content\r\n", &get, (Framing::None, true)),
        ] {
            assert_eq!(
                parse(&format!("{text}\r\n"), method).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn contradictions_and_other_protocols_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            assert!(
                parse_head(&mut BytesMut::from(text), &Method::GET).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_head_says_one_length_or_none() {
        let fields = |text: &str, method: &Method| {
            let mut octets = BytesMut::from(text);
            let found = parse_head(&mut octets, method).unwrap().unwrap();
            let fields = found.head.fields.iter();
            fields
                .map(|field| String::from_utf8([field.name, b":", field.value].concat()).unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (text, kept) in [
            (
                "HTTP/1.1 200 OK\r\nA : 1\r\nContent-Length \t: 5\r\n\r\n",
                "A:1 Content-Length:5",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\na: 1\r\ncontent-length: 5\r\nContent-length: 5\r\n\r\n",
                "Content-Length:5 a:1",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding:chunked",
            ),
            (
                "HTTP/1.1 204 No\r\nContent-Length: 5\r\na: 1\r\n\r\n",
                "a:1",
            ),
            (
                "HTTP/1.1 304 Same\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                "Content-Length:5",
            ),
        ] {
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(fields(text, &method), kept, "{method} {text}");
            }
        }
    }

    #[test]
    fn reason_and_fields_are_kept_as_they_came() {
        let mut octets =
            BytesMut::from(&b"HTTP/1.1 529 \xc3\x9cberlastet \r\nSet-Cookie: a\r\nset-cookie: \xff\r\nE:\r\n\r\nrest"[..]);
        let found = parse_head(&mut octets, &Method::GET);
        let Ok(Some(found)) = found else {
            panic!("{found:?}")
        };
        assert_eq!(found.head.status, 529);
        let fields: Vec<_> = found
            .head
            .fields
            .iter()
            .map(|f| (f.name, f.value))
            .collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"Set-Cookie", b"a"), (b"set-cookie", b"\xff"), (b"E", b"")];
        assert_eq!(fields, expected);
        assert_eq!(octets, "rest");
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_fail_hard(
            octets in prop::collection::vec(
                prop::sample::select(&b"HTTP/1.1 200 OK\r\n:Content-Length5chunkedTransfer-Encoding\x00\xff \t"[..]),
                0..120,
            ),
        ) {
            let mut buffer = BytesMut::from(&octets[..]);
            if let Ok(Some(_)) = parse_head(&mut buffer, &Method::GET) {
                prop_assert!(buffer.len() < octets.len());
            } else {
                prop_assert_eq!(&buffer[..], &octets[..], "nothing is taken");
            }
        }

        #[test]
        fn a_written_head_is_read_back(
            status in 200_u16..600,
            fields in prop::collection::vec(("[A-Za-z][A-Za-z-]{0,12}", "[!-~]{0,12}"), 0..20),
        ) {
            prop_assume!(fields.iter().all(|(name, _)| Role::of(name.as_bytes()) == Role::EndToEnd));
            let mut text = format!("HTTP/1.1 {status} R\r\n");
            for (name, value) in &fields {
                text += &format!("{name}: {value}\r\n");
            }
            let mut buffer = BytesMut::from(format!("{text}\r\n").as_str());
            let found = parse_head(&mut buffer, &Method::GET).unwrap().unwrap();
            prop_assert_eq!(found.head.status.as_u16(), status);
            let read: Vec<(String, String)> = found
                .head
                .fields
                .iter()
                .map(|field| {
                    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
                    (text(field.name), text(field.value))
                })
                .collect();
            prop_assert_eq!(read, fields);
        }
    }
}
