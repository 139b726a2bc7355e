//! HTTP towards the client: one connection, from its first octet to its last.
//!
//! This room stands between actix-server, which accepts connections and hands them to workers, and
//! the actix-web `App`, whose default service is the proxy. It replaces the connection loop of
//! actix-http; docs/decisions/0001-own-connection-loop.md gives the reasons. `http1` implements RFC
//! 9112; `http2` implements RFC 9113 on the h2 crate, which reads and writes the frames.
//!
//! It decides where messages begin and end, how long the proxy waits for a silent client, and when
//! a connection has served its last request. It does not interpret requests.

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
