//! Progress of an exchange in flight: atomics that its worker writes and telemetry reads.
//!
//! Made only if the dashboard may read it, one for each exchange, so that a worker shares no cache line with
//! another worker. An operator can ask for the end of an exchange through it; the worker that carries the
//! exchange is woken and ends it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Context,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use crate::label::Label;

use super::{
    begun::{ExchangeResponse, ExchangeStart},
    fields::ShownFields,
    usage::Tokens,
};

/// Upstreams that are remembered while they are asked one after the other.
const UPSTREAMS: usize = 4;

/// The progress of one exchange in flight.
#[derive(Debug, Default)]
pub struct Progress {
    passing: Passing,
    input: AtomicU64,
    output: AtomicU64,
    cache_read: AtomicU64,
    cache_write_5m: AtomicU64,
    cache_write_1h: AtomicU64,
    is_waiting: AtomicBool,
    begun: OnceLock<ExchangeStart>,
    response: OnceLock<ExchangeResponse>,
    /// The upstreams that were asked, in their order.
    upstreams: [OnceLock<Arc<str>>; UPSTREAMS],
    model: OnceLock<Arc<str>>,
    edit: OnceLock<Label>,
    request_fields: OnceLock<ShownFields>,
    response_fields: OnceLock<ShownFields>,
}

/// The part that each piece of content changes or looks at: one cache line of 64 bytes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Passing {
    /// Bytes of the request's content.
    received: AtomicU64,
    /// Bytes of the response's content.
    sent: AtomicU64,
    /// Microseconds until the first token, and one; 0 before it.
    first_token: AtomicU64,
    /// `content_block_delta` events.
    deltas: AtomicU64,
    state: AtomicU8,
    /// The worker's task.
    waker: AtomicWaker,
}

/// A reading of the progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes of the request's content.
    pub received: u64,
    /// Bytes of the response's content.
    pub sent: u64,
    /// Until the first token.
    pub first_token: Option<Duration>,
    /// Tokens that the upstream has reported.
    pub tokens: Tokens,
    /// `content_block_delta` events.
    pub deltas: u64,
    /// True if an operator has asked for the end.
    pub is_ending: bool,
    /// True if the exchange waits for a free slot of its key.
    pub is_waiting: bool,
}

/// The exchange runs.
const RUNNING: u8 = 0;
/// An operator has asked for its end.
const ENDING: u8 = 1;
/// The exchange has ended, or the proxy itself is responding: an operator can no longer end it.
const FINISHED: u8 = 2;

impl Progress {
    /// Stores the bytes of the request's content.
    pub fn receives(&self, octets: u64) {
        self.passing.received.store(octets, Relaxed);
    }

    /// Stores the bytes of the response's content.
    pub fn sends(&self, octets: u64) {
        self.passing.sent.store(octets, Relaxed);
    }

    /// Stores the number of `content_block_delta` events.
    pub fn streams(&self, deltas: u64) {
        self.passing.deltas.store(deltas, Relaxed);
    }

    /// Stores the usage that was metered so far.
    pub fn meters(&self, tokens: &Tokens, first_token: Option<Duration>) {
        let Tokens {
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
        } = tokens;
        for (atomic, number) in [
            (&self.input, *input),
            (&self.output, *output),
            (&self.cache_read, *cache_read),
            (&self.cache_write_5m, *cache_write_5m),
            (&self.cache_write_1h, *cache_write_1h),
        ] {
            atomic.store(number, Relaxed);
        }
        if let Some(first_token) = first_token {
            let micros = u64::try_from(first_token.as_micros()).unwrap_or(u64::MAX);
            self.passing
                .first_token
                .store(micros.saturating_add(1), Relaxed);
        }
    }

    /// Notes that the exchange waits for a free slot of its key, or not any more.
    pub fn waits(&self, waits: bool) {
        self.is_waiting.store(waits, Relaxed);
    }

    /// Remembers the upstream that is asked now.
    pub fn asks(&self, upstream: &Arc<str>) {
        let free = self.upstreams.iter().find(|place| place.get().is_none());
        if let Some(free) = free {
            let _ = free.set(Arc::clone(upstream));
        }
    }

    /// Remembers the model that the request names.
    pub fn names(&self, model: Arc<str>) {
        let _ = self.model.set(model);
    }

    /// Remembers the outcome of the edit.
    pub fn edited(&self, outcome: Label) {
        let _ = self.edit.set(outcome);
    }

    /// Remembers the fields of the request.
    pub fn asked_with(&self, fields: &ShownFields) {
        let _ = self.request_fields.set(fields.clone());
    }

    /// Remembers the beginning.
    pub fn begins(&self, begun: ExchangeStart) {
        let _ = self.begun.set(begun);
    }

