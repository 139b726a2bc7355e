//! The thread that takes the queue, and the thread that stores.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    ended::RedactedText,
    queue::{Event, QueueCounts},
    redact::{Completeness, masked, text},
    state::{ActivityState, Delta, LastEnded, StoredHistory, second},
    store::Store,
};
use crate::{
    exchange::{Exchange, ExchangeResponse, ExchangeStart, Progress},
    telemetry::access_log::AccessLog,
};

/// Interval between batches of events.
const BATCH: Duration = Duration::from_millis(20);
/// Batches without an event, a second of them, after which the aggregator sleeps: only the next event has
/// to wake it, which costs its worker a system call.
const QUIET: u32 = 50;
/// Events that are applied under one lock: well under a millisecond.
const AT_ONCE: usize = 256;
/// Upper bound of error contents decoded in one batch: a storm of them must not delay the totals.
const CONTENTS: usize = 16;
/// Interval at which the totals are stored.
const STORE: Duration = Duration::from_secs(1);
/// Interval at which exchanges are stored, if there are more than a few in a second: at 5,000 a second most
/// of them would be replaced before the next process reads them.
const STORE_ENDED: Duration = Duration::from_secs(10);
/// Upper bound of exchanges that are stored with the totals.
const FEW: usize = 100;
/// Longest wait at the end for a disk that does not respond.
const PATIENCE: Duration = Duration::from_secs(2);

/// State of the aggregating thread.
pub(super) struct Aggregator {
    pub(super) events: Receiver<Event>,
    pub(super) counts: Arc<QueueCounts>,
    pub(super) state: Arc<Mutex<ActivityState>>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) saver: Option<StoreWriter>,
    /// True if the dashboard or the API reads the activity.
    pub(super) has_readers: bool,
    pub(super) is_ended: Arc<AtomicBool>,
}

/// The changes that are not stored yet, and the thread that stores them.
pub(super) struct StoreWriter {
    unsaved: Delta,
    due: Instant,
    /// Exchanges, which are stored less often if there are many.
    ended: LastEnded,
    ended_due: Instant,
    sender: SyncSender<Delta>,
    is_done: Receiver<()>,
}

/// An event made ready outside of the lock.
enum Ready {
    Begun(Box<ExchangeStart>, Arc<Progress>),
    Answered(Box<ExchangeResponse>),
    /// With the text of the error response, and the type of the error in it.
    Ended(Box<Exchange>, Option<RedactedText>, Option<Box<str>>),
    /// Written to the access log; nothing else is kept.
    Logged,
}

impl Aggregator {
    /// Takes events until the end, and then the remaining ones.
    pub(super) fn run(mut self) {
        let (mut lost, mut quiet) = (0, 0);
        loop {
            // read before the queue is emptied, so that events pushed before the end are taken
            let is_ended = self.is_ended.load(SeqCst);
            let taken = self.take_all(&mut lost);
            if is_ended {
                break;
            }
            quiet = if taken > 0 { 0 } else { quiet + 1 };
            if quiet < QUIET {
                // the end cuts it short
                thread::park_timeout(BATCH);
                continue;
            }
            self.counts.ask_to_be_woken();
            if self.take_all(&mut lost) == 0 && !self.counts.is_woken() {
                thread::park_timeout(STORE);
            }
        }
        if let Some(saver) = self.saver.take() {
            saver.finish();
        }
    }

    fn take_all(&mut self, lost: &mut u64) -> usize {
        let mut taken = 0;
        loop {
            let batch = self.batch();
            taken += batch.len();
            let is_last = batch.len() < AT_ONCE;
            let now = SystemTime::now();
            let mut state = locked(&self.state);
            let all_lost = self.counts.lost();
            let newly_lost = all_lost - std::mem::replace(lost, all_lost);
            if newly_lost > 0 {
                state.recent.forget_in_flight(newly_lost);
            }
            for event in batch {
                match event {
                    Ready::Begun(begun, progress) => state.begun(*begun, progress, now),
                    Ready::Answered(answered) => state.answered(*answered, now),
                    Ready::Ended(exchange, text, kind) => {
                        let unsaved = self.saver.as_mut().map(|saver| &mut saver.unsaved);
                        let ended = state.ended(*exchange, (text, kind), now, unsaved);
                        if let Some(saver) = &mut self.saver {
                            saver.ended.add(ended);
                        }
                    }
                    Ready::Logged => {}
                }
            }
            drop(state);
            if let Some(log) = &mut self.access_log {
                log.flush();
            }
            if let Some(saver) = &mut self.saver {
                saver.save(now);
            }
            if is_last {
                return taken;
            }
        }
    }

