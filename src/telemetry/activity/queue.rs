//! The way from the workers to the aggregator, and the exchanges in flight; a worker never waits.

use std::{
    collections::HashMap,
    mem::{self, size_of},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    background::{Buffer, Entrance},
    exchange::{Exchange, ExchangeStart, OtherModel, Progress, Try},
    telemetry::access_log::LineSender,
};

/// Upper bound of bytes of the events that wait. An event has about 1 KiB, one with an error's content up to
/// 51 KiB.
pub(super) const MOST_OCTETS: usize = 32 << 20;

/// Upper bound of exchanges on their way back: those of an interval.
const SPARE: usize = 512;

/// Handle of a worker; a clone of it is one for another worker. It never blocks: what does not fit is dropped
/// and counted.
#[derive(Clone)]
pub struct EventSender {
    pub(super) access_log: Option<LineSender>,
    /// The way to the dashboard and the API, if they read the activity.
    pub(super) activity: Option<ActivitySender>,
}

/// Way of one worker to the activity.
#[derive(Clone)]
pub(super) struct ActivitySender {
    pub(super) events: Entrance<WorkerEvents>,
    pub(super) numbers: Arc<Numbers>,
}

/// Numbers of exchanges, in the order in which they began.
#[derive(Default)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

/// State of one worker that telemetry reads: its exchanges in flight, and ends that wait.
#[derive(Default)]
pub(super) struct WorkerEvents {
    /// By their numbers.
    running: HashMap<u64, Arc<Progress>>,
    #[expect(
        clippy::vec_box,
        reason = "boxes go on to the list of those that ended"
    )]
    ended: Vec<Box<Exchange>>,
    octets: usize,
    /// Memory of exchanges that are no longer listed, on its way back: freed by another thread, it would cost
    /// both of them a lock of the allocator, and the worker its own cache.
    #[expect(clippy::vec_box, reason = "boxes go back to the worker")]
    spare: Vec<Box<Exchange>>,
}

impl EventSender {
    /// True if the dashboard or the API reads the activity; else only the access log is written.
    pub fn has_readers(&self) -> bool {
        self.activity.is_some()
    }

    /// Lists an exchange that begins, and gives it its number. Returns the memory of an earlier one, if there is
    /// some.
    pub fn begun(
        &self,
        begun: &mut ExchangeStart,
        progress: &Arc<Progress>,
    ) -> Option<Box<Exchange>> {
        let activity = self.activity.as_ref()?;
        begun.seq = activity.numbers.next();
        progress.begins(begun.clone());
        let running = Arc::clone(progress);
        activity.events.change(|events| {
            events.running.insert(begun.seq, running);
            events.spare.pop()
        })
    }

    /// Hands over an exchange that has ended.
    pub fn ended(&self, exchange: impl Into<Box<Exchange>>) {
        let exchange = exchange.into();
        if let Some(log) = &self.access_log {
            log.push(&exchange);
        }
        if let Some(activity) = &self.activity {
            let events = &activity.events;
            events.add(|events, most| events.end(exchange, most));
        }
    }
}

impl WorkerEvents {
    /// Moves an exchange from those in flight to the ends that wait. Returns false if there is no room.
    pub(super) fn end(&mut self, mut exchange: Box<Exchange>, most: usize) -> bool {
        self.running.remove(&exchange.begun.seq);
        if self.octets > most / 2 {
            exchange.error = None;
        }
        let octets = octets(&exchange);
        let fits = self.octets + octets <= most;
        if fits {
            self.octets += octets;
            self.ended.push(exchange);
        }
        fits
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<Progress>> {
        self.running.values()
    }

    /// Number of exchanges in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Takes the ends that wait; also gives the place for exchanges that are no longer listed.
    pub(super) fn take(
        &mut self,
    ) -> (
        impl Iterator<Item = Box<Exchange>>,
        impl FnMut(Box<Exchange>),
    ) {
        self.octets = 0;
        let spare = &mut self.spare;
        let give_back = |exchange| {
            if spare.len() < SPARE {
                spare.push(exchange);
            }
        };
        (self.ended.drain(..), give_back)
    }
}

impl Buffer for WorkerEvents {
    fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    fn reset(&mut self) {
        self.ended.clear();
        self.ended.shrink_to(1 << 12);
        self.octets = 0;
    }

    fn swap(&mut self, other: &mut Self) {
        mem::swap(&mut self.ended, &mut other.ended);
        mem::swap(&mut self.octets, &mut other.octets);
        // one that is idle needs none
        if !self.ended.is_empty() {
            mem::swap(&mut self.spare, &mut other.spare);
        }
    }
}

/// Size of an event in bytes.
fn octets(exchange: &Exchange) -> usize {
    let text = |text: Option<&str>| text.map_or(0, str::len);
    let boxed = |it: &Option<Box<str>>| text(it.as_deref());
    let begun = &exchange.begun;
    let of_usage = exchange.usage.as_ref().map_or(0, |it| {
        let others = it.others.iter();
        let others = others.map(|it| size_of::<OtherModel>() + it.model.len());
        let terms = &it.terms;
        boxed(&it.model)
            + boxed(&it.stop_reason)
            + boxed(&it.error_type)
            + boxed(&terms.inference_geo)
            + boxed(&terms.speed)
            + boxed(&terms.service_tier)
            + others.sum::<usize>()
    });
    let error = exchange.error.as_ref();
    size_of::<Exchange>()
        + begun.id.len()
        + begun.method.len()
        + begun.path.len()
        + text(begun.session.as_deref())
        + text(begun.user_agent.as_deref())
        + text(begun.agent.as_deref())
        + text(begun.parent_agent.as_deref())
        + text(exchange.upstream_request_id.as_deref())
        + of_usage
        + error.map_or(0, |error| error.octets.len() + error.secrets.bytes())
        + exchange.request_fields.len()
        + exchange.response_fields.len()
        + exchange.prompt.as_ref().map_or(0, |it| it.bytes())
        + exchange.tries.len() * size_of::<Try>()
}
