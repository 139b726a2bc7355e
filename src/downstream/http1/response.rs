//! Response heads as they are written: fields, and the framing that this connection needs.

use actix_http::{ResponseHead as HttpHead, body::BodySize};
use actix_web::http::{Method, StatusCode, header};
use bytes::{BufMut, Bytes, BytesMut};

use super::request::KeepAlive;
use crate::{
    error::Answer,
    wire::{
        body::Framing,
        head::{HeadContent, RelayedHead, Version, is_without_content},
    },
};

/// Delimiter of content towards this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// No content.
    Nothing,
    /// `Content-Length` with this number of octets.
    Length(u64),
    /// Chunks.
    Chunks,
    /// End of the connection.
    Close,
}

impl Delimiter {
    fn of(framing: Framing, version: Version) -> Self {
        match (framing, version) {
            (Framing::None | Framing::Length(0), _) => Self::Nothing,
            (Framing::Length(length), _) => Self::Length(length),
            (Framing::Chunked | Framing::UntilClose, Version::Http11 | Version::Http2) => {
                Self::Chunks
            }
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => Self::Close,
        }
    }

    /// The framing of the content.
    pub(super) fn framing(self) -> Framing {
        match self {
            Self::Nothing => Framing::None,
            Self::Length(length) => Framing::Length(length),
            Self::Chunks => Framing::Chunked,
            Self::Close => Framing::UntilClose,
        }
    }
}

/// Completes the head of a relayed response.
pub(super) fn relayed(
    relayed: RelayedHead,
    head: &HttpHead,
    version: Version,
    keep_alive: &mut KeepAlive,
) -> (Bytes, Delimiter) {
    let mut octets = match relayed.content {
        HeadContent::Octets(octets) => octets,
        HeadContent::Fields(fields) => {
            let mut octets = BytesMut::with_capacity(fields.octets() + 64);
            put_status(&mut octets, head.status.as_u16(), head.reason());
            for field in fields.iter() {
                put_field(&mut octets, field.name, field.value);
            }
            octets
        }
    };
    let delimiter = Delimiter::of(relayed.framing, version);
    match (relayed.framing, delimiter) {
        // the fields say it: a HEAD, 204 or 304 keeps the length it came with
        (Framing::None, _) => {}
        (_, Delimiter::Nothing) => octets.put_slice(b"content-length: 0\r\n"),
        (_, delimiter) => put_delimiter(&mut octets, delimiter),
    }
    end(&mut octets, delimiter, version, keep_alive);
    (octets.freeze(), delimiter)
}

/// Completes the head of a relayed 101: it frames nothing, and is the last of its connection.
pub(super) fn switching(relayed: RelayedHead) -> Bytes {
    match relayed.content {
        HeadContent::Octets(mut octets) => {
            octets.put_slice(b"\r\n");
            octets.freeze()
        }
        // for HTTP/2, which says it with a status of its own
        HeadContent::Fields(_) => Bytes::new(),
    }
}

/// Head of a response that a handler of the proxy made.
pub(super) fn own(
    head: &HttpHead,
    size: BodySize,
    method: &Method,
    version: Version,
    keep_alive: &mut KeepAlive,
) -> (Bytes, Delimiter) {
    let mut octets = BytesMut::with_capacity(256);
    put_status(&mut octets, head.status.as_u16(), head.reason());
    for (name, value) in head.headers() {
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        put_field(&mut octets, name.as_str().as_bytes(), value.as_bytes());
    }
    let framing = match size {
        BodySize::None => Framing::None,
        BodySize::Sized(length) => Framing::Length(length),
        BodySize::Stream => Framing::UntilClose,
    };
    let mut delimiter = Delimiter::of(framing, version);
    let is_head = *method == Method::HEAD;
    let is_not_modified = head.status == StatusCode::NOT_MODIFIED;
    match delimiter {
        _ if is_without_content(head.status) => delimiter = Delimiter::Nothing,
        // RFC 9110 §8.6: the length would be that of the content which is not sent, and is not known
        Delimiter::Nothing if framing == Framing::None && (is_head || is_not_modified) => {}
        Delimiter::Nothing => octets.put_slice(b"content-length: 0\r\n"),
        delimiter => put_delimiter(&mut octets, delimiter),
    }
    if is_head || is_not_modified {
        delimiter = Delimiter::Nothing;
    }
    end(&mut octets, delimiter, version, keep_alive);
    (octets.freeze(), delimiter)
}