    fn batch(&mut self) -> Vec<Ready> {
        let mut batch = Vec::new();
        let mut contents = 0;
        while batch.len() < AT_ONCE
            && let Ok(event) = self.events.try_recv()
        {
            self.counts.took(event.octets());
            batch.push(match event {
                Event::Begun(mut begun, progress) => {
                    hide_agent(&mut begun);
                    Ready::Begun(begun, progress)
                }
                Event::Answered(answered) => Ready::Answered(answered),
                Event::Ended(mut exchange) => {
                    hide_agent(&mut exchange.begun);
                    if let Some(log) = &mut self.access_log {
                        log.push(&exchange);
                    }
                    if !self.has_readers {
                        batch.push(Ready::Logged);
                        continue;
                    }
                    let content = exchange.error.take();
                    contents += usize::from(content.is_some());
                    let content = content.filter(|_| contents <= CONTENTS);
                    let text = content.as_ref().and_then(text);
                    let kind = text.as_ref().and_then(|(content, _)| kind_of(content));
                    let text = text.map(|(content, length)| RedactedText {
                        content: content.into(),
                        is_cut: length == Completeness::Cut,
                    });
                    Ready::Ended(exchange, text, kind)
                }
            });
        }
        batch
    }
}

impl StoreWriter {
    /// Starts the thread that stores; also returns the stored history.
    pub(super) fn start(directory: &Path) -> std::io::Result<(Self, StoredHistory)> {
        let now = SystemTime::now();
        let (mut store, saved) = Store::open(directory, now);
        let (sender, additions) = mpsc::sync_channel::<Delta>(1);
        let (done, is_done) = mpsc::channel();
        thread::Builder::new()
            .name("activity-store".into())
            .spawn(move || {
                let mut unsaved = Delta::default();
                for additions in additions {
                    let now = SystemTime::now();
                    unsaved.add(additions);
                    if store.write(&unsaved, now) {
                        unsaved = Delta::default();
                    }
                    unsaved.prune(second(now));
                }
                // before the end is signalled, since the process then exits
                store.close();
                let _ = done.send(());
            })?;
        let saver = Self {
            unsaved: Delta::default(),
            due: Instant::now() + STORE,
            ended: LastEnded::default(),
            ended_due: Instant::now() + STORE_ENDED,
            sender,
            is_done,
        };
        Ok((saver, saved))
    }

    /// Hands the changes over once a second. A disk that is not ready gets more the next time.
    fn save(&mut self, now: SystemTime) {
        let at = Instant::now();
        if at < self.due || (self.unsaved.is_empty() && self.ended.is_empty()) {
            return;
        }
        self.due = at + STORE;
        if self.ended.len() <= FEW || at >= self.ended_due {
            self.ended_due = at + STORE_ENDED;
            self.unsaved.ended.append(std::mem::take(&mut self.ended));
        }
        if let Err(error) = self.sender.try_send(std::mem::take(&mut self.unsaved)) {
            let (mpsc::TrySendError::Full(back) | mpsc::TrySendError::Disconnected(back)) = error;
            self.unsaved = back;
            self.unsaved.prune(second(now));
        }
    }

    /// Stores the remaining changes.
    fn finish(self) {
        let Self {
            mut unsaved,
            ended,
            sender,
            is_done,
            ..
        } = self;
        unsaved.ended.append(ended);
        let deadline = Instant::now() + PATIENCE;
        let mut left = (!unsaved.is_empty()).then_some(unsaved);
        while let Some(unsaved) = left.take() {
            left = match sender.try_send(unsaved) {
                Err(mpsc::TrySendError::Full(back)) if Instant::now() < deadline => {
                    thread::sleep(BATCH);
                    Some(back)
                }
                _ => None,
            };
        }
        drop(sender);
        let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Masks credentials in `User-Agent`: some clients have a key there.
fn hide_agent(begun: &mut ExchangeStart) {
    if let Some(agent) = &mut begun.user_agent {
        let shown = masked(agent);
        if shown != **agent {
            *agent = shown.into();
        }
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

/// Takes the lock, even of a thread that panicked: totals that lack one exchange are better than none.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
