//! From an accepted socket to a connection that is served: its options, and under TLS the handshake.
//!
//! A connection shakes hands in its own task, with the certificate of that moment, and has no more time
//! for it than a request head has, or than a drain leaves to a first head. Beyond the limit of
//! connections it needs a permit already for the handshake, which it may lose to a newcomer: a flood of
//! half handshakes costs no more memory than there are permits.

use std::{io, rc::Rc, time::Instant};

use actix_http::Request;
use actix_rt::net::TcpStream;
use actix_service::Service;
use actix_web::{body::BoxBody, dev::ServiceResponse};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    downstream::{self, ClientConnection, ConnectionPermit, Protocol, Services},
    wire::head::Transport,
};

/// Octets that rustls may hold of what a slow reader does not take: one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// A kind of connection.
pub(super) trait InboundProtocol: 'static {
    /// Stream type that actix-server hands out.
    type Stream: 'static;

    /// A connection costs the memory of a TLS session before its first request.
    const IS_COSTLY: bool = false;

    /// Serves one until it ends.
    async fn serve<A>(stream: Self::Stream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static;
}

/// TCP in clear.
pub(super) struct PlainTcp;

impl InboundProtocol for PlainTcp {
    type Stream = TcpStream;

    async fn serve<A>(stream: TcpStream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let (Some(entry), Ok(peer)) = (services.admit(), stream.peer_addr()) else {
            return; // one too many, or reset already
        };
        let arrival = ClientConnection {
            peer: Some(peer),
            transport: Transport::Clear,
            protocol: Protocol::Unsaid,
        };
        set_options(&stream);
        downstream::serve(stream, arrival, services, entry).await;
    }
}

/// TLS over TCP.
pub(super) struct TlsTcp;

impl InboundProtocol for TlsTcp {
    type Stream = TcpStream;

    const IS_COSTLY: bool = true;

    async fn serve<A>(stream: TcpStream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let (Some(entry), Ok(peer)) = (services.admit(), stream.peer_addr()) else {
            return; // one too many, or reset already
        };
        set_options(&stream);
        let Some(stream) = handshake(stream, &services, &entry).await else {
            return;
        };
        let arrival = ClientConnection {
            peer: Some(peer),
            transport: Transport::Tls,
            protocol: match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
        };
        downstream::serve(stream, arrival, services, entry).await;
    }
}

/// A Unix socket.
#[cfg(unix)]
pub(super) struct UnixDomain;

#[cfg(unix)]
impl InboundProtocol for UnixDomain {
    type Stream = actix_rt::net::UnixStream;

    async fn serve<A>(stream: Self::Stream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let Some(entry) = services.admit() else {
            return; // one too many
        };
        let arrival = ClientConnection {
            peer: None,
            transport: Transport::Clear,
            protocol: Protocol::Unsaid,
        };
        downstream::serve(stream, arrival, services, entry).await;
    }
}

fn set_options(stream: &TcpStream) {
    // small writes must not wait for each other; without it, it only is slower
    let _ = stream.set_nodelay(true);
}

/// The connection under TLS; none if it is to end.
async fn handshake<A>(
    tcp: TcpStream,
    services: &Services<A>,
    entry: &ConnectionPermit,
) -> Option<TlsStream<TcpStream>> {
    let began = Instant::now();
    let (config, limit) = {
        let live = services.live.load();
        (
            live.tls.as_ref()?.server().clone(),
            live.timers.request_head,
        )
    };
    // boxed, since it is large and soon over
    let accept = Box::pin(
        TlsAcceptor::from(config)
            .accept_with(tcp, |session| session.set_buffer_limit(Some(RECORD))),
    );
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limit, accept) => accepted,
        () = services.drain.first_head_over(began) => return None,
        () = entry.evicted() => return None,
    };
    match accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Some(stream),
        Err(cause) => {
            // a port scan can cause it, so it is no warning
            log::debug!("[Proxy] no TLS handshake: {cause}");
            None
        }
    }
}
