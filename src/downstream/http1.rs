//! Loop of one HTTP/1.1 connection: request head, handler, response, and again.
//!
//! One task, no channels: the handler, the upload that it reads and the response that it writes are
//! polled in turn. The client is watched all the while; when it disconnects, the future is dropped
//! and everything ends with it.

mod body;
mod close;
mod connection;
mod content;
mod exchange;
mod head;
mod io;
mod request;
mod response;
mod tunnel;

use std::{future::poll_fn, task::Poll, time::Instant};

use actix_http::{Request, body::BoxBody};
use actix_service::Service;
use actix_web::dev::ServiceResponse;

use self::{connection::ConnectionAbort, head::HeadWait};
use super::peer::Peer;
use crate::error::DeniedError;

pub(super) use self::connection::Http1ServerConnection;
pub use self::request::{KeepAlive, ParsedRequest, parse_request_head};

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    pub(super) async fn run(&mut self) -> Result<(), ConnectionAbort> {
        poll_fn(|cx| {
            self.ticket = Some(self.services.drain.enlist(cx.waker().clone()));
            Poll::Ready(())
        })
        .await;
        let mut waits = HeadWait::First(Instant::now());
        loop {
            let mut parsed = match self.head(waits).await {
                Ok(Some(parsed)) => parsed,
                Ok(None) => {
                    self.wire.borrow_mut().stream.close();
                    return Ok(());
                }
                Err(cause) => return self.refuse(cause.answer(), None).await,
            };
            self.entry.set_idle(false);
            // the wait for the head may have been long
            self.follow_timers();
            let is_local = (self.services.is_local)(parsed.head.path());
            let has_slot = self.entry.take_slot(&self.services);
            if !has_slot && !is_local {
                let answer = DeniedError::TooManyConnections.answer();
                return self.refuse(answer, Some(&parsed.head.method)).await;
            }
            if self.services.drain.phase().ends_connections() || !has_slot {
                parsed.keep_alive = KeepAlive::No;
            }
            let keep_alive = self.exchange(parsed, is_local).await?;
            if keep_alive == KeepAlive::No {
                return self.linger().await;
            }
            waits = HeadWait::Next(Instant::now());
        }
    }
}
