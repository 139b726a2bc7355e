//! HTTP towards the client: one connection, from its first octet to its last.
//!
//! This is the piece between actix-server, which accepts and hands connections to workers, and the
//! actix-web `App`, whose default service is the proxy. actix-http has such a piece, too;
//! docs/decisions/0001-own-connection-loop.md lists what it does not do (timers after the first head,
//! errors with content, a body that fails without losing what went before) and it costs a copy of every
//! chunk each way, two maps of fields and reads of 8 KiB. So this one is ours: RFC 9112 here, and
//! RFC 9113 in `http2`, where the h2 crate reads and writes the frames.
//!
//! It refuses to know what a request is about. It decides only where messages begin and end, how
//! long a silent peer is waited for, and when a connection has served its last request.

mod accept;
mod client_connection;
mod delivery;
mod http1;
mod http2;
mod limits;
mod peer;
mod permit;
mod preface;
mod service;
mod source;
mod timer;
#[cfg(target_os = "linux")]
mod unacknowledged;

pub use self::{
    accept::serve,
    client_connection::{ClientConnection, Protocol},
    http1::{KeepAlive, ParsedRequest, parse_request_head},
    http2::{BlockEnd, http2_request_head, http2_trailers, trailer_section},
    peer::Peer,
    permit::ConnectionPermit,
    service::{ReportRefused, Services},
};
