//! End of an HTTP/1.1 connection: refusal of a request, and the orderly close.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Instant};

use actix_http::{Request, body::BoxBody};
use actix_service::Service;
use actix_web::{dev::ServiceResponse, http::Method};

use super::{
    connection::{ConnectionAbort, Http1ServerConnection},
    response::{self, Delimiter},
};
use crate::{
    downstream::{
        limits::{LINGER, LINGER_OCTETS},
        peer::Peer,
    },
    error::Answer,
    wire::{head::Version, refused_request::RefusedRequest},
};

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Answers a request before it reaches the handler, and closes the connection.
    pub(super) async fn refuse(
        &mut self,
        answer: Answer,
        method: Option<&Method>,
    ) -> Result<(), ConnectionAbort> {
        let request_id = (self.services.request_id)();
        log::info!(
            "[Proxy] refused status={} error={} request_id={request_id}",
            answer.status.as_u16(),
            answer.label
        );
        let refused = RefusedRequest {
            id: &request_id,
            version: Version::Http11,
            method: method.map_or("", Method::as_str),
            answer: &answer,
        };
        (self.services.refused)(self.arrival.peer.map(|peer| peer.ip()), &refused);
        // of what could not be read, any method but HEAD will do
        let method = method.unwrap_or(&Method::GET);
        self.outbox
            .push(response::refusal(&answer, &request_id, method));
        self.content(BoxBody::new(()), Delimiter::Nothing, None)
            .await?;
        self.linger().await
    }

    /// Closes so that the client receives what was written (RFC 9112 §9.6): shuts down the sending
    /// side and discards what the client still sends for up to [`LINGER`].
    pub(super) async fn linger(&mut self) -> Result<(), ConnectionAbort> {
        let deadline = Instant::now() + LINGER;
        let mut thrown_away = 0;
        self.entry.set_idle(true);
        poll_fn(|cx| {
            if self.entry.poll_evicted(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut wire = self.wire.borrow_mut();
            match Pin::new(&mut wire.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ConnectionAbort::Client)),
                // under TLS: `close_notify` waits for a client that does not read
                Poll::Pending => return self.timer.poll(cx, deadline).map(|()| Ok(())),
            }
            loop {
                wire.read.octets.clear();
                match wire.poll_read(cx) {
                    Poll::Ready(Ok(count @ 1..)) if thrown_away < LINGER_OCTETS => {
                        thrown_away += count;
                    }
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => return self.timer.poll(cx, deadline).map(|()| Ok(())),
                }
            }
        })
        .await
    }
}
