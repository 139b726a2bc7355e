//! The socket under the h2 crate: it looks at the frames that come in, and knows too many of them.
//!
//! h2 reads frames as fast as they come. It bounds what it keeps, not what it is made to do: a peer
//! may send frames without end that cost it nothing and no stream is ever billed for. Two buckets of
//! tokens say how many are enough. Frames that carry a request or its content are free: streams,
//! windows and the timers bound those.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PREFACE;
use crate::{
    config::Timers,
    framing::frames::{self, Frame, Frames},
};

/// `RST_STREAM` at once: a client may leave all of its 100 streams together, and again when it has
/// opened 100 others.
const RESETS: Rate = Rate {
    burst: 200,
    per_second: 33,
};
/// Frames about the connection at once. A client that starts sends about ten (SETTINGS, its ACK,
/// windows, Firefox's five PRIORITY), one that keeps itself alive a PING in seconds; those that answer
/// what we send are paid for by it.
const CONTROLS: Rate = Rate {
    burst: 1000,
    per_second: 100,
};
/// Frames that one chunk of ours earns: it may be answered by a WINDOW_UPDATE for the stream, one for
/// the connection and a PING that measures the round trip.
const EARNED_BY_CHUNK: u32 = 3;
/// ... and again for so many octets of it: a window of 2 KiB, which nobody has, makes frames of 2 KiB.
const EARNED_BY_OCTETS: usize = 1024;
/// Frames that an answer earns: PRIORITY or PRIORITY_UPDATE (RFC 9218) for its request.
const EARNED_BY_HEAD: u32 = 2;
/// What may be earned in advance: a client may be far behind with its answers, not endlessly.
const MOST_EARNED: u32 = 1 << 17;

/// A bucket's size.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// Tokens of one kind.
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

    /// Takes a token, if there is one. The clock is asked only when there seems to be none.
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

/// What is known of the frames of a connection; shared by its socket, its loop and its streams.
#[derive(Debug)]
pub(super) struct Watch {
    resets: Bucket,
    controls: Bucket,
    flood: Cell<Option<&'static str>>,
    half: Cell<Option<(Half, Instant)>>,
    stalled: Cell<Option<Instant>>,
}

/// What the connection waits for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The rest of a frame or of a header block.
    Frame,
    /// That the client takes what is written.
    Client,
}

/// What stands half finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    /// A header block or a frame about the connection, since it began.
    Head,
    /// A `DATA` frame, since octets of it came last: it may be large and its road slow.
    Data,
}

