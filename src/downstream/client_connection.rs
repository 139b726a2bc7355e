//! Address, transport and protocol of an accepted connection.

use std::net::SocketAddr;

use crate::wire::head::Transport;

/// How a connection came in.
#[derive(Debug, Clone, Copy)]
pub struct ClientConnection {
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
