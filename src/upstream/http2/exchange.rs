//! One exchange over a stream, driven by the request's task: the upload, and the wait for the
//! response head.
//!
//! It knows whether a failed request may be sent again. It does not choose connections.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};

use super::{
    connection::StreamPermit, errors::terse, head, response::Http2Body, upload::Http2Upload,
};
use crate::{
    config::Upstream,
    error::{DownstreamError, ProxyError, UpstreamError},
    upstream::{
        exchange::{Failed, Patience, Response, is_repeatable},
        request::Request,
    },
    wire::body::Framing,
};

/// Failures before the response head.
enum ExchangeFault {
    /// The stream or its connection failed.
    Stream(h2::Error),
    /// Anything else.
    Other(ProxyError),
}

/// Sends a request over a new stream and waits for the response head.
///
/// # Errors
/// [`Failed::Unsent`] if the request was provably not processed: nothing was written since it was
/// given to the connection, or the peer refused its stream, or went away before it (RFC 9113 §8.7 and
/// §6.8). Also, if it may be repeated, for a GET or HEAD without content whose connection was lost
/// before anything more came from it (RFC 9110 §9.2.2).
pub(crate) async fn exchange(
    (mut send, claim): (SendRequest<Bytes>, StreamPermit),
    request: Request,
    upstream: &Upstream,
    may_repeat: bool,
) -> Result<Response<Http2Body>, Failed> {
    let Ok(head) = head::request(&request.head, upstream) else {
        return Err(Failed::Sent(DownstreamError::UnsupportedTarget.into()));
    };
    let (written, heard) = (claim.written(), claim.heard());
    let is_empty = Http2Upload::is_nothing(&request.body);
    let (mut response, stream) = match send.send_request(head, is_empty) {
        Ok(opened) => opened,
        Err(cause) => {
            claim.exhausted();
            return Err(Failed::Unsent(Box::new(request), failed(cause)));
        }
    };
    drop(send);
    let id = response.stream_id().as_u32();
    let Request {
        head,
        method,
        body,
        patience,
        keep,
        is_watched,
        edges,
    } = request;
    let mut upload = Http2Upload::new(stream, body, keep, edges.as_deref());
    let fault = match answer(&mut response, &mut upload, Patience::new(patience)).await {
        Ok(answer) => {
            let (parts, receive) = answer.into_parts();
            let (head, framing) = head::response(&parts, &method, receive.is_end_stream())
                .map_err(|cause| Failed::Sent(cause.into()))?;
            let replay = upload.answered(&head);
            if let Some(edges) = &edges {
                edges.received.begin(framing, 0);
            }
            let body = match framing {
                Framing::None | Framing::Length(0) => {
                    if !receive.is_end_stream() && upload.is_over() {
                        actix_rt::spawn(let_end(receive, claim));
                    }
                    Http2Body::ended(edges)
                }
                _ => Http2Body::new(receive, upload, claim, edges),
            };
            return Ok(Response {
                head,
                framing,
                body,
                replay,
                connect_info: None,
            });
        }
        Err(ExchangeFault::Other(cause)) => {
            let is_late = matches!(
                cause,
                ProxyError::Upstream(UpstreamError::HttpResponseTimeout)
            );
            // not a word, of any stream: who answers here is as good as dead
            if is_late && claim.heard() == heard {
                claim.exhausted();
            }
            return Err(Failed::Sent(cause));
        }
        Err(ExchangeFault::Stream(fault)) => fault,
    };
    let is_refused =
        fault.is_reset() && fault.is_remote() && fault.reason() == Some(Reason::REFUSED_STREAM);
    if is_refused {
        claim.refused();
    }
    let is_lost = !fault.is_reset() && claim.heard() == heard;
    let is_repeatable = may_repeat && is_lost && is_empty && is_repeatable(&method);
    let is_unprocessed =
        is_refused || is_repeatable || claim.was_left_behind(id) || claim.written() == written;
    let cause = failed(fault);
    match upload.upload.unsent(false) {
        Some((body, keep)) if is_unprocessed => {
            let request = Request {
                head,
                method,
                body,
                patience,
                keep,
                is_watched,
                edges,
            };
            Err(Failed::Unsent(Box::new(request), cause))
        }
        _ => Err(Failed::Sent(cause.into())),
    }
}

/// Both directions at once, until the final response head. Interim ones are passed over (RFC 9110
/// §15.2).
async fn answer(
    response: &mut ResponseFuture,
    upload: &mut Http2Upload,
    mut patience: Patience,
) -> Result<http::Response<h2::RecvStream>, ExchangeFault> {
    let mut interims = 0;
    let mut timer = pin!(actix_rt::time::sleep_until(patience.deadline().into()));
    poll_fn(|cx| {
        loop {
            if let Err(cause) = upload.poll(cx) {
                return Poll::Ready(Err(ExchangeFault::Other(cause.into())));
            }
            patience.progress(upload.sent());
            match response.poll_informational(cx) {
                Poll::Ready(Some(Ok(interim))) => {
                    interims += 1;
                    match interim.status().as_u16() {
                        // RFC 9113 §8.6: not in this version
                        101 => return refused(UpstreamError::HttpUpgradeFailed),
                        100 => _ = upload.upload.go_on(),
                        _ => {}
                    }
                    if interims > MAX_INTERIMS {
                        return refused(UpstreamError::HttpProtocolError);
                    }
                    continue;
                }
                Poll::Ready(Some(Err(cause))) => {
                    return Poll::Ready(Err(ExchangeFault::Stream(cause)));
                }
                Poll::Ready(None) => {
                    if let Poll::Ready(outcome) = Pin::new(&mut *response).poll(cx) {
                        return Poll::Ready(outcome.map_err(ExchangeFault::Stream));
                    }
                }
                Poll::Pending => {}
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if patience.deadline() <= Instant::now() {
                return refused(UpstreamError::HttpResponseTimeout);
            }
            timer.as_mut().reset(patience.deadline().into());
        }
    })
    .await
}

/// Waits for the end of a stream that has no content and was not ended by its head. Many servers end it
/// with a frame of its own, and count a reset that comes in between as abuse.
async fn let_end(mut receive: h2::RecvStream, claim: StreamPermit) {
    let end = poll_fn(|cx| receive.poll_data(cx));
    let _ = tokio::time::timeout(END_PATIENCE, end).await;
    drop(receive);
    drop(claim);
}

fn refused<T>(cause: UpstreamError) -> Poll<Result<T, ExchangeFault>> {
    Poll::Ready(Err(ExchangeFault::Other(cause.into())))
}

/// The failure of a stream as an error of the upstream.
fn failed(cause: h2::Error) -> UpstreamError {
    match cause.reason() {
        // h2 found the fault, and it is the peer's
        Some(Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR | Reason::COMPRESSION_ERROR)
            if cause.is_library() =>
        {
            UpstreamError::HttpProtocolError
        }
        _ => UpstreamError::ConnectionTerminated(Some(terse(cause))),
    }
}

/// A frame that follows its head at once comes with it.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Interim responses before the final one. A server sends one or two.
const MAX_INTERIMS: usize = 100;
