//! The head of a client's request, as it comes through actix-web.
//!
//! The connection parses the head into octets and spans ([`RequestHead`]). actix-web's `App` is called with
//! a request of its own type, whose target is a parsed `Uri` and whose fields are a map. To fill both for
//! each forwarded request would cost an allocation per field, and what they change (case, order, escapes)
//! must not be forwarded. So a request that is to be forwarded has the target `/` and no fields there, and
//! its true head rides in the extensions; this is the only place that takes it out.
//!
//! The alternative is to call the proxy beside the `App`. It was not taken: a main port has routes that
//! decline a request by their guards and leave it to the default service (another method for `/metrics`, a
//! path that only resembles the dashboard's), so each of these decisions would be made twice, here and in
//! actix-web's router, and a difference between both would send a key of the dashboard upstream.

use std::rc::Rc;

use actix_web::{HttpMessage as _, HttpRequest, http::header};

use crate::wire::{
    body::Framing,
    head::{Fields, RequestHead, Transport, Version},
};

/// The head as the connection parsed it; made from actix-web's map for connections that do not.
pub(super) fn take(req: &HttpRequest) -> RequestHead {
    if let Some(head) = req.extensions_mut().remove::<RequestHead>() {
        return head;
    }
    let length = req.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let target = req
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    RequestHead {
        method: req.method().clone(),
        target: target.to_owned().into(),
        version: version(req),
        transport: Transport::Clear,
        fields: Fields::from_map(req.headers()),
        framing: length.map_or(Framing::Chunked, Framing::Length),
        expects_continue: false,
        upgrade: None,
        notes: Rc::default(),
    }
}

pub(super) fn version(req: &HttpRequest) -> Version {
    match req.version() {
        actix_web::http::Version::HTTP_09 | actix_web::http::Version::HTTP_10 => Version::Http10,
        actix_web::http::Version::HTTP_2 => Version::Http2,
        _ => Version::Http11,
    }
}
