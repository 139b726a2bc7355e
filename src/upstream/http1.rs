//! One HTTP/1.1 exchange with the upstream, driven by the task that asked for it.
//!
//! Why not awc's own: docs/decisions/0004-awc-under-our-exchange.md. This one writes and reads at the
//! same time, so that an upload streams and an early answer is seen; passes over interim answers; takes
//! close-delimited bodies; tells a truncated body from a complete one; and knows whether a byte of the
//! request left, which decides whether it may be sent again. It spawns nothing and keeps no field map.
//!
//! It does not choose connections and does not know the meaning of fields beyond framing.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Instant,
};

use self::exchange::Http1Exchange;
use super::{
    exchange::{Failed, Patience, Response, is_repeatable},
    request::Request,
};
use crate::{
    error::{ProxyError, UpstreamError},
    wire::{body::Framing, pace::Pace},
};

mod connection;
mod exchange;
mod head;
mod pool;
mod response;
mod tunnel;

pub use self::{
    connection::Http1Connection,
    head::{ParsedHead, parse_head},
    pool::Http1Pool,
    response::Http1Body,
    tunnel::UpstreamTunnel,
};

/// Sends a request over a connection and waits for the response head.
///
/// # Errors
/// [`Failed::Unsent`] only if the connection was dead before anything was written to it; or if it was a
/// kept one that closed before any octet of an answer, and the request may be repeated.
pub async fn exchange(
    connection: Http1Connection,
    request: Request,
    pool: &Rc<Http1Pool>,
) -> Result<Response<Http1Body>, Failed> {
    // on the heap, since responses are moved about with it
    let mut exchange = Box::new(Http1Exchange::new(
        connection,
        &request.head,
        request.body,
        request.keep,
        request.edges.as_ref(),
    ));
    let mut parsed_to = 0;
    let mut patience = Patience::new(request.patience);
    let mut patience_timer = pin!(actix_rt::time::sleep_until(patience.deadline().into()));
    let outcome = poll_fn(|cx| {
        loop {
            if let Err(cause) = exchange.poll_upload(cx) {
                return Poll::Ready(Err(ProxyError::Downstream(cause)));
            }
            patience.progress(exchange.sent);
            match exchange.parse(&request.method, &mut parsed_to) {
                Ok(Some(found)) => return Poll::Ready(Ok(found)),
                // the upstream said `100 Continue`: the body may be polled now
                Ok(None) if std::mem::take(&mut exchange.goes_on) => continue,
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Err(cause.into())),
            }
            let cause = match exchange.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {
                    exchange.is_heard = true;
                    continue;
                }
                Poll::Ready(Ok(0)) => exchange.write_error.take(),
                Poll::Ready(Err(cause)) => Some(cause),
                Poll::Pending if patience_timer.as_mut().poll(cx).is_ready() => {
                    if patience.deadline() > Instant::now() {
                        patience_timer.as_mut().reset(patience.deadline().into());
                        continue;
                    }
                    return Poll::Ready(Err(UpstreamError::HttpResponseTimeout.into()));
                }
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(Err(UpstreamError::ConnectionTerminated(cause).into()));
        }
    })
    .await;
    match outcome {
        Ok(found) => Ok(respond(exchange, found, pool)),
        Err(ProxyError::Upstream(cause @ UpstreamError::ConnectionTerminated(_))) => {
            let may_repeat =
                exchange.connection.is_kept && !exchange.is_heard && is_repeatable(&request.method);
            let Some((body, keep)) = exchange.upload.unsent(may_repeat) else {
                return Err(Failed::Sent(cause.into()));
            };
            let request = Request {
                body,
                keep,
                ..request
            };
            Err(Failed::Unsent(Box::new(request), cause))
        }
        Err(cause) => Err(Failed::Sent(cause)),
    }
}

/// The response with this head. The rest of the exchange becomes its body.
fn respond(
    mut exchange: Box<Http1Exchange>,
    found: ParsedHead,
    pool: &Rc<Http1Pool>,
) -> Response<Http1Body> {
    // the response may stand unpolled while another upstream is asked: it waits for no turn then
    exchange.pace = Pace::default();
    let ParsedHead {
        head,
        mut framing,
        mut reusable,
    } = found;
    let is_sent = exchange.upload_is_done();
    let replay = exchange.upload.answered(&head, is_sent);
    if head.status == 101 {
        (framing, reusable) = (Framing::UntilClose, false);
    }
    let body = Http1Body::new(exchange, framing, reusable, pool);
    Response {
        head,
        framing,
        body,
        replay,
        connect_info: None,
    }
}