/// Complete response to a request that was refused before the `App`; the connection closes after
/// it.
pub(super) fn refusal(answer: &Answer, request_id: &str, method: &Method) -> Bytes {
    let content = answer.content(request_id);
    let mut octets = BytesMut::with_capacity(256 + content.len());
    let reason = answer.status.canonical_reason().unwrap_or_default();
    put_status(&mut octets, answer.status.as_u16(), reason);
    put_field(&mut octets, b"content-type", b"application/json");
    put_field(&mut octets, b"request-id", request_id.as_bytes());
    put_field(
        &mut octets,
        b"x-proxy-error",
        answer.label.text().as_bytes(),
    );
    if let Some(seconds) = answer.retry_after {
        put_field(
            &mut octets,
            b"retry-after",
            itoa::Buffer::new().format(seconds).as_bytes(),
        );
    }
    put_delimiter(&mut octets, Delimiter::Length(content.len() as u64));
    octets.put_slice(b"connection: close\r\n\r\n");
    if *method != Method::HEAD {
        octets.put_slice(&content);
    }
    octets.freeze()
}

fn put_status(octets: &mut BytesMut, status: u16, reason: &str) {
    octets.put_slice(b"HTTP/1.1 ");
    octets.put_slice(itoa::Buffer::new().format(status).as_bytes());
    octets.put_slice(b" ");
    octets.put_slice(reason.as_bytes());
    octets.put_slice(b"\r\n");
}

fn put_field(octets: &mut BytesMut, name: &[u8], value: &[u8]) {
    octets.put_slice(name);
    octets.put_slice(b": ");
    octets.put_slice(value);
    octets.put_slice(b"\r\n");
}

fn put_delimiter(octets: &mut BytesMut, delimiter: Delimiter) {
    match delimiter {
        Delimiter::Nothing | Delimiter::Close => {}
        Delimiter::Length(length) => {
            put_field(
                octets,
                b"content-length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
        Delimiter::Chunks => octets.put_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Writes `Connection` where it is needed, and ends the head.
fn end(octets: &mut BytesMut, delimiter: Delimiter, version: Version, keep_alive: &mut KeepAlive) {
    if delimiter == Delimiter::Close {
        *keep_alive = KeepAlive::No;
    }
    match (*keep_alive, version) {
        (KeepAlive::No, Version::Http11 | Version::Http2) => {
            octets.put_slice(b"connection: close\r\n")
        }
        (KeepAlive::Yes, Version::Http10) => octets.put_slice(b"connection: keep-alive\r\n"),
        (KeepAlive::Yes, Version::Http11 | Version::Http2) | (KeepAlive::No, Version::Http10) => {}
    }
    octets.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_head(status: u16, size: BodySize, method: &Method, version: Version) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let (head, _) = own(
            &HttpHead::new(status),
            size,
            method,
            version,
            &mut KeepAlive::Yes,
        );
        String::from_utf8(head.to_vec()).unwrap()
    }

    #[test]
    fn a_length_of_ours_stands_where_there_may_be_content() {
        use BodySize::{None as Nothing, Sized, Stream};
        let (get, head) = (Method::GET, Method::HEAD);
        for (status, size, method, expected) in [
            (200, Sized(5), &get, Some("content-length: 5")),
            (200, Sized(0), &get, Some("content-length: 0")),
            (200, Nothing, &get, Some("content-length: 0")),
            (200, Stream, &get, Some("transfer-encoding: chunked")),
            (200, Sized(5), &head, Some("content-length: 5")),
            (200, Nothing, &head, None),
            (204, Nothing, &get, None),
            (204, Sized(0), &get, None),
            (204, Sized(0), &head, None),
            (304, Nothing, &get, None),
            (304, Sized(5), &get, Some("content-length: 5")),
            (103, Sized(0), &get, None),
        ] {
            let text = own_head(status, size, method, Version::Http11);
            let framing = text.lines().find(|line| {
                line.starts_with("content-length") || line.starts_with("transfer-encoding")
            });
            assert_eq!(framing, expected, "{status} {size:?} {method}");
        }
    }
}
