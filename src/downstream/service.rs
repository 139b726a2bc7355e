//! Services that a worker gives to its connections, and the request as actix-web routes it.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use actix_http::{HttpMessage as _, Payload, Request};
use actix_web::http::Uri;
use arc_swap::ArcSwap;

use super::client_connection::ClientConnection;
use crate::{
    config::Live,
    drain::Drain,
    limits::{Limits, Overflow},
    wire::{
        head::{Fields, RequestHead, Version},
        refused_request::RefusedRequest,
    },
};

/// Services that a worker gives to its connections.
pub struct Services<A> {
    /// The routed application.
    pub app: A,
    /// Live configuration: timers are read again for every request.
    pub live: Arc<ArcSwap<Live>>,
    /// Connection counts of the process.
    pub limits: Arc<Limits>,
    /// Limit of connections (`MAX_CONNECTIONS`).
    pub max_connections: usize,
    /// Permits for connections beyond the limit.
    pub overflow: Rc<Overflow>,
    /// Drain of the worker.
    pub drain: Rc<Drain>,
    /// Matches paths that the proxy answers itself: they need their fields in actix-web's map, and
    /// are served beyond the limit of connections.
    pub is_local: fn(&[u8]) -> bool,
    /// Makes a request id for a refused request.
    pub request_id: fn() -> String,
    /// Records a refused request.
    pub refused: ReportRefused,
}

/// Callback that records a refused request and its client.
pub type ReportRefused = Box<dyn Fn(Option<IpAddr>, &RefusedRequest<'_>)>;

/// Builds the request as actix-web routes it.
pub(super) fn routed(
    head: RequestHead,
    payload: Payload,
    arrival: &ClientConnection,
    is_local: bool,
) -> Request {
    let mut request = Request::with_payload(payload);
    let parts = request.head_mut();
    parts.method = head.method.clone();
    parts.version = match head.version {
        Version::Http11 => actix_web::http::Version::HTTP_11,
        Version::Http10 => actix_web::http::Version::HTTP_10,
        Version::Http2 => actix_web::http::Version::HTTP_2,
    };
    parts.peer_addr = arrival.peer;
    // only routing reads it, and routing decodes it: `/%68ealth` is none of our own paths, and is
    // forwarded as it came
    parts.uri = Uri::from_static("/");
    if is_local {
        parts.uri = Uri::from_maybe_shared(head.target.clone()).unwrap_or_default();
        fill(&mut parts.headers, &head.fields);
    }
    request.extensions_mut().insert(head);
    request
}

/// Copies fields into actix-web's map, for the proxy's own handlers.
fn fill(map: &mut actix_web::http::header::HeaderMap, fields: &Fields) {
    use actix_web::http::header::{HeaderName, HeaderValue};
    for field in fields.iter() {
        let name = HeaderName::from_bytes(field.name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
}
