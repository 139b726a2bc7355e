//! The work of the thread that aggregates, and of the thread that stores.

use std::{
    io, mem,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use super::{
    ended::RedactedText,
    publisher::Publisher,
    queue::{MOST_OCTETS, WorkerEvents},
    redact::{Completeness, text},
    state::{ActivityState, Delta, LastEnded, SECONDS, second},
    store::Store,
};
use crate::{
    background::{Background, Consumer, Entrance, Terms, locked},
    exchange::Exchange,
};

/// Bounds of the events that wait: 300 ms of 100,000 exchanges a second, 16 s of 2,000.
pub(super) const EVENTS: Terms = Terms {
    most: MOST_OCTETS,
    interval: Duration::from_millis(20),
    // longer than the wait for the disk
    patience: Duration::from_secs(5),
};
/// Bounds of the changes that wait; they are pruned instead of refused.
const CHANGES: Terms = Terms {
    most: usize::MAX,
    interval: Duration::from_secs(1),
    patience: Duration::from_secs(2),
};
/// Events that are applied under one lock: well under a millisecond.
const AT_ONCE: usize = 256;
/// Upper bound of error contents decoded in one batch: a storm of them must not delay the totals.
const CONTENTS: usize = 16;
/// Interval at which exchanges are stored, if there are more than a few in a second: at 5,000 a second most
/// of them would be replaced before the next process reads them.
const STORE_ENDED: Duration = Duration::from_secs(10);
/// Upper bound of exchanges that are stored with the totals.
const FEW: usize = 100;

/// State of the aggregating thread.
pub(super) struct Aggregator {
    pub(super) state: Arc<Mutex<ActivityState>>,
    pub(super) store: Option<StoreWriter>,
}

/// The thread that stores and publishes, and the way to it.
pub(super) struct StoreWriter {
    changes: Entrance<Delta>,
    _thread: Background<Delta>,
}

/// State of the storing thread: what is not stored yet.
struct Storing {
    store: Option<Store>,
    publisher: Option<Publisher>,
    unsaved: Delta,
    /// Exchanges, which are stored less often if there are many.
    ended: LastEnded,
    ended_due: Instant,
}

/// An end made ready outside of the lock: with the text of the error response, and the type of the error in
/// it.
type ReadyEnd = (Box<Exchange>, Option<RedactedText>, Option<Box<str>>);

impl Consumer<WorkerEvents> for Aggregator {
    fn take(&mut self, events: &mut WorkerEvents) -> u64 {
        let mut contents = 0;
        let (mut ends, mut give_back) = events.take();
        loop {
            let batch: Vec<_> = ends
                .by_ref()
                .take(AT_ONCE)
                .map(|exchange| ready(exchange, &mut contents))
                .collect();
            if batch.is_empty() {
                return 0;
            }
            match &self.store {
                None => self.apply(batch, None, &mut give_back),
                Some(store) => {
                    store.changes.add(|unsaved, _| {
                        self.apply(batch, Some(unsaved), &mut give_back);
                        true
                    });
                }
            }
        }
    }

    fn close(&mut self) {
        // stores the remaining changes
        self.store = None;
    }
}

impl Aggregator {
    fn apply(
        &self,
        batch: Vec<ReadyEnd>,
        mut unsaved: Option<&mut Delta>,
        mut give_back: impl FnMut(Box<Exchange>),
    ) {
        let now = SystemTime::now();
        let mut state = locked(&self.state);
        let exchanges = batch.iter().map(|(exchange, ..)| &**exchange);
        state.count(exchanges, now, unsaved.as_deref_mut());
        for (exchange, text, kind) in batch {
            let (ended, unlisted) = state.list(exchange, (text, kind), now);
            let unsaved = unsaved.as_deref_mut();
            let replaced = unsaved.and_then(|unsaved| unsaved.ended.add(ended));
            let replaced = replaced.map(|replaced| replaced.done);
            // whichever list had it last gives it back
            for unlisted in [unlisted, replaced].into_iter().flatten() {
                unlisted.unlisted().map(&mut give_back);
            }
        }
        drop(state);
        // of a disk that does not respond
        if let Some(unsaved) = unsaved
            && unsaved.seconds.len() > SECONDS as usize
        {
            unsaved.prune(second(now));
        }
    }
}

fn ready(mut exchange: Box<Exchange>, contents: &mut usize) -> ReadyEnd {
    let content = exchange.error.take();
    *contents += usize::from(content.is_some());
    let content = content.filter(|_| *contents <= CONTENTS);
    let text = content.as_ref().and_then(text);
    let kind = text.as_ref().and_then(|(content, _)| kind_of(content));
    let text = text.map(|(content, length)| RedactedText {
        content: content.into(),
        is_cut: length == Completeness::Cut,
    });
    (exchange, text, kind)
}

impl StoreWriter {
    /// Starts the thread that stores, publishes, or both.
    pub(super) fn start(store: Option<Store>, publisher: Option<Publisher>) -> io::Result<Self> {
        let storing = Storing {
            store,
            publisher,
            unsaved: Delta::default(),
            ended: LastEnded::default(),
            ended_due: Instant::now() + STORE_ENDED,
        };
        let thread = Background::start("activity-store", CHANGES, storing)?;
        Ok(Self {
            changes: thread.handle().entrance(),
            _thread: thread,
        })
    }
}

impl Consumer<Delta> for Storing {
    fn take(&mut self, work: &mut Delta) -> u64 {
        if let Some(publisher) = &mut self.publisher {
            publisher.note(work);
        }
        let mut work = mem::take(work);
        if self.store.is_some() {
            self.ended.append(mem::take(&mut work.ended));
            self.unsaved.add(work);
        }
        0
    }

    fn end_round(&mut self, _: u64) -> bool {
        let at = Instant::now();
        if self.ended.len() <= FEW || at >= self.ended_due {
            self.ended_due = at + STORE_ENDED;
            self.unsaved.ended.append(mem::take(&mut self.ended));
        }
        self.save();
        if let Some(publisher) = &mut self.publisher {
            publisher.publish();
        }
        // a store that has lost everything is noticed by a publisher that has nothing to write
        !self.unsaved.is_empty() || !self.ended.is_empty() || self.publisher.is_some()
    }

    fn close(&mut self) {
        self.unsaved.ended.append(mem::take(&mut self.ended));
        self.save();
        if let Some(store) = self.store.take() {
            store.close();
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.publish();
        }
    }
}

impl Storing {
    fn save(&mut self) {
        let now = SystemTime::now();
        if let Some(store) = &mut self.store
            && !self.unsaved.is_empty()
            && store.write(&self.unsaved, now)
        {
            self.unsaved = Delta::default();
        }
        self.unsaved.prune(second(now));
    }
}

/// Type in the content of an error: `{"error":{"type":…}}`.
fn kind_of(content: &str) -> Option<Box<str>> {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        error: ErrorObject,
    }
    #[derive(serde::Deserialize)]
    struct ErrorObject {
        r#type: Box<str>,
    }
    let content: ErrorBody = serde_json::from_str(content).ok()?;
    let kind = content.error.r#type;
    (kind.len() <= LONGEST_KIND).then_some(kind)
}

const LONGEST_KIND: usize = 128;