impl Watch {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            resets: Bucket::new(RESETS, now),
            controls: Bucket::new(CONTROLS, now),
            flood: Cell::default(),
            half: Cell::default(),
            stalled: Cell::default(),
        })
    }

    /// Which frames were too many.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get()
    }

    /// A chunk is sent, which its receiver may answer.
    pub(super) fn chunk(&self, octets: usize) {
        let by_octets = u32::try_from(octets / EARNED_BY_OCTETS).unwrap_or(u32::MAX);
        self.controls
            .earn(EARNED_BY_CHUNK.saturating_add(by_octets));
    }

    /// A response head is sent.
    pub(super) fn head(&self) {
        self.controls.earn(EARNED_BY_HEAD);
    }

    /// What is late, and from when on it is too late.
    pub(super) fn deadline(&self, timers: &Timers) -> Option<(Late, Instant)> {
        let half = self.half.get().map(|(half, since)| match half {
            Half::Head => (Late::Frame, since + timers.request_head),
            Half::Data => (Late::Frame, since + timers.request_body),
        });
        let stalled = self.stalled.get();
        let stalled = stalled.map(|since| (Late::Client, since + timers.write));
        half.into_iter().chain(stalled).min_by_key(|(_, at)| *at)
    }

    fn count(&self, frame: &Frame) {
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

/// The socket of a connection, with what was read of it before.
pub(super) struct Guarded<S> {
    stream: Rc<RefCell<S>>,
    /// Octets that were read before it was known what they are.
    first: Bytes,
    /// Octets of the preface that are still to come.
    preface: usize,
    frames: Frames,
    /// Whether a header block is open: only its CONTINUATION may follow.
    is_in_block: bool,
    last_kind: u8,
    watch: Rc<Watch>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: Rc<RefCell<S>>, first: Bytes, watch: Rc<Watch>) -> Self {
        Self {
            stream,
            first,
            preface: PREFACE.len(),
            frames: Frames::default(),
            is_in_block: false,
            last_kind: frames::SETTINGS,
            watch,
        }
    }

    fn look(&mut self, octets: &[u8]) {
        let skipped = octets.len().min(self.preface);
        self.preface -= skipped;
        let octets = &octets[skipped..];
        let Self {
            frames,
            is_in_block,
            last_kind,
            watch,
            ..
        } = self;
        frames.scan(octets, |frame| {
            watch.count(&frame);
            *last_kind = frame.kind;
            let was_in_block = *is_in_block;
            if matches!(frame.kind, frames::HEADERS | frames::CONTINUATION) {
                *is_in_block = frame.flags & frames::END_HEADERS == 0;
            }
            if !was_in_block {
                // something was finished, so what is half finished now began in this read
                watch.half.set(None);
            }
        });
        let is_data = frames.is_inside_payload() && *last_kind == frames::DATA;
        let half = match (*is_in_block, frames.is_inside()) {
            (false, true) if is_data => Some((Half::Data, Instant::now())),
            (true, _) | (_, true) => match watch.half.get() {
                Some((Half::Head, since)) => Some((Half::Head, since)),
                _ => Some((Half::Head, Instant::now())),
            },
            (false, false) => None,
        };
        watch.half.set(half);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.flood.get().is_some() {
            // no more; the connection's loop sees it after this poll, and needs no waker
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            let mut stream = this.stream.borrow_mut();
            ready!(Pin::new(&mut *stream).poll_read(cx, buffer))?;
        } else {
            let count = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
        }
        this.look(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    fn poll_with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let outcome = poll(Pin::new(&mut *self.stream.borrow_mut()));
        if outcome.is_ready() {
            self.watch.stalled.set(None);
        } else if self.watch.stalled.get().is_none() {
            self.watch.stalled.set(Some(Instant::now()));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(|stream| stream.poll_write(cx, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        octets.extend([kind, flags, 0, 0, 0, 1]);
        octets.extend(payload);
        octets
    }

    fn guarded() -> Guarded<()> {
        let mut guarded = Guarded::new(Rc::default(), Bytes::new(), Watch::new());
        guarded.look(PREFACE);
        guarded
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

    #[test]
    fn what_answers_our_chunks_is_paid_for() {
        let mut guarded = guarded();
        for _ in 0..10_000 {
            guarded.watch.chunk(60);
            for kind in [frames::WINDOW_UPDATE, frames::WINDOW_UPDATE, frames::PING] {
                guarded.look(&frame(kind, 0, &[0, 0, 0, 60]));
            }
        }
        assert_eq!(guarded.watch.flood(), None);
    }

    #[test]
    fn requests_and_content_are_free_and_others_are_not() {
        for (octets, flood) in [
            (frame(frames::HEADERS, frames::END_HEADERS, &[0x82]), None),
            (frame(frames::DATA, 0, b"x"), None),
            (frame(frames::DATA, frames::END_STREAM, b""), None),
            (frame(frames::DATA, 0, b""), Some("empty DATA")),
            (frame(frames::PING, 0, &[0; 8]), Some("PING")),
            (frame(frames::SETTINGS, 0, b""), Some("SETTINGS")),
            (frame(frames::PRIORITY, 0, &[0; 5]), Some("PRIORITY")),
            (frame(frames::RST_STREAM, 0, &[0; 4]), Some("RST_STREAM")),
            (
                frame(frames::WINDOW_UPDATE, 0, &[0; 4]),
                Some("WINDOW_UPDATE"),
            ),
            (
                frame(frames::CONTINUATION, frames::END_HEADERS, b""),
                Some("CONTINUATION"),
            ),
            (frame(0x42, 0, b""), Some("other")),
        ] {
            let mut guarded = guarded();
            for _ in 0..1100 {
                guarded.look(&octets);
            }
            assert_eq!(guarded.watch.flood(), flood, "{octets:?}");
        }
    }

    #[test]
    fn what_is_half_finished_is_known() {
        let half = |octets: &[u8]| {
            let mut guarded = guarded();
            guarded.look(octets);
            guarded.watch.half.get().map(|(half, _)| half)
        };
        let ping = frame(frames::PING, 0, &[0; 8]);
        let data = frame(frames::DATA, 0, &[0; 20]);
        let block = frame(frames::HEADERS, 0, &[0x82]);
        let rest = frame(frames::CONTINUATION, frames::END_HEADERS, &[0x84]);
        for (octets, expected) in [
            (ping.clone(), None),
            (ping[..3].to_vec(), Some(Half::Head)),
            (ping[..12].to_vec(), Some(Half::Head)),
            (data.clone(), None),
            (data[..20].to_vec(), Some(Half::Data)),
            ([&data[..], &ping[..5]].concat(), Some(Half::Head)),
            (block.clone(), Some(Half::Head)),
            ([&block[..], &rest[..4]].concat(), Some(Half::Head)),
            ([&block[..], &rest[..]].concat(), None),
        ] {
            assert_eq!(half(&octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn a_header_block_stands_since_its_beginning() {
        let mut guarded = guarded();
        guarded.look(&frame(frames::HEADERS, 0, &[0x82]));
        let began = guarded.watch.half.get();
        guarded.look(&frame(frames::CONTINUATION, 0, &[0x84]));
        assert_eq!(guarded.watch.half.get(), began);
    }
}
