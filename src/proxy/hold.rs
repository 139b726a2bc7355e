//! Holding a request body until its end is seen, and editing it (docs/contract.md §3.6).
//!
//! Bounded three times: one body by `MAX_EDIT_BODY`, all of them by `EDIT_MEMORY` ([`super::edit_memory`]), and its
//! arrival by a deadline that grows with it ([`deadline`]). A body that turns out larger than the first
//! streams on as it is.

use std::time::Instant;

use actix_web::dev::Payload;

use super::{field, inspection::SharedInspector, plan::Plan, worker::Worker};
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

/// Buffers the body, edits it, and plans how to send it. Telemetry gets the request's details.
pub(super) async fn edit(
    head: &RequestHead,
    mut payload: Payload,
    edit: &Edit,
    worker: &Worker,
    live: &Live,
    look: Option<SharedInspector>,
    is_watched: bool,
) -> Result<Plan, ProxyError> {
    let mut share = worker.edit_memory.share(head.framing, edit.max_body);
    let mut arrival = BodyDeadline::new(live.timers.request_body);
    head.notes.is_held.set(true);
    let mut hold = BodyBuffer::new(edit.mode, edit.target);
    while let Some(content) = arrival.next(&mut payload).await {
        let content = content?;
        let length = hold.len() + content.len() as u64;
        if length > edit.max_body {
            head.notes.is_held.set(false);
            let complete_at = is_watched.then(Instant::now);
            tell(look.as_ref(), &hold);
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
    let complete_at = is_watched.then(Instant::now);
    tell(look.as_ref(), &hold);
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

/// Passes the body's details to telemetry.
fn tell(look: Option<&SharedInspector>, hold: &BodyBuffer) {
    if let Some(look) = look {
        look.replace(RequestInspector::known(hold.asked()));
    }
}
