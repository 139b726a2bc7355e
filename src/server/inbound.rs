//! From an accepted socket to a connection that is served: its options, and under TLS the handshake.
//!
//! A connection shakes hands in its own task, with the certificate of that moment. Until then it has
//! a seat like any other, no more time than a request head has, and ends with the drain. Beyond the
//! limit of connections a few handshakes are still made, since only under TLS can a client be told
//! 503, and a health check be answered; whoever comes beyond those, too, is closed without a word,
//! so that a flood of half handshakes costs no more memory than so many.

use std::{io, rc::Rc};

use actix_http::Request;
use actix_rt::net::TcpStream;
use actix_service::Service;
use actix_web::{body::BoxBody, dev::ServiceResponse};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    downstream::{self, Arrival, Protocol, Services},
    framing::head::Transport,
    gate::{Admission, Phase},
};

/// Connections over TLS beyond the limit, at a time.
const SPARES: usize = 64;
/// Octets that rustls may hold of what a slow reader does not take: one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// A kind of connection.
pub(super) trait Inbound: 'static {
    /// What actix-server hands out.
    type Stream: 'static;

    /// Serves one until it ends.
    async fn serve<A>(stream: Self::Stream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static;
}

/// TCP in clear.
pub(super) struct Plain;

impl Inbound for Plain {
    type Stream = TcpStream;

    async fn serve<A>(stream: TcpStream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let Ok(peer) = stream.peer_addr() else {
            return; // reset already
        };
        let arrival = Arrival {
            peer: Some(peer),
            transport: Transport::Clear,
            protocol: Protocol::Unsaid,
        };
        set_options(&stream);
        downstream::serve(stream, arrival, services).await;
    }
}

/// TLS over TCP.
pub(super) struct Tls;

impl Inbound for Tls {
    type Stream = TcpStream;

    async fn serve<A>(stream: TcpStream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let Ok(peer) = stream.peer_addr() else {
            return; // reset already
        };
        set_options(&stream);
        let Some((stream, _spare)) = handshake(stream, &services).await else {
            return;
        };
        let arrival = Arrival {
            peer: Some(peer),
            transport: Transport::Tls,
            protocol: match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
        };
        downstream::serve(stream, arrival, services).await;
    }
}

/// A Unix socket.
#[cfg(unix)]
pub(super) struct Unix;

#[cfg(unix)]
impl Inbound for Unix {
    type Stream = actix_rt::net::UnixStream;

    async fn serve<A>(stream: Self::Stream, services: Rc<Services<A>>)
    where
        A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
    {
        let arrival = Arrival {
            peer: None,
            transport: Transport::Clear,
            protocol: Protocol::Unsaid,
        };
        downstream::serve(stream, arrival, services).await;
    }
}

fn set_options(stream: &TcpStream) {
    // small writes must not wait for each other; without it, it only is slower
    let _ = stream.set_nodelay(true);
}

/// The connection under TLS, and its place beyond the limit if it has no seat; none if it is to end.
async fn handshake<A>(
    tcp: TcpStream,
    services: &Services<A>,
) -> Option<(TlsStream<TcpStream>, Option<Admission>)> {
    // both count for the handshake only: what comes after it counts for itself
    let _open = services.gate.connection();
    let seat = services.gate.seat(services.max_connections);
    let spare = match &seat {
        Some(_) => None,
        None => Some(services.gate.spare(SPARES)?),
    };
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
        () = services.drain.reached(Phase::Draining) => return None,
    };
    match accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Some((stream, spare)),
        Err(cause) => {
            // whoever scans ports can cause it: no business of an operator
            log::debug!("[Proxy] no TLS handshake: {cause}");
            None
        }
    }
}
