//! Holding a request body until its end is seen, and editing it (contract §3).
//!
//! Bounded twice: one body by `MAX_EDIT_BODY`, all of them by `EDIT_MEMORY`. A body that turns out
//! larger than the first streams on as it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::dev::Payload;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{Plan, Worker, field, watch::Looking};
use crate::{
    config::{Edit, Live},
    error::{DeniedError, DownstreamError, ProxyError},
    framing::{body::Framing, head::RequestHead},
    messages::{Hold, usage::Look},
    upstream::http1::{Body, Coding, Continue, Held},
};

/// How long a body waits for its share of `EDIT_MEMORY` (contract §8).
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);
/// Memory is counted in KiB, so that 32 bits of permits are 4 TiB.
const UNIT: u64 = 1024;
/// What a body of unknown length takes at a time.
const STEP: u64 = 256 * 1024;

/// Holds the body, edits it, and says how to send it. What is asked for in it is told to who looks.
pub(super) async fn edit(
    head: &RequestHead,
    mut payload: Payload,
    edit: &Edit,
    worker: &Worker,
    live: &Live,
    look: Option<Looking>,
    is_watched: bool,
) -> Result<Plan, ProxyError> {
    let mut share = Share::new(&worker.edit_memory);
    // a declared length is reserved whole: bodies that wait for each other's second half would all
    // wait in vain
    if let Framing::Length(length) = head.framing {
        share.grow_to(length).await?;
    }
    head.notes.is_held.set(true);
    let mut hold = Hold::new(edit.mode, edit.target);
    while let Some(content) = payload.next().await {
        let content = content.map_err(|cause| DownstreamError::of(&cause))?;
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
            let plan = Plan::streamed(head, first, payload, Continue::NotExpected);
            return Ok(Plan {
                edit: Some("too_large"),
                memory: share.permit,
                complete_at,
                ..plan
            });
        }
        share.grow_to(length).await?;
        hold.push(content);
    }
    let complete_at = is_watched.then(Instant::now);
    tell(look.as_ref(), &hold);
    let held = hold.len();
    let (body, outcome) = hold.finish(&edit.replacement);
    if live.debug {
        log::debug!(
            "[System Replacement] {} held={held} {outcome:?}",
            outcome.label()
        );
    }
    let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
    let (framing, coding) = match head.framing {
        Framing::Length(_) | Framing::None => (field::Length::Exactly(length), Coding::Length),
        Framing::Chunked | Framing::UntilClose => (field::Length::Chunked, Coding::Chunked),
    };
    let expect = field::Expect::Answered;
    let held = Held {
        content: body,
        coding,
        trailers: head.notes.trailers.take(),
    };
    Ok(Plan {
        body: Body::Held(held),
        framing,
        expect,
        memory: share.permit,
        edit: Some(outcome.label()),
        complete_at,
        tunnel: None,
    })
}

/// What the body says of itself, for who looks.
fn tell(look: Option<&Looking>, hold: &Hold) {
    if let Some(look) = look {
        look.replace(Look::known(hold.asked()));
    }
}

/// One body's part of the memory for held bodies.
struct Share {
    all: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    octets: u64,
}

impl Share {
    fn new(all: &Arc<Semaphore>) -> Self {
        Self {
            all: Arc::clone(all),
            permit: None,
            octets: 0,
        }
    }

    /// Makes room for so many octets in all; waits its turn for a while.
    async fn grow_to(&mut self, octets: u64) -> Result<(), DeniedError> {
        if octets <= self.octets {
            return Ok(());
        }
        // the first step is what is known; later ones are larger, so that they are few
        let wanted = if self.permit.is_none() {
            octets
        } else {
            octets.max(self.octets + STEP)
        };
        let units = (wanted - self.octets).div_ceil(UNIT);
        let units = u32::try_from(units).map_err(|_| DeniedError::EditMemory)?;
        let permit = match Arc::clone(&self.all).try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(DeniedError::EditMemory),
            Err(TryAcquireError::NoPermits) => {
                let turn = Arc::clone(&self.all).acquire_many_owned(units);
                let permit = actix_rt::time::timeout(MEMORY_PATIENCE, turn).await;
                permit
                    .ok()
                    .and_then(Result::ok)
                    .ok_or(DeniedError::EditMemory)?
            }
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.octets += u64::from(units) * UNIT;
        Ok(())
    }
}
