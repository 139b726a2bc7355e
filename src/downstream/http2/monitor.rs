//! Rate limits and timeouts of a client's HTTP/2 frames.
//!
//! h2 reads frames as fast as they come. It bounds its memory, not its work: a peer may send
//! endless frames that cost it nothing and belong to no stream. Two token buckets limit them.
//! Frames that carry a request or its content are free: the limits on streams, windows and timers
//! bound those.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use super::limits::MAX_STREAMS;
use crate::{
    config::Timers,
    downstream::delivery::{Delivery, DeliveryStatus},
    wire::frames::{self, Frame},
};

/// `RST_STREAM` at once: a client may leave all of its 100 streams together, and again when it has
/// opened 100 others.
const RESETS: Rate = Rate {
    burst: 200,
    per_second: 33,
};
/// Error codes that blame the client's frames (RFC 9113 §7): PROTOCOL_ERROR, FLOW_CONTROL_ERROR,
/// STREAM_CLOSED, FRAME_SIZE_ERROR.
const PROVOKED: [u32; 4] = [1, 3, 5, 6];
/// Control frames at once. A client that starts sends about ten (SETTINGS, its ACK, windows,
/// Firefox's five PRIORITY), and one that keeps its connection alive a PING every few seconds;
/// answers to frames of the proxy are credited when those are sent.
const CONTROLS: Rate = Rate {
    burst: 1000,
    per_second: 100,
};
/// Frames credited per chunk that the proxy sends: the client may answer with a WINDOW_UPDATE for
/// the stream, one for the connection and a PING that measures the round trip.
const EARNED_BY_CHUNK: u32 = 3;
/// Octets of a chunk for which one more frame is earned: a client with a window of 2 KiB, smaller
/// than any in use, makes frames of 2 KiB.
const EARNED_BY_OCTETS: usize = 1024;
/// Frames credited per response: PRIORITY or PRIORITY_UPDATE (RFC 9218) for its request.
const EARNED_BY_HEAD: u32 = 2;
/// Largest number of tokens earned in advance: a client may be far behind with its answers, not
/// endlessly.
const MOST_EARNED: u32 = 1 << 17;

/// Size and fill rate of a token bucket.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// Token bucket for one kind of frames.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: Cell<u32>,
    filled: Cell<Instant>,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            tokens: Cell::new(rate.burst),
            filled: Cell::new(now),
        }
    }

    /// Takes a token, if there is one. Reads the clock only when the bucket seems empty.
    fn take(&self, now: impl FnOnce() -> Instant) -> bool {
        if self.tokens.get() == 0 {
            let now = now();
            let passed = now.saturating_duration_since(self.filled.get());
            let earned = passed.as_millis() * u128::from(self.rate.per_second) / 1000;
            if earned == 0 {
                return false;
            }
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens.set(earned.min(self.rate.burst));
            self.filled.set(now);
        }
        self.tokens.set(self.tokens.get() - 1);
        true
    }

    fn earn(&self, tokens: u32) {
        let most = MOST_EARNED.max(self.tokens.get());
        self.tokens
            .set(self.tokens.get().saturating_add(tokens).min(most));
    }
}

/// Streams with a fragment that may wait for h2 to give them: as many as may run, and as many that h2
/// refuses.
const MOST_FRAGMENTS: usize = 2 * MAX_STREAMS as usize;

/// Frame counts and unfinished frames of a connection, shared by its socket, its loop and its
/// streams.
#[derive(Debug)]
pub(super) struct FrameMonitor {
    resets: Bucket,
    /// Last stream whose reset by the proxy was counted.
    last_reset: Cell<u32>,
    controls: Bucket,
    flood: Cell<Option<&'static str>>,
    half: Cell<Option<(UnfinishedFrame, Instant)>>,
    delivery: RefCell<Delivery>,
    /// Streams whose `:path` has a fragment, and which h2 has not given yet.
    fragments: RefCell<Vec<u32>>,
    /// The last stream that h2 gave.
    taken: Cell<u32>,
}

/// Kind of a wait that may time out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The rest of a frame or of a header block.
    Frame,
    /// A check of whether the client reads.
    Client,
}

/// Kind of a frame that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnfinishedFrame {
    /// A header block or a control frame; timed from its first octet.
    Head,
    /// A `DATA` frame; timed from its last octets, since it may be large and the connection slow.
    Data,
}

