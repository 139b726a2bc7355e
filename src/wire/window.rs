//! Flow-control windows of an HTTP/2 connection that grow while content is consumed (RFC 9113 §5.2),
//! for what the peer sends, on either side of the proxy.
//!
//! A stream's window is what the peer may send ahead. It bounds what the stream may hold here, and it
//! is all that the stream moves in one round trip: 64 KiB, the bound for a slow reader
//! (docs/contract.md §4.3), are 640 KB/s over 100 ms. So the window grows when it proves to be what
//! limits: a PING measures the round trip, and one stream consumed at least half a window in that time. A
//! stream that is consumed slowly, or whose content is sent slowly, does not qualify.
//!
//! The memory that this may cost is bounded:
//! - HTTP/2 has one initial window for all streams of a connection (`SETTINGS_INITIAL_WINDOW_SIZE`), and
//!   no other that can shrink. So a connection has an *extra*, which its streams share: each may hold
//!   its ordinary window and its part of the extra. When streams are opened, the window shrinks.
//! - The extra of a connection is at most [`MAX_EXTRA`]. The connection's window grows by the extra,
//!   and bounds a peer that does not follow.
//! - All extras of the process are at most [`PROCESS_EXTRA`]. While all of it is in use, windows
//!   stay as they are.
//! - A smaller window takes a round trip to arrive. Streams that were opened within it, and that are
//!   consumed slowly, may hold the whole window of the connection, beyond their parts, and so hold back
//!   the others. Once the peer has acknowledged the smaller window they can hold no more; until they end,
//!   the connection's window is *doubled*, which leaves each stream its part.
//! - An extra that was not needed for 5 to 10 seconds is given back.

