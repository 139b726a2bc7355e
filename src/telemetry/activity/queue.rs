//! The bounded queue from the workers to the aggregator; a worker never waits for it.

use std::{
    mem::size_of,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Thread,
};

use crate::exchange::{Exchange, ExchangeResponse, ExchangeStart, OtherModel, Progress, Try};

/// Upper bound of bytes of the events that wait. An event has about 1 KiB, one with an error's content up to
/// 51 KiB.
const MOST_OCTETS: usize = 32 << 20;

/// Handle of a worker: cheap to clone, never blocks. Events that do not fit into the queue are dropped and
/// counted.
#[derive(Clone)]
pub struct EventSender {
    sender: SyncSender<Event>,
    counts: Arc<QueueCounts>,
    has_readers: bool,
}

/// An event of an exchange. Boxed, since the queue allocates all of its slots at once.
pub(super) enum Event {
    Begun(Box<ExchangeStart>, Arc<Progress>),
    Answered(Box<ExchangeResponse>),
    Ended(Box<Exchange>),
}

/// State shared by both ends of the queue.
#[derive(Default)]
pub(super) struct QueueCounts {
    events: AtomicUsize,
    octets: AtomicUsize,
    /// Exchanges whose end was dropped.
    lost: AtomicU64,
    /// True once the aggregator has been woken.
    woken: AtomicBool,
    observer: OnceLock<Thread>,
    capacity: usize,
}

/// Creates a queue for `capacity` events; without readers, it carries only the ends of exchanges.
pub(super) fn queue(
    capacity: usize,
    has_readers: bool,
) -> (EventSender, Receiver<Event>, Arc<QueueCounts>) {
    let (sender, receiver) = sync_channel(capacity);
    let counts = Arc::new(QueueCounts {
        capacity,
        ..QueueCounts::default()
    });
    let recorder = EventSender {
        sender,
        counts: Arc::clone(&counts),
        has_readers,
    };
    (recorder, receiver, counts)
}

impl EventSender {
    /// True if the dashboard or the API reads the activity; else only the access log is written.
    pub fn has_readers(&self) -> bool {
        self.has_readers
    }

    /// Queues the beginning of an exchange. Dropped if half of the queue is taken: its end matters more.
    pub fn begun(&self, begun: &ExchangeStart, progress: &Arc<Progress>) {
        if self.has_room() {
            self.push(Event::Begun(Box::new(begun.clone()), Arc::clone(progress)));
        }
    }

    /// Queues the response head of an exchange. Dropped likewise.
    pub fn answered(&self, answered: ExchangeResponse) {
        if self.has_room() {
            self.push(Event::Answered(Box::new(answered)));
        }
    }

    fn has_room(&self) -> bool {
        self.has_readers && self.counts.events.load(Relaxed) < self.counts.capacity / 2
    }

    /// Queues the end of an exchange.
    pub fn ended(&self, mut exchange: Exchange) {
        let octets = self.counts.octets.load(Relaxed);
        if octets > MOST_OCTETS / 2 {
            exchange.error = None;
        }
        if !self.push(Event::Ended(Box::new(exchange))) {
            self.counts.lost.fetch_add(1, Relaxed);
        }
    }

    fn push(&self, event: Event) -> bool {
        let (counts, octets) = (&self.counts, event.octets());
        counts.events.fetch_add(1, Relaxed);
        let before = counts.octets.fetch_add(octets, Relaxed);
        if before + octets > MOST_OCTETS || self.sender.try_send(event).is_err() {
            counts.took(octets);
            return false;
        }
        if !counts.woken.load(SeqCst) && !counts.woken.swap(true, SeqCst) {
            counts.wake();
        }
        true
    }
}

impl QueueCounts {
    /// Names the thread that is woken.
    pub(super) fn observed_by(&self, thread: Thread) {
        // there is one, set once
        let _ = self.observer.set(thread);
    }

    pub(super) fn wake(&self) {
        self.woken.store(true, SeqCst);
        if let Some(observer) = self.observer.get() {
            observer.unpark();
        }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(SeqCst)
    }

    /// Makes the next event wake the aggregator.
    pub(super) fn ask_to_be_woken(&self) {
        self.woken.store(false, SeqCst);
    }

    /// Counts an event of this size as taken from the queue.
    pub(super) fn took(&self, octets: usize) {
        self.events.fetch_sub(1, Relaxed);
        self.octets.fetch_sub(octets, Relaxed);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl Event {
    /// Size of the event in bytes.
    pub(super) fn octets(&self) -> usize {
        let some = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let of = |begun: &ExchangeStart| {
            begun.id.len()
                + begun.method.len()
                + begun.path.len()
                + some(&begun.session)
                + some(&begun.user_agent)
        };
        match self {
            // the progress is the exchange's own
            Self::Begun(begun, _) => size_of::<ExchangeStart>() + of(begun),
            Self::Answered(answered) => {
                size_of::<ExchangeResponse>()
                    + answered.id.len()
                    + some(&answered.upstream_request_id)
                    + some(&answered.model)
            }
            Self::Ended(exchange) => {
                let usage = exchange.usage.as_ref();
                let error = exchange.error.as_ref();
                let fields = exchange.rate_limit.iter();
                size_of::<Exchange>()
                    + of(&exchange.begun)
                    + some(&exchange.upstream_request_id)
                    + usage.map_or(0, |it| {
                        let others = it.others.iter();
                        let others = others.map(|it| size_of::<OtherModel>() + it.model.len());
                        let terms = &it.terms;
                        some(&it.model)
                            + some(&it.stop_reason)
                            + some(&it.error_type)
                            + some(&terms.inference_geo)
                            + some(&terms.speed)
                            + some(&terms.service_tier)
                            + others.sum::<usize>()
                    })
                    + error.map_or(0, |error| error.octets.len() + error.secrets.bytes())
                    + exchange.request_fields.len()
                    + exchange.response_fields.len()
                    + exchange.tries.len() * size_of::<Try>()
                    + fields
                        .map(|(name, value)| 32 + name.len() + value.len())
                        .sum::<usize>()
            }
        }
    }
}
