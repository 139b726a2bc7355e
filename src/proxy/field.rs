//! Which fields travel on, and which are added (RFC 9110 §7.6; contract §2).
//!
//! Pure: fields in, octets out. Order, duplicates, case and values are kept; nothing is merged.

use std::net::IpAddr;

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::{
    config::Live,
    framing::head::{Field, Fields, ResponseHead, Role, Version, tokens},
};

/// Names that `Connection` named. Nearly always none.
type Named<'a> = SmallVec<[&'a [u8]; 4]>;

/// What the request's fields do not say themselves.
pub(super) struct Request<'a> {
    /// The configuration.
    pub(super) live: &'a Live,
    /// The client's fields.
    pub(super) fields: &'a Fields,
    /// The client's address.
    pub(super) client: Option<IpAddr>,
    /// Framing towards the upstream.
    pub(super) framing: Length,
    /// What becomes of `Expect`.
    pub(super) expect: Expect,
    /// For the outbound proxy, where it is asked by absolute-form.
    pub(super) proxy_authorization: Option<&'a HeaderValue>,
}

/// Framing of the request towards the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// No body, and no field that says so.
    Unsaid,
    /// `Content-Length`.
    Exactly(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What becomes of the client's `Expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// It travels on.
    Forward,
    /// `100-continue` was dealt with here.
    Answered,
}

/// Writes the fields of the upstream request and the empty line after them.
pub(super) fn put_request_fields(octets: &mut BytesMut, request: &Request<'_>) {
    let live = request.live;
    let named = named(request.fields);
    let host = request.fields.value("host");
    match host {
        Some(host) if live.preserve_host => put(octets, b"host", host),
        _ => put(octets, b"host", live.upstream.authority.as_bytes()),
    }
    let mut forwarded_for: SmallVec<[&[u8]; 2]> = SmallVec::new();
    let (mut proto_is_set, mut host_is_set, mut takes_trailers) = (false, false, false);
    for field in request.fields.iter() {
        match field.role() {
            Role::Host
            | Role::ContentLength
            | Role::TransferEncoding
            | Role::Connection
            | Role::HopByHop => continue,
            Role::Te => {
                takes_trailers |=
                    tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Role::Expect if request.expect == Expect::Answered => continue,
            Role::ForwardedFor if !is_overridden(live, &field) => {
                forwarded_for.push(field.value);
                continue;
            }
            Role::ForwardedProto => proto_is_set = true,
            Role::ForwardedHost => host_is_set = true,
            Role::Expect | Role::ForwardedFor | Role::EndToEnd => {}
        }
        if is_named(&named, &field) || is_overridden(live, &field) {
            continue;
        }
        put(octets, field.name, field.value);
    }
    put_forwarded(octets, live, request.client, &forwarded_for);
    if !proto_is_set && !has_custom(live, "x-forwarded-proto") {
        put(octets, b"x-forwarded-proto", b"http");
    }
    if let Some(host) = host
        && !host_is_set
        && !has_custom(live, "x-forwarded-host")
    {
        put(octets, b"x-forwarded-host", host);
    }
    if takes_trailers {
        // RFC 9110 §10.1.4: TE is of the connection, and has to be named
        put(octets, b"te", b"trailers");
        put(octets, b"connection", b"te");
    }
    for (name, value) in &live.custom_fields {
        put(octets, name.as_str().as_bytes(), value.as_bytes());
    }
    if let Some(value) = request.proxy_authorization {
        put(octets, b"proxy-authorization", value.as_bytes());
    }
    match request.framing {
        Length::Unsaid => {}
        Length::Exactly(length) => {
            put(octets, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Length::Chunked => put(octets, b"transfer-encoding", b"chunked"),
    }
    octets.put_slice(b"\r\n");
}

/// Writes status line and fields of a response, without its framing and without the empty line.
pub(super) fn response_head(head: &ResponseHead, keeps_length: bool, client: Version) -> BytesMut {
    let named = named(&head.fields);
    let mut octets = BytesMut::with_capacity(head.fields.octets() + 64);
    octets.put_slice(b"HTTP/1.1 ");
    octets.put_slice(head.status.as_str().as_bytes());
    octets.put_slice(b" ");
    octets.put_slice(&head.reason);
    octets.put_slice(b"\r\n");
    for field in head.fields.iter() {
        match field.role() {
            Role::Connection | Role::HopByHop | Role::Te => continue,
            Role::ContentLength if !keeps_length => continue,
            Role::TransferEncoding if !keeps_length || client == Version::Http10 => continue,
            Role::ContentLength
            | Role::TransferEncoding
            | Role::Host
            | Role::Expect
            | Role::ForwardedFor
            | Role::ForwardedProto
            | Role::ForwardedHost
            | Role::EndToEnd => {}
        }
        if !is_named(&named, &field) {
            put(&mut octets, field.name, field.value);
        }
    }
    octets
}

/// The client's address behind those of the proxies before it.
fn put_forwarded(
    octets: &mut BytesMut,
    live: &Live,
    client: Option<IpAddr>,
    before: &[&[u8]],
) {
    if has_custom(live, "x-forwarded-for") || (client.is_none() && before.is_empty()) {
        return;
    }
    octets.put_slice(b"x-forwarded-for: ");
    for value in before.iter().filter(|value| !value.is_empty()) {
        octets.put_slice(value);
        octets.put_slice(b", ");
    }
    match client {
        Some(client) => octets.put_slice(client.to_canonical().to_string().as_bytes()),
        None => octets.put_slice(b"unknown"),
    }
    octets.put_slice(b"\r\n");
}

/// The names that `Connection` names, but for those that we depend on: a client may not make a
/// credential or the length of its own content disappear.
fn named(fields: &Fields) -> Named<'_> {
    fields
        .iter()
        .filter(|field| field.role() == Role::Connection)
        .flat_map(|field| tokens(field.value))
        .filter(|name| !is_protected(name))
        .collect()
}

fn is_protected(name: &[u8]) -> bool {
    let starts_with = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    PROTECTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || starts_with("anthropic-")
        || starts_with("x-forwarded-")
}

/// End-to-end fields that decide who asks and what about.
const PROTECTED: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "authorization",
    "x-api-key",
    "accept",
    "accept-encoding",
    "cookie",
    "set-cookie",
    "retry-after",
    "expect",
];

fn is_named(named: &[&[u8]], field: &Field<'_>) -> bool {
    named.iter().any(|name| name.eq_ignore_ascii_case(field.name))
}

fn is_overridden(live: &Live, field: &Field<'_>) -> bool {
    live.custom_fields.iter().any(|(name, _)| is_name(name, field.name))
}

fn has_custom(live: &Live, name: &str) -> bool {
    live.custom_fields.iter().any(|(custom, _)| is_name(custom, name.as_bytes()))
}

fn is_name(custom: &HeaderName, name: &[u8]) -> bool {
    custom.as_str().as_bytes().eq_ignore_ascii_case(name)
}

fn put(octets: &mut BytesMut, name: &[u8], value: &[u8]) {
    octets.reserve(name.len() + value.len() + 4);
    octets.put_slice(name);
    octets.put_slice(b": ");
    octets.put_slice(value);
    octets.put_slice(b"\r\n");
}
