//! Wait for the next request head, and its timers.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Instant,
};

use actix_http::{Request, body::BoxBody};
use actix_service::Service;
use actix_web::dev::ServiceResponse;

use super::{
    connection::Http1ServerConnection,
    io::poll_readable,
    request::{self, ParsedRequest},
};
use crate::{
    downstream::{
        client_connection::Protocol,
        peer::Peer,
        preface::{Preface, preface},
    },
    drain::DrainPhase,
    error::DownstreamError,
};

/// Event that the wait for a request head started from.
#[derive(Debug, Clone, Copy)]
pub(super) enum HeadWait {
    /// The start of the connection.
    First(Instant),
    /// A response.
    Next(Instant),
}

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Waits for the next request head; `None` if the connection ends without one.
    pub(super) async fn head(
        &mut self,
        waits: HeadWait,
    ) -> Result<Option<ParsedRequest>, DownstreamError> {
        self.follow_timers();
        let mut began = match waits {
            HeadWait::First(at) => Some(at),
            HeadWait::Next(_) => None,
        };
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            loop {
                if self.arrival.protocol == Protocol::Unsaid {
                    self.arrival.protocol = match preface(&wire.read.octets) {
                        Preface::Whole => Protocol::Http2,
                        Preface::Begun => Protocol::Unsaid,
                        Preface::Other => Protocol::Http1,
                    };
                }
                match self.arrival.protocol {
                    Protocol::Http2 => return Poll::Ready(Ok(None)),
                    // it is neither yet
                    Protocol::Unsaid => {}
                    Protocol::Http1 => {
                        if request::skip_empty_lines(&mut wire.read.octets) {
                            self.searched = 0;
                        }
                        let parsed =
                            request::parse_request_head(&mut wire.read.octets, &mut self.searched)?;
                        if let Some(parsed) = parsed {
                            return Poll::Ready(Ok(Some(parsed)));
                        }
                    }
                }
                match poll_readable(cx, &mut wire) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {}
                }
                if self.entry.poll_evicted(cx).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                let is_idle = !request::is_begun(&wire.read.octets);
                let drain = &self.services.drain;
                if drain.phase() == DrainPhase::Cut {
                    return Poll::Ready(Ok(None));
                }
                let head = self.timers.request_head;
                let (deadline, late) = match (waits, is_idle) {
                    (HeadWait::Next(_), true) if drain.phase() >= DrainPhase::Draining => {
                        return Poll::Ready(Ok(None));
                    }
                    (HeadWait::Next(since), true) => {
                        wire.read.shrink();
                        (since + self.timers.keep_alive, Ok(None))
                    }
                    // the drain does not wait for those that have nothing to say
                    (HeadWait::First(since), true) => match drain.first_head_until(since) {
                        Some(until) => (until.min(since + head), Ok(None)),
                        None => (since + head, Err(DownstreamError::HeadTimeout)),
                    },
                    (_, false) => {
                        let began = *began.get_or_insert_with(Instant::now);
                        (began + head, Err(DownstreamError::HeadTimeout))
                    }
                };
                ready!(self.timer.poll(cx, deadline));
                return Poll::Ready(late);
            }
        })
        .await
    }
}
