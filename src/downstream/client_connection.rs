//! Address, transport and protocol of an accepted connection.

use std::net::SocketAddr;

use crate::wire::head::Transport;

/// Address, transport and protocol of an accepted connection.
#[derive(Debug, Clone, Copy)]
pub struct ClientConnection {
    /// Address of the client; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Transport that the connection was accepted on.
    pub transport: Transport,
    /// Protocol that the client speaks.
    pub protocol: Protocol,
}

/// Protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, by ALPN or because there was no ALPN.
    Http1,
    /// HTTP/2, by ALPN.
    Http2,
    /// Not negotiated: HTTP/1.1, or HTTP/2 if `H2C` allows it and the first octets are its preface.
    Unsaid,
}