impl FrameMonitor {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            resets: Bucket::new(RESETS, now),
            last_reset: Cell::default(),
            controls: Bucket::new(CONTROLS, now),
            flood: Cell::default(),
            half: Cell::default(),
            delivery: RefCell::default(),
            fragments: RefCell::default(),
            taken: Cell::default(),
        })
    }

    /// Name of the frames that exceeded their limit.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get()
    }

    /// Credits the frames with which a client may answer a chunk.
    pub(super) fn chunk(&self, octets: usize) {
        let by_octets = u32::try_from(octets / EARNED_BY_OCTETS).unwrap_or(u32::MAX);
        self.controls
            .earn(EARNED_BY_CHUNK.saturating_add(by_octets));
    }

    /// Credits the answers to frames that the client has to answer.
    pub(super) fn asked(&self, frames: u32) {
        self.controls.earn(frames);
    }

    /// Credits the frames that may follow a response head.
    pub(super) fn head(&self) {
        self.controls.earn(EARNED_BY_HEAD);
    }

    /// Kind and time of the next timeout.
    pub(super) fn deadline(&self, timers: &Timers) -> Option<(Overdue, Instant)> {
        let half = self.half.get().map(|(half, since)| match half {
            UnfinishedFrame::Head => (Overdue::Frame, since + timers.request_head),
            UnfinishedFrame::Data => (Overdue::Frame, since + timers.request_body),
        });
        let look_at = self.delivery.borrow_mut().next_look(timers.write);
        let look_at = look_at.map(|at| (Overdue::Client, at));
        half.into_iter().chain(look_at).min_by_key(|(_, at)| *at)
    }

    /// Checks whether the client reads.
    pub(super) fn look(&self, unacknowledged: Option<u64>, timers: &Timers) -> DeliveryStatus {
        // frames that come say that the client is there, not that it reads
        let received = 0;
        let mut delivery = self.delivery.borrow_mut();
        delivery.look(unacknowledged, received, Instant::now(), timers.write)
    }

    /// Octets that the socket took.
    pub(super) fn written(&self) -> u64 {
        self.delivery.borrow().written()
    }

    /// Reports whether the socket takes no more for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.delivery.borrow().is_blocked()
    }

    /// Kind of the unfinished frame, and the start of its timeout.
    pub(super) fn half(&self) -> Option<(UnfinishedFrame, Instant)> {
        self.half.get()
    }

    /// Sets the unfinished frame.
    pub(super) fn set_half(&self, half: Option<(UnfinishedFrame, Instant)>) {
        self.half.set(half);
    }

    /// Records octets that the socket took; none if it takes no more.
    pub(super) fn wrote(&self, octets: Option<usize>) {
        let mut delivery = self.delivery.borrow_mut();
        match octets {
            Some(octets) => delivery.wrote(octets),
            None => delivery.set_blocked(true),
        }
    }

    /// Counts a frame that was received.
    pub(super) fn count(&self, frame: &Frame) {
        let bucket = match frame.kind {
            frames::DATA if frame.length > 0 || frame.flags & frames::END_STREAM != 0 => return,
            frames::HEADERS => return,
            frames::RST_STREAM => &self.resets,
            _ => &self.controls,
        };
        if !bucket.take(Instant::now) {
            self.flood.set(Some(name(frame.kind)));
        }
    }

    /// Records a stream whose `:path` has a fragment.
    pub(super) fn set_fragment(&self, stream: u32) {
        let mut fragments = self.fragments.borrow_mut();
        if stream <= self.taken.get() || fragments.contains(&stream) {
            return;
        }
        if fragments.len() > MOST_FRAGMENTS {
            self.flood.set(Some("HEADERS with a fragment in :path"));
        } else {
            fragments.push(stream);
        }
    }

    /// Takes a stream that h2 gives, in the order in which they came; gives whether its `:path` had a
    /// fragment.
    pub(super) fn take(&self, stream: u32) -> bool {
        self.taken.set(stream);
        let mut fragments = self.fragments.borrow_mut();
        if fragments.len() > MOST_FRAGMENTS {
            // some were not kept: none is let pass until the connection ends
            return true;
        }
        let has_fragment = fragments.contains(&stream);
        fragments.retain(|other| *other > stream);
        has_fragment
    }

    /// Counts a frame that is sent. A client can provoke resets by faulty frames: that begins as
    /// many requests, and costs it as little, as resetting the streams itself.
    pub(super) fn count_sent(&self, frame: &Frame) {
        if frame.kind != frames::RST_STREAM || !PROVOKED.contains(&frame.first) {
            return;
        }
        // each of several late frames for a stream may be answered by a reset
        if self.last_reset.replace(frame.stream) != frame.stream && !self.resets.take(Instant::now)
        {
            self.flood.set(Some("frames that provoke RST_STREAM"));
        }
    }
}

fn name(kind: u8) -> &'static str {
    match kind {
        frames::DATA => "empty DATA",
        frames::PRIORITY => "PRIORITY",
        frames::RST_STREAM => "RST_STREAM",
        frames::SETTINGS => "SETTINGS",
        frames::PING => "PING",
        frames::WINDOW_UPDATE => "WINDOW_UPDATE",
        frames::CONTINUATION => "CONTINUATION",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn fragments_are_known_until_their_stream_is_taken() {
        let watch = FrameMonitor::new();
        for stream in [1, 5, 5, 9] {
            watch.set_fragment(stream);
        }
        let taken = [1, 3, 7, 9, 11].map(|stream| watch.take(stream));
        assert_eq!(taken, [true, false, false, true, false]);
        // trailers of a stream that runs
        watch.set_fragment(9);
        assert!(watch.fragments.borrow().is_empty());
    }

    #[test]
    fn fragments_that_no_stream_is_taken_for_are_bounded() {
        let watch = FrameMonitor::new();
        let last = 1000;
        for stream in 1..=last {
            watch.set_fragment(stream);
        }
        assert!(watch.flood().is_some());
        assert!([1, 500, last].iter().all(|stream| watch.take(*stream)));
        assert!(watch.fragments.borrow().len() <= MOST_FRAGMENTS + 1);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let bucket = Bucket::new(RESETS, start);
        let take = |after| bucket.take(|| start + Duration::from_millis(after));
        assert!((0..RESETS.burst).all(|_| take(0)));
        assert!(!take(0) && !take(29));
        assert!((0..33).all(|_| take(1000)));
        assert!(!take(1000));
        // a long pause fills it, and no more than that
        assert!((0..RESETS.burst).all(|_| take(3_600_000)));
        assert!(!take(3_600_000));
    }
}
