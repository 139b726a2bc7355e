//! Socket under the h2 crate: scans the octets in both directions, and reports frames, unfinished
//! frames and write progress to [`FrameMonitor`].

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    fragments::FragmentScanner,
    monitor::{FrameMonitor, UnfinishedFrame},
};
use crate::{
    downstream::preface::PREFACE,
    wire::frames::{self, FramePart, Frames},
};

/// Socket of a connection, with the octets that were read of it before.
pub(super) struct GuardedSocket<S> {
    stream: Rc<RefCell<S>>,
    /// Octets that were read before it was known what they are.
    first: Bytes,
    /// Octets of the preface that are still to come.
    preface: usize,
    frames: Frames,
    paths: FragmentScanner,
    /// Frames on the way out.
    sent: Frames,
    /// True while a header block is open: only its CONTINUATION may follow.
    is_in_block: bool,
    last_kind: u8,
    watch: Rc<FrameMonitor>,
}

impl<S> GuardedSocket<S> {
    pub(super) fn new(stream: Rc<RefCell<S>>, first: Bytes, watch: Rc<FrameMonitor>) -> Self {
        Self {
            stream,
            first,
            preface: PREFACE.len(),
            frames: Frames::default(),
            paths: FragmentScanner::default(),
            sent: Frames::default(),
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
            paths,
            is_in_block,
            last_kind,
            watch,
            ..
        } = self;
        frames.scan_parts(octets, |part| {
            let frame = match part {
                FramePart::Head(frame) => frame,
                FramePart::Payload(octets) => {
                    if let Some(stream) = paths.payload(octets) {
                        watch.set_fragment(stream);
                    }
                    return;
                }
            };
            paths.frame(&frame);
            watch.count(&frame);
            *last_kind = frame.kind;
            let was_in_block = *is_in_block;
            if matches!(frame.kind, frames::HEADERS | frames::CONTINUATION) {
                *is_in_block = frame.flags & frames::END_HEADERS == 0;
            }
            if !was_in_block {
                // something was finished, so what is half finished now began in this read
                watch.set_half(None);
            }
        });
        let is_data = frames.is_inside_payload() && *last_kind == frames::DATA;
        let half = match (*is_in_block, frames.is_inside()) {
            (false, true) if is_data => Some((UnfinishedFrame::Data, Instant::now())),
            (true, _) | (_, true) => match watch.half() {
                Some((UnfinishedFrame::Head, since)) => Some((UnfinishedFrame::Head, since)),
                _ => Some((UnfinishedFrame::Head, Instant::now())),
            },
            (false, false) => None,
        };
        watch.set_half(half);
    }
}

impl<S> GuardedSocket<S> {
    /// Looks at octets that were written.
    fn look_at_sent(&mut self, octets: &[u8]) {
        let Self { sent, watch, .. } = self;
        sent.scan(octets, |frame| watch.count_sent(&frame));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.flood().is_some() {
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

impl<S: AsyncWrite + Unpin> GuardedSocket<S> {
    fn poll_with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
        octets: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let outcome = poll(Pin::new(&mut *self.stream.borrow_mut()));
        match &outcome {
            Poll::Ready(Ok(outcome)) => self.watch.wrote(Some(octets(outcome))),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.wrote(None),
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_with(|stream| stream.poll_write(cx, octets), |&count| count);
        if let Poll::Ready(Ok(count)) = written {
            self.get_mut().look_at_sent(&octets[..count]);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_with(
            |stream| stream.poll_write_vectored(cx, slices),
            |&count| count,
        );
        if let Poll::Ready(Ok(mut left)) = written {
            let this = self.get_mut();
            for slice in slices {
                let taken = slice.len().min(left);
                this.look_at_sent(&slice[..taken]);
                left -= taken;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_flush(cx), |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_shutdown(cx), |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        octets.extend([kind, flags, 0, 0, 0, 1]);
        octets.extend(payload);
        octets
    }

    fn guarded() -> GuardedSocket<()> {
        let mut guarded = GuardedSocket::new(Rc::default(), Bytes::new(), FrameMonitor::new());
        guarded.look(PREFACE);
        guarded
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
    fn resets_that_the_client_provokes_count_as_its_own() {
        let reset = |stream: u8, code: u8| {
            let mut octets = frame(frames::RST_STREAM, 0, &[0, 0, 0, code]);
            octets[8] = stream;
            octets
        };
        for (codes, flood) in [
            (&[1, 3, 5, 6][..], Some("frames that provoke RST_STREAM")),
            // ours: a refusal, a failure of the upstream, the end of an upload that is not read
            (&[0, 2, 7, 8], None),
        ] {
            let mut guarded = guarded();
            for number in 0..1100 {
                let code = codes[number % codes.len()];
                guarded.look_at_sent(&reset((number % 2) as u8, code));
            }
            assert_eq!(guarded.watch.flood(), flood, "{codes:?}");
        }
        // late frames for one stream are one fault
        let mut late = guarded();
        for _ in 0..1100 {
            late.look_at_sent(&reset(1, 5));
        }
        assert_eq!(late.watch.flood(), None);
        // half and half, they are two of the same
        let mut both = guarded();
        for number in 0..110 {
            both.look_at_sent(&reset(number, 1));
            both.look(&frame(frames::RST_STREAM, 0, &[0; 4]));
        }
        assert!(both.watch.flood().is_some());
    }

    #[test]
    fn what_is_half_finished_is_known() {
        let half = |octets: &[u8]| {
            let mut guarded = guarded();
            guarded.look(octets);
            guarded.watch.half().map(|(half, _)| half)
        };
        let ping = frame(frames::PING, 0, &[0; 8]);
        let data = frame(frames::DATA, 0, &[0; 20]);
        let block = frame(frames::HEADERS, 0, &[0x82]);
        let rest = frame(frames::CONTINUATION, frames::END_HEADERS, &[0x84]);
        for (octets, expected) in [
            (ping.clone(), None),
            (ping[..3].to_vec(), Some(UnfinishedFrame::Head)),
            (ping[..12].to_vec(), Some(UnfinishedFrame::Head)),
            (data.clone(), None),
            (data[..20].to_vec(), Some(UnfinishedFrame::Data)),
            (
                [&data[..], &ping[..5]].concat(),
                Some(UnfinishedFrame::Head),
            ),
            (block.clone(), Some(UnfinishedFrame::Head)),
            (
                [&block[..], &rest[..4]].concat(),
                Some(UnfinishedFrame::Head),
            ),
            ([&block[..], &rest[..]].concat(), None),
        ] {
            assert_eq!(half(&octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn a_header_block_stands_since_its_beginning() {
        let mut guarded = guarded();
        guarded.look(&frame(frames::HEADERS, 0, &[0x82]));
        let began = guarded.watch.half();
        guarded.look(&frame(frames::CONTINUATION, 0, &[0x84]));
        assert_eq!(guarded.watch.half(), began);
    }
}