use std::{
    cell::Cell,
    future::Future as _,
    pin::Pin,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use h2::{Ping, PingPong};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

/// Octets beyond their ordinary windows that the streams of one connection may hold: 40 MB/s at 100 ms.
pub const MAX_EXTRA: u32 = 4 * 1024 * 1024;
/// Sum of the extras of all connections of the process: 32 connections at full speed.
pub const PROCESS_EXTRA: u32 = 128 * 1024 * 1024;
/// Time for which an extra is kept without being needed.
const QUIET: Duration = Duration::from_secs(5);
/// Pause after a round that showed no need: a peer close by would be sent a PING per round trip.
const PAUSE: Duration = Duration::from_millis(250);
/// A stream that takes longer for a quarter of its window is slow, or has rested: it needs no more.
const STALE: Duration = Duration::from_secs(1);

/// Extra that is in use in this process.
static IN_USE: AtomicU32 = AtomicU32::new(0);

/// The windows of one connection, shared by its driver and its streams.
#[derive(Debug)]
pub struct Windows {
    ordinary_stream: u32,
    ordinary_connection: u32,
    /// Octets taken from [`PROCESS_EXTRA`].
    extra: Cell<u32>,
    /// The window of a stream that is wanted.
    stream: Cell<u32>,
    /// Streams that may hold content.
    open: Cell<usize>,
    /// Number of times that the peer acknowledged a smaller window.
    shrunk: Cell<u32>,
    /// Open streams that were opened before the last of these times: they may hold more than their part.
    earlier: Cell<usize>,
    /// Number of this round, of which each stream counts what it consumes.
    round: Cell<u32>,
    /// Time at which the first octet of this round was consumed.
    since: Cell<Option<Instant>>,
    /// The most that one stream consumed in this round.
    most: Cell<u64>,
}

/// One stream's part: counts what it consumes.
#[derive(Debug)]
pub struct Meter {
    windows: Rc<Windows>,
    round: Cell<u32>,
    consumed: Cell<u64>,
    /// [`Windows::shrunk`] at the time it was opened.
    shrunk: u32,
}

impl Windows {
    /// Windows of their ordinary size: of a stream, and of the connection.
    pub fn new(stream: u32, connection: u32) -> Rc<Self> {
        Rc::new(Self {
            ordinary_stream: stream,
            ordinary_connection: connection,
            extra: Cell::new(0),
            stream: Cell::new(stream),
            open: Cell::new(0),
            shrunk: Cell::new(0),
            earlier: Cell::new(0),
            round: Cell::new(0),
            since: Cell::new(None),
            most: Cell::new(0),
        })
    }

    /// Counts a stream that may hold content, until the meter is dropped.
    pub fn meter(self: &Rc<Self>) -> Meter {
        self.open.set(self.open.get() + 1);
        Meter {
            windows: Rc::clone(self),
            round: Cell::new(self.round.get()),
            consumed: Cell::new(0),
            shrunk: self.shrunk.get(),
        }
    }

    /// Takes note that the peer keeps to a smaller window from now on.
    fn has_shrunk(&self) {
        self.shrunk.set(self.shrunk.get().wrapping_add(1));
        self.earlier.set(self.open.get());
    }

    /// The window of the connection.
    fn connection(&self) -> u32 {
        let ordinary = self.ordinary_connection + self.extra.get();
        match self.earlier.get() {
            0 => ordinary,
            _ => 2 * ordinary,
        }
    }

    /// The largest window that each stream may have now.
    fn share(&self) -> u32 {
        // in steps, so that not every stream that is opened costs a SETTINGS frame
        let parts = self.open.get().max(1).next_power_of_two();
        self.ordinary_stream + self.extra.get() / u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// Makes the window several times as large, as far as its bounds allow.
    fn grow(&self, times: u32) {
        let larger = self.stream.get().saturating_mul(times);
        if self.share() < larger {
            let parts = self.open.get().max(1).next_power_of_two();
            let parts = u32::try_from(parts).unwrap_or(u32::MAX);
            let wanted = (larger - self.ordinary_stream).saturating_mul(parts);
            let extra = self.extra.get();
            let more = wanted.min(MAX_EXTRA).saturating_sub(extra);
            if take(more) {
                self.extra.set(extra + more);
            }
        }
        self.stream.set(larger.min(self.share()));
    }

    fn give_back(&self) {
        IN_USE.fetch_sub(self.extra.replace(0), Ordering::Relaxed);
        self.stream.set(self.ordinary_stream);
    }

    fn next_round(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.since.set(None);
        self.most.set(0);
    }

    /// Quarters of the window that one stream consumed per round trip of this round.
    fn quarters(&self, round_trip: Duration, now: Instant) -> u128 {
        let Some(since) = self.since.get() else {
            return 0;
        };
        let elapsed = (now - since).max(round_trip).as_nanos().max(1);
        let consumed = u128::from(self.most.get()) * round_trip.as_nanos() / elapsed;
        4 * consumed / u128::from(self.stream.get())
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Takes octets from [`PROCESS_EXTRA`], if they are free.
fn take(octets: u32) -> bool {
    let taken = IN_USE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_use| {
        in_use
            .checked_add(octets)
            .filter(|&sum| sum <= PROCESS_EXTRA)
    });
    taken.is_ok()
}

impl Meter {
    /// Counts octets that the stream consumed.
    pub fn consumed(&self, octets: usize) {
        let windows = &*self.windows;
        if self.round.replace(windows.round.get()) != windows.round.get() {
            self.consumed.set(0);
        }
        if windows.since.get().is_none() {
            windows.since.set(Some(Instant::now()));
        }
        self.consumed.set(self.consumed.get() + octets as u64);
        windows
            .most
            .set(windows.most.get().max(self.consumed.get()));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let windows = &*self.windows;
        windows.open.set(windows.open.get() - 1);
        if self.shrunk != windows.shrunk.get() {
            windows.earlier.set(windows.earlier.get() - 1);
        }
    }
}

/// Measurement of round trips, and the decision to grow or shrink windows.
#[derive(Debug)]
struct Rounds {
    windows: Rc<Windows>,
    /// Time at which the unanswered PING was sent.
    pinged: Option<Instant>,
    /// Octets that one stream has to consume before the next PING.
    next: u64,
    /// Earliest time of the next PING.
    earliest: Option<Instant>,
    /// True if the windows were needed since the last review.
    was_needed: bool,
}

impl Rounds {
    fn new(windows: Rc<Windows>) -> Self {
        Self {
            next: u64::from(windows.stream.get()) / 4,
            windows,
            pinged: None,
            earliest: None,
            was_needed: false,
        }
    }

    /// Reports whether a PING is to be sent now.
    fn begins(&mut self) -> bool {
        if self.pinged.is_some() || self.windows.most.get() < self.next {
            return false;
        }
        let now = Instant::now();
        if self.earliest.is_some_and(|earliest| now < earliest) {
            return false;
        }
        let since = self.windows.since.get();
        if since.is_none_or(|since| now - since > STALE) {
            self.windows.next_round();
            return false;
        }
        self.pinged = Some(now);
        true
    }

    /// Ends a round: the PING was answered.
    fn end(&mut self) {
        let now = Instant::now();
        let Some(pinged) = self.pinged.take() else {
            return;
        };
        let windows = &self.windows;
        let quarters = windows.quarters(now - pinged, now);
        self.was_needed |= quarters >= 1;
        (self.next, self.earliest) = if quarters >= 2 {
            // a stream that consumes all of it each time needs at least that: never more than four
            // times what is needed, and there in three steps
            windows.grow(if quarters >= 4 { 4 } else { 2 });
            (u64::from(windows.stream.get()) / 4, None)
        } else {
            let most = u64::from(windows.stream.get());
            ((2 * self.next).min(most), Some(now + PAUSE))
        };
        windows.next_round();
    }

    /// Gives the extra back if it was not needed since the last call.
    fn review(&mut self) {
        if !std::mem::take(&mut self.was_needed) {
            self.windows.give_back();
            self.next = u64::from(self.windows.stream.get()) / 4;
        }
    }
}

/// A connection of the h2 crate whose windows can be set.
pub trait Flow {
    /// Announces a window for each stream; not while an announcement waits for its acknowledgement.
    fn set_stream_window(&mut self, size: u32) -> bool;
    /// Sets the window of the connection.
    fn set_connection_window(&mut self, size: u32);
    /// Hands out the handle that sends PING, once.
    fn pings(&mut self) -> Option<PingPong>;
}

/// Driver that grows and shrinks the windows of a connection; polled by the task that drives it.
pub struct WindowDriver {
    rounds: Rounds,
    pings: Option<PingPong>,
    /// The window of a stream that was announced last, and that of the connection.
    announced: (u32, u32),
    /// True until the peer has acknowledged a smaller window of a stream.
    is_shrinking: bool,
    /// Runs while there is an extra.
    quiet: Option<Pin<Box<Sleep>>>,
}

impl WindowDriver {
    /// Drives these windows of this connection.
    pub fn new(windows: Rc<Windows>, connection: &mut impl Flow) -> Self {
        Self {
            announced: (windows.stream.get(), windows.connection()),
            is_shrinking: false,
            rounds: Rounds::new(windows),
            pings: connection.pings(),
            quiet: None,
        }
    }

    /// Sends the frames that are due. Returns their number; the connection sends them at its next
    /// poll, and the peer answers each with one frame.
    pub fn poll(&mut self, cx: &mut Context<'_>, connection: &mut impl Flow) -> u32 {
        let pings = self.poll_round(cx);
        self.poll_quiet(cx);
        pings + self.announce(connection)
    }

    /// Reports whether it waits for an acknowledgement: it is to be polled again after the connection.
    pub fn is_shrinking(&self) -> bool {
        self.is_shrinking
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> u32 {
        let Some(pings) = &mut self.pings else {
            return 0;
        };
        if self.rounds.pinged.is_some() {
            match pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => self.rounds.end(),
                Poll::Pending => return 0,
                Poll::Ready(Err(_)) => {
                    // the connection is at its end
                    self.pings = None;
                    return 0;
                }
            }
        }
        if !self.rounds.begins() {
            return 0;
        }
        if pings.send_ping(Ping::opaque()).is_err() {
            self.pings = None;
            return 0;
        }
        // wakes this task when it is answered
        let _ = pings.poll_pong(cx);
        1
    }

    fn poll_quiet(&mut self, cx: &mut Context<'_>) {
        if self.rounds.windows.extra.get() == 0 {
            self.quiet = None;
            return;
        }
        let quiet = self
            .quiet
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIET)));
        while quiet.as_mut().poll(cx).is_ready() {
            self.rounds.review();
            quiet.as_mut().reset(Instant::now() + QUIET);
        }
    }

    fn announce(&mut self, connection: &mut impl Flow) -> u32 {
        let windows = &self.rounds.windows;
        // more streams, smaller windows
        windows
            .stream
            .set(windows.stream.get().min(windows.share()));
        let stream = windows.stream.get();
        let mut frames = 0;
        // h2 takes an announcement once the one before is acknowledged, also one of the same window
        if (stream != self.announced.0 || self.is_shrinking) && connection.set_stream_window(stream)
        {
            if std::mem::replace(&mut self.is_shrinking, stream < self.announced.0) {
                windows.has_shrunk();
            }
            self.announced.0 = stream;
            frames = 1;
        }
        if windows.connection() != self.announced.1 {
            connection.set_connection_window(windows.connection());
            self.announced.1 = windows.connection();
        }
        frames
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, B: Buf> Flow for h2::server::Connection<T, B> {
    fn set_stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }

    fn set_connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn pings(&mut self) -> Option<PingPong> {
        self.ping_pong()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, B: Buf> Flow for h2::client::Connection<T, B> {
    fn set_stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }

    fn set_connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn pings(&mut self) -> Option<PingPong> {
        self.ping_pong()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: u32 = 64 * 1024;
    const TRIP: Duration = Duration::from_millis(100);

    fn rounds() -> (Rounds, Meter) {
        let windows = Windows::new(STREAM, 100 * STREAM);
        let meter = windows.meter();
        (Rounds::new(windows), meter)
    }

    /// A round trip in which a stream consumes this much, half of it before the PING.
    async fn round(rounds: &mut Rounds, meter: &Meter, octets: u32) {
        tokio::time::advance(PAUSE).await;
        meter.consumed(octets as usize / 2);
        if rounds.begins() {
            tokio::time::advance(TRIP).await;
            meter.consumed(octets as usize / 2);
            rounds.end();
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_window_that_limits_grows_up_to_its_bound() {
        let (mut rounds, meter) = rounds();
        let windows = Rc::clone(&rounds.windows);
        let mut sizes = Vec::new();
        for _ in 0..8 {
            round(&mut rounds, &meter, windows.stream.get()).await;
            sizes.push(windows.stream.get() / STREAM);
        }
        assert_eq!(sizes, [4, 16, 64, 65, 65, 65, 65, 65]);
        assert_eq!(windows.extra.get(), MAX_EXTRA);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_consumed_slowly_needs_no_more() {
        let (mut rounds, meter) = rounds();
        for _ in 0..20 {
            // less than half a window in a round trip
            round(&mut rounds, &meter, STREAM * 2 / 5).await;
        }
        // a whole window, but in seconds
        for _ in 0..20 {
            meter.consumed(STREAM as usize / 8);
            tokio::time::advance(STALE).await;
            assert!(!rounds.begins());
        }
        assert_eq!(rounds.windows.stream.get(), STREAM);
        assert_eq!(rounds.windows.extra.get(), 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn many_streams_that_together_fill_a_window_do_not_need_more() {
        let (mut rounds, meter) = rounds();
        let others: Vec<_> = (0..9).map(|_| rounds.windows.meter()).collect();
        for _ in 0..20 {
            for other in &others {
                other.consumed(STREAM as usize / 8);
            }
            round(&mut rounds, &meter, STREAM / 2 - 2).await;
        }
        assert_eq!(rounds.windows.stream.get(), STREAM);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_extra_of_a_connection_is_shared_by_its_streams() {
        let (mut rounds, meter) = rounds();
        let windows = Rc::clone(&rounds.windows);
        for _ in 0..8 {
            round(&mut rounds, &meter, windows.stream.get()).await;
        }
        let mut others = Vec::new();
        for _ in 0..99 {
            others.push(windows.meter());
            let held = windows.share() as usize * windows.open.get();
            let bound = STREAM as usize * windows.open.get() + MAX_EXTRA as usize;
            assert!(held <= bound, "{held} of {bound}");
        }
        // what all of them need, they cannot have
        windows.stream.set(windows.share());
        round(&mut rounds, &meter, windows.stream.get()).await;
        assert_eq!(windows.extra.get(), MAX_EXTRA);
        assert_eq!(windows.stream.get(), STREAM + MAX_EXTRA / 128);
    }

    /// A peer that acknowledges when it is told to.
    #[derive(Default)]
    struct Peer {
        stream: Option<u32>,
        connection: u32,
        is_pending: bool,
    }

    impl Flow for Peer {
        fn set_stream_window(&mut self, size: u32) -> bool {
            let is_free = !std::mem::replace(&mut self.is_pending, true);
            if is_free {
                self.stream = Some(size);
            }
            is_free
        }

        fn set_connection_window(&mut self, size: u32) {
            self.connection = size;
        }

        fn pings(&mut self) -> Option<PingPong> {
            None
        }
    }

    #[test]
    fn streams_from_before_a_smaller_window_leave_the_others_their_part() {
        let windows = Windows::new(STREAM, 100 * STREAM);
        let ordinary = 100 * STREAM + MAX_EXTRA;
        let mut peer = Peer::default();
        let mut driver = WindowDriver::new(Rc::clone(&windows), &mut peer);
        (0..8).for_each(|_| windows.grow(4));
        driver.announce(&mut peer);
        assert_eq!(
            (peer.stream, peer.connection),
            (Some(STREAM + MAX_EXTRA), ordinary)
        );
        peer.is_pending = false;
        let early: Vec<_> = (0..16).map(|_| windows.meter()).collect();
        driver.announce(&mut peer);
        assert_eq!(peer.stream, Some(STREAM + MAX_EXTRA / 16));
        assert!(driver.is_shrinking());
        driver.announce(&mut peer);
        assert_eq!(
            peer.connection, ordinary,
            "the peer may still send more on each"
        );
        peer.is_pending = false;
        driver.announce(&mut peer);
        assert!(!driver.is_shrinking());
        assert_eq!(peer.connection, 2 * ordinary);
        let late = windows.meter();
        drop(early);
        driver.announce(&mut peer);
        assert_eq!(peer.connection, ordinary);
        drop(late);
        assert_eq!((windows.open.get(), windows.earlier.get()), (0, 0));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_extra_that_is_not_needed_is_given_back() {
        let (mut rounds, meter) = rounds();
        let windows = Rc::clone(&rounds.windows);
        round(&mut rounds, &meter, STREAM).await;
        rounds.review();
        assert_eq!(windows.extra.get(), 3 * STREAM, "it was needed just now");
        // a quarter of it in a round trip is enough to keep it
        meter.consumed(STREAM as usize);
        assert!(rounds.begins());
        tokio::time::advance(TRIP).await;
        rounds.end();
        rounds.review();
        assert_eq!(windows.extra.get(), 3 * STREAM);
        rounds.review();
        assert_eq!((windows.extra.get(), windows.stream.get()), (0, STREAM));
    }

    #[test]
    fn all_connections_share_the_extra_of_the_process() {
        let grown = || {
            let windows = Windows::new(STREAM, 100 * STREAM);
            (0..8).for_each(|_| windows.grow(2));
            windows
        };
        let all: Vec<_> = (0..=PROCESS_EXTRA / MAX_EXTRA).map(|_| grown()).collect();
        let sum: u32 = all.iter().map(|windows| windows.extra.get()).sum();
        assert!(sum <= PROCESS_EXTRA);
        assert!(all.iter().any(|windows| windows.extra.get() < MAX_EXTRA));
        assert!(all.iter().all(|windows| windows.stream.get() >= STREAM));
        drop(all);
        assert_eq!(grown().extra.get(), MAX_EXTRA);
    }
}
