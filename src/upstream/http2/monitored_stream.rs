//! The bytes of one connection on their way to and from the h2 crate, observed as they pass.
//!
//! h2 does not report the last stream of a GOAWAY, the number of written bytes, or the number of
//! control frames: this counts them as they pass. It changes no byte, and ends a connection whose
//! peer floods it with control frames.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::Http2State;
use crate::{
    upstream::dial::Stream,
    wire::frames::{ACK, CONTINUATION, DATA, Frame, Frames, GOAWAY, HEADERS},
    wire::frames::{PING, RST_STREAM, SETTINGS, WINDOW_UPDATE},
};

/// The connection below h2. To drop it closes the socket.
pub(super) struct MonitoredStream {
    state: Rc<Http2State>,
    frames: Frames,
    flood: FloodMeter,
}

impl MonitoredStream {
    pub(super) fn new(state: Rc<Http2State>) -> Self {
        Self {
            state,
            frames: Frames::default(),
            flood: FloodMeter::new(),
        }
    }

    fn with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.state.socket.borrow_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(octets)) = outcome {
            let written = &self.state.written;
            written.set(written.get() + *octets as u64);
        }
    }

    /// Inspects received bytes.
    fn look(&mut self, octets: &[u8]) -> io::Result<()> {
        let Self {
            state,
            frames,
            flood,
        } = self;
        state.heard.set(state.heard.get() + octets.len() as u64);
        frames.scan(octets, |frame| {
            match frame.kind {
                GOAWAY => state.going_away(frame.first),
                SETTINGS if frame.flags & ACK == 0 => state.has_settings.set(true),
                _ => {}
            }
            flood.count(frame);
        });
        if flood.is_too_much(state.written.get()) {
            return Err(io::Error::other("a flood of HTTP/2 control frames"));
        }
        Ok(())
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        self.state.socket.take();
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = this.with(|stream| stream.poll_read(cx, buf));
        if let Poll::Ready(Ok(())) = outcome {
            this.look(&buf.filled()[before..])?;
        }
        outcome
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.with(|stream| stream.poll_write(cx, buf));
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.with(|stream| stream.poll_write_vectored(cx, bufs));
        self.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        let socket = self.state.socket.borrow();
        socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

/// Counts frames that a peer can send without end (RFC 9113 §10.5), in intervals of time.
struct FloodMeter {
    /// Unsolicited frames: PING, SETTINGS, PRIORITY, GOAWAY, unknown ones.
    unprovoked: u64,
    /// Frames that answer to what the proxy sends: WINDOW_UPDATE, RST_STREAM, HEADERS,
    /// CONTINUATION, and acknowledgements.
    provoked: u64,
    since: Instant,
    written: u64,
}

impl FloodMeter {
    fn new() -> Self {
        Self {
            unprovoked: 0,
            provoked: 0,
            since: Instant::now(),
            written: 0,
        }
    }

    fn count(&mut self, frame: Frame) {
        match frame.kind {
            // bounded by flow control, and the empty ones by h2
            DATA => {}
            WINDOW_UPDATE | RST_STREAM | HEADERS | CONTINUATION => self.provoked += 1,
            SETTINGS | PING if frame.flags & ACK != 0 => self.provoked += 1,
            _ => self.unprovoked += 1,
        }
    }

    /// Tells if the peer floods. `written` counts the bytes sent on this connection so far.
    fn is_too_much(&mut self, written: u64) -> bool {
        // a frame of ours has 9 octets and may be answered for its stream and for the connection
        let allowed = FRAMES + (written - self.written) / 4;
        if self.unprovoked <= FRAMES && self.provoked <= allowed {
            return false;
        }
        if self.since.elapsed() < INTERVAL {
            return true;
        }
        *self = Self {
            written,
            ..Self::new()
        };
        false
    }
}

/// 1,000 a second: a hundred times what a diligent peer sends, and no load for us.
const FRAMES: u64 = 10_000;
const INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8) -> Frame {
        Frame {
            kind,
            flags: 0,
            stream: 1,
            length: 0,
            first: 0,
        }
    }

    #[test]
    fn a_flood_is_what_nothing_of_ours_explains() {
        let counted = |kind, count, written| {
            let mut flood = FloodMeter::new();
            (0..count).for_each(|_| flood.count(frame(kind)));
            flood.is_too_much(written)
        };
        assert!(!counted(PING, FRAMES, 0));
        assert!(counted(PING, FRAMES + 1, 1 << 30));
        assert!(counted(0xfa, FRAMES + 1, 0), "an unknown frame");
        assert!(counted(WINDOW_UPDATE, FRAMES + 1, 0));
        assert!(!counted(WINDOW_UPDATE, FRAMES + 1, 1 << 20));
        assert!(!counted(DATA, FRAMES + 1, 0));
    }
}
