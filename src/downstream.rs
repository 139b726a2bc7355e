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

mod body;
mod connection;
mod delivery;
mod entry;
mod http2;
mod peer;
mod request;
mod response;
mod timer;
#[cfg(target_os = "linux")]
mod unacknowledged;

use std::net::SocketAddr;

use crate::wire::head::Transport;

/// How a connection came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The client's address; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// What it came over.
    pub transport: Transport,
    /// What is spoken.
    pub protocol: Protocol,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, as ALPN has it, or for want of ALPN.
    Http1,
    /// HTTP/2, as ALPN has it.
    Http2,
    /// In clear: HTTP/1.1, or HTTP/2 if `H2C` allows it and the first octets are its preface.
    Unsaid,
}

pub use self::{
    connection::{Services, TellRefused, serve},
    entry::Entry,
    http2::{BlockEnds, http2_request_head, http2_trailers, trailer_section},
    peer::Peer,
    request::{KeepAlive, Parsed, parse_request_head},
};
