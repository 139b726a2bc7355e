//! Choice of the HTTP version of a connection: by ALPN, else by its first octets.

use std::rc::Rc;

use actix_http::{Request, body::BoxBody};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use bytes::Bytes;

use super::{
    client_connection::{ClientConnection, Protocol},
    http1::Http1ServerConnection,
    http2,
    peer::Peer,
    permit::ConnectionPermit,
    service::Services,
};

/// Serves a connection until it ends.
pub async fn serve<S, A>(
    stream: S,
    mut arrival: ClientConnection,
    services: Rc<Services<A>>,
    entry: ConnectionPermit,
) where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
{
    let (timers, h2c) = {
        let live = services.live.load();
        (live.timers, live.h2c)
    };
    match arrival.protocol {
        Protocol::Http2 => {
            // boxed here and below: it is larger than all that HTTP/1.1 needs
            let octets = Bytes::new();
            return Box::pin(http2::serve(stream, octets, arrival, services, entry)).await;
        }
        Protocol::Unsaid if h2c => {}
        Protocol::Unsaid | Protocol::Http1 => arrival.protocol = Protocol::Http1,
    }
    let mut connection =
        Http1ServerConnection::new(stream, arrival, Rc::clone(&services), entry, timers);
    // the client, or the exchange that was dropped, knows how it ended
    let _ = connection.run().await;
    if let Some((stream, octets, entry)) = connection.into_http2() {
        arrival.protocol = Protocol::Http2;
        Box::pin(http2::serve(stream, octets, arrival, services, entry)).await;
    }
}
