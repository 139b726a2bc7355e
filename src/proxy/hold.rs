//! Holding a request body until its end is seen, and editing it (docs/contract.md §3.6).
//!
//! Bounded three times: one body by `MAX_EDIT_BODY`, all of them by `EDIT_MEMORY` ([`super::edit_memory`]), and its
//! arrival by a deadline that grows with it ([`deadline`]). A body that turns out larger than the first
//! streams on as it is.

use std::time::Instant;

use actix_web::dev::Payload;

use super::{
    body_watch::SharedWatch, field, inspection::SharedInspector, plan::Plan, worker::Worker,
};
use crate::{
    config::{Edit, Live},
    edit::BodyBuffer,
    error::ProxyError,
    label::Label,
    metering::RequestInspector,
    upstream::request::{Body, BodyCoding, BufferedBody, Continue},
    wire::{body::Framing, head::RequestHead},
};

mod deadline;

pub(super) use self::deadline::BodyDeadline;

/// Others that a body concerns while it is held.
pub(super) struct Told {
    /// Telemetry, which gets the request's details.
    pub(super) look: Option<SharedInspector>,
    /// The watch over its models, which scans the body for the edit as well: once is enough.
    pub(super) watch: Option<SharedWatch>,
    /// True if the time is of interest at which the body was complete.
    pub(super) is_watched: bool,
}

/// Buffers the body, edits it, and plans how to send it.
pub(super) async fn edit(
    head: &RequestHead,
    mut payload: Payload,
    edit: &Edit,
    worker: &Worker,
    live: &Live,
    told: Told,
) -> Result<Plan, ProxyError> {
    let mut share = worker.edit_memory.share(head.framing, edit.max_body);
    let mut arrival = BodyDeadline::new(live.timers.request_body);
    head.notes.is_held.set(true);
    let mut hold = match told.watch {
        None => BodyBuffer::new(edit.mode, edit.target),
        Some(_) => BodyBuffer::unscanned(edit.mode, edit.target),
    };
    while let Some(content) = arrival.next(&mut payload).await {
        let content = content?;
        let length = hold.len() + content.len() as u64;
        if length > edit.max_body {
            head.notes.is_held.set(false);
            let complete_at = told.is_watched.then(Instant::now);
            told.tell(&hold);
            let mut first = hold.release();
            first.push(content);
            if live.debug {
                log::debug!("[System Replacement] unchanged reason=too_large held={length}");
            }
            // the rest may take hours: each piece pays until it has left
            let first = share.tied_to(first);
            let plan = Plan::streamed(head, first, payload, Continue::NotExpected);
            return Ok(Plan {
                edit: Some(Label::TooLarge),
                complete_at,
                ..plan
            });
        }
        arrival.pause(share.grow_to(length).await?);
        hold.push(content);
    }
    share.complete();
    let complete_at = told.is_watched.then(Instant::now);
    told.tell(&hold);
    if let Some(watch) = &told.watch {
        hold.scanned(watch.borrow_mut().take_scan());
    }
    let held = hold.len();
    let (body, outcome) = match head.notes.verification.get() {
        None => hold.finish(&edit.replacement),
        Some(verification) => {
            let (body, outcome, before) = hold.finish_both(&edit.replacement);
            if let Some(span) = outcome.span() {
                let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
                let inserted = length + (span.end - span.start) - held;
                verification.edits(&before, span, inserted);
            }
            (body, outcome)
        }
    };
    if live.debug {
        log::debug!(
            "[System Replacement] {} held={held} {outcome:?}",
            outcome.label()
        );
    }
    let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
    let (framing, coding) = match head.framing {
        Framing::Length(_) | Framing::None => {
            (field::OutgoingFraming::Exactly(length), BodyCoding::Length)
        }
        Framing::Chunked | Framing::UntilClose => {
            (field::OutgoingFraming::Chunked, BodyCoding::Chunked)
        }
    };
    let expect = field::ExpectHandling::Answered;
    let held = BufferedBody {
        content: body,
        coding,
        trailers: head.notes.trailers.take(),
    };
    Ok(Plan {
        body: Body::Held(held),
        framing,
        expect,
        memory: Some(share),
        edit: Some(outcome.label()),
        complete_at,
        tunnel: None,
    })
}

impl Told {
    /// Passes the body's details to telemetry.
    fn tell(&self, hold: &BodyBuffer) {
        let Some(look) = &self.look else {
            return;
        };
        let scanned = || self.watch.as_ref()?.borrow().asked();
        if let Some(asked) = hold.asked().or_else(scanned) {
            look.replace(RequestInspector::known(asked));
        }
    }
}
