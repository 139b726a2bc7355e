//! Response head and trailers in HTTP/2 format (RFC 9113 §8.3.2 and §8.1).

use actix_http::{ResponseHead as HttpHead, body::BodySize};
use actix_web::http::Method;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    error::{Answer, InternalError},
    wire::{
        MAX_FIELDS,
        body::Framing,
        head::{Fields, HeadContent, RelayedHead, is_without_content},
        role::Role,
    },
};

/// Response head, and whether content follows it.
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) has_content: bool,
}

/// Kind of response that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponsePurpose {
    /// An ordinary response.
    Answer,
    /// Another protocol on this stream (RFC 8441).
    Tunnel,
}

/// Converts a relayed head.
pub(super) fn relayed(
    relayed: &RelayedHead,
    status: u16,
    asked: ResponsePurpose,
) -> Result<Head, InternalError> {
    let HeadContent::Fields(fields) = &relayed.content else {
        return Err(InternalError::Handler);
    };
    // RFC 8441 §5: HTTP/2 has no 101; the switch is a 200, and nothing was hashed
    let switches = status == 101 && asked == ResponsePurpose::Tunnel;
    let status = if switches { 200 } else { status };
    let mut map = to_map(fields);
    if switches {
        map.remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    if let Framing::Length(length) = relayed.framing
        && map.contains_key(header::CONTENT_LENGTH)
    {
        // one, and as content is framed here
        map.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(Head {
        response: response(status, map),
        has_content: switches || !matches!(relayed.framing, Framing::None | Framing::Length(0)),
    })
}

/// Head of a response that a handler of the proxy made.
pub(super) fn own(head: &HttpHead, size: BodySize, method: &Method) -> Head {
    let mut map = HeaderMap::with_capacity(8);
    for (name, value) in head.headers() {
        let name = name.as_str().as_bytes();
        // what else there is would be of a connection, which this is not (RFC 9113 §8.2.2)
        if Role::of(name) == Role::EndToEnd {
            put(&mut map, name, value.as_bytes());
        }
    }
    let has_length = !is_without_content(head.status);
    if let BodySize::Sized(length) = size
        && has_length
    {
        map.insert(header::CONTENT_LENGTH, length.into());
    }
    Head {
        response: response(head.status.as_u16(), map),
        has_content: has_length
            && *method != Method::HEAD
            && head.status != 304
            && !matches!(size, BodySize::None | BodySize::Sized(0)),
    }
}

/// Response to a request that was refused before the `App`, and its content.
pub(super) fn refusal(answer: &Answer, request_id: &str, method: &Method) -> (Head, Bytes) {
    let content = answer.content(request_id);
    let mut map = HeaderMap::with_capacity(8);
    put(&mut map, b"content-type", b"application/json");
    put(&mut map, b"request-id", request_id.as_bytes());
    put(&mut map, b"x-proxy-error", answer.label.text().as_bytes());
    if let Some(seconds) = answer.retry_after {
        map.insert(header::RETRY_AFTER, seconds.into());
    }
    map.insert(header::CONTENT_LENGTH, content.len().into());
    let head = Head {
        response: response(answer.status.as_u16(), map),
        has_content: *method != Method::HEAD,
    };
    (head, content)
}

/// Fields of a raw trailer section.
pub fn http2_trailers(raw: &[u8]) -> HeaderMap {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut map = HeaderMap::new();
    if let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(raw, &mut slots) {
        for field in fields {
            if Role::of(field.name.as_bytes()) == Role::EndToEnd {
                put(&mut map, field.name.as_bytes(), field.value);
            }
        }
    }
    map
}

fn response(status: u16, map: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = map;
    response
}

fn to_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        put(&mut map, field.name, field.value);
    }
    map
}

/// Adds a field. What was a field of HTTP/1.1 is one here, its name in lower case.
fn put(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        map.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, asked: ResponsePurpose, framing: Framing) -> Head {
        let pairs: [(&[u8], &[u8]); 3] = [
            (b"Set-Cookie", b"a"),
            (b"set-cookie", b"\xfc"),
            (b"Sec-WebSocket-Accept", b"x"),
        ];
        let head = RelayedHead {
            content: HeadContent::Fields(Fields::from_pairs(pairs)),
            framing,
            notes: None,
            tunnel: None,
        };
        relayed(&head, status, asked).unwrap()
    }

    #[test]
    fn a_switch_is_a_200_without_a_hash() {
        let switched = head(101, ResponsePurpose::Tunnel, Framing::UntilClose);
        assert_eq!(switched.response.status(), 200);
        assert!(switched.has_content);
        assert!(
            !switched
                .response
                .headers()
                .contains_key("sec-websocket-accept")
        );
        let refused = head(403, ResponsePurpose::Tunnel, Framing::Length(0));
        assert_eq!(refused.response.status(), 403);
        assert!(!refused.has_content);
    }

    #[test]
    fn duplicates_and_obs_text_pass() {
        let head = head(200, ResponsePurpose::Answer, Framing::Chunked);
        let values: Vec<_> = head
            .response
            .headers()
            .get_all("set-cookie")
            .iter()
            .collect();
        assert_eq!(values, [&b"a"[..], b"\xfc"]);
    }

    #[test]
    fn trailers_are_end_to_end_fields() {
        let map = http2_trailers(b"X-Sum: 1\r\nConnection: close\r\nx-sum: 2\r\n\r\n");
        let values: Vec<_> = map.get_all("x-sum").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(map.len(), 2);
    }
}