    /// Remembers the response head, and its fields as they may be shown.
    pub fn answered_with(&self, response: ExchangeResponse, fields: &ShownFields) {
        let _ = self.response_fields.set(fields.clone());
        let _ = self.response.set(response);
    }

    /// The beginning.
    pub fn begun(&self) -> Option<&ExchangeStart> {
        self.begun.get()
    }

    /// The response head, once it is here.
    pub fn response(&self) -> Option<&ExchangeResponse> {
        self.response.get()
    }

    /// The upstream that was asked last.
    pub fn upstream(&self) -> Option<&Arc<str>> {
        self.upstreams.iter().rev().find_map(OnceLock::get)
    }

    /// The model that the request names.
    pub fn model(&self) -> Option<&Arc<str>> {
        self.model.get()
    }

    /// The outcome of the edit.
    pub fn edit(&self) -> Option<Label> {
        self.edit.get().copied()
    }

    /// The fields of the request.
    pub fn request_fields(&self) -> Option<&ShownFields> {
        self.request_fields.get()
    }

    /// The fields of the response.
    pub fn response_fields(&self) -> Option<&ShownFields> {
        self.response_fields.get()
    }

    /// Reads the numbers of this moment.
    pub fn read(&self) -> Reading {
        let of = |atomic: &AtomicU64| atomic.load(Relaxed);
        Reading {
            received: of(&self.passing.received),
            sent: of(&self.passing.sent),
            first_token: of(&self.passing.first_token)
                .checked_sub(1)
                .map(Duration::from_micros),
            tokens: Tokens {
                input: of(&self.input),
                output: of(&self.output),
                cache_read: of(&self.cache_read),
                cache_write_5m: of(&self.cache_write_5m),
                cache_write_1h: of(&self.cache_write_1h),
            },
            deltas: of(&self.passing.deltas),
            is_ending: self.passing.state.load(Relaxed) == ENDING,
            is_waiting: self.is_waiting.load(Relaxed),
        }
    }

    /// Asks for the end of the exchange and wakes its worker. False if that was asked before, or it has
    /// ended.
    pub fn end(&self) -> bool {
        let state = &self.passing.state;
        let asked = state
            .compare_exchange(RUNNING, ENDING, AcqRel, Acquire)
            .is_ok();
        if asked {
            self.passing.waker.wake();
        }
        asked
    }

    /// Returns true if an operator has asked for the end; wakes the task of the context when one does.
    pub fn poll_ending(&self, cx: &Context<'_>) -> bool {
        self.passing.waker.register(cx.waker());
        self.is_ending()
    }

    /// True if an operator has asked for the end, and the exchange has not finished.
    pub fn is_ending(&self) -> bool {
        self.passing.state.load(Acquire) == ENDING
    }

    /// Marks the exchange as ended, or as answered by the proxy itself: from now on, an operator cannot end
    /// it.
    pub fn finishes(&self) {
        self.passing.state.store(FINISHED, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
    };

    use super::*;

    #[test]
    fn what_each_piece_touches_is_one_cache_line() {
        assert_eq!(size_of::<Passing>(), 64);
    }

    #[test]
    fn numbers_are_read_as_they_were_stored() {
        let progress = Progress::default();
        assert_eq!(progress.read(), Reading::default());
        let tokens = Tokens {
            input: 1,
            output: 2,
            cache_read: 3,
            cache_write_5m: 4,
            cache_write_1h: 5,
        };
        progress.receives(10);
        progress.sends(20);
        progress.streams(7);
        progress.meters(&tokens, Some(Duration::ZERO));
        let expected = Reading {
            received: 10,
            sent: 20,
            first_token: Some(Duration::ZERO),
            tokens,
            deltas: 7,
            is_ending: false,
            is_waiting: false,
        };
        assert_eq!(progress.read(), expected);
    }

    #[test]
    fn the_upstream_asked_last_is_shown() {
        let progress = Progress::default();
        assert_eq!(progress.upstream(), None);
        for name in ["a", "b", "c", "d"] {
            progress.asks(&name.into());
            assert_eq!(progress.upstream().map(AsRef::as_ref), Some(name));
        }
        progress.asks(&"e".into());
        assert_eq!(progress.upstream().map(AsRef::as_ref), Some("d"));
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_end_is_asked_for_once_and_wakes_the_task() {
        let (progress, woken) = (Progress::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        assert!(!progress.poll_ending(&cx));
        assert!(progress.end());
        assert!(!progress.end());
        assert_eq!(woken.0.load(Relaxed), 1);
        assert!(progress.poll_ending(&cx) && progress.is_ending());
        progress.finishes();
        assert!(!progress.is_ending());
        assert!(!progress.end());
    }
}
