//! The body of a request on a stream: content, trailers, and `100 Continue`.
//!
//! The window of a stream opens again only as content is taken (RFC 9113 §5.2), so what a client can
//! send ahead is what the window says.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::error::PayloadError;
use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use h2::RecvStream;
use http::HeaderMap;

use crate::{
    error::DownstreamError,
    wire::{
        MAX_FIELDS, MAX_HEAD, head::BodyNotes, idle::IdleTimer, role::may_trail, window::Meter,
    },
};

/// Receiving side of a stream, shared by the stream and the body of its request.
pub(super) struct StreamInbound {
    recv: RecvStream,
    /// Content that was read ahead to notice a client that does not wait for `100 Continue`.
    ahead: Option<Option<Result<Bytes, h2::Error>>>,
    pub(super) expect: Http2Expectation,
    /// Counts what is consumed, until the client has ended its side.
    meter: Option<Meter>,
}

/// State of `Expect: 100-continue` (RFC 9110 §10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http2Expectation {
    Nothing,
    /// The client waits for it.
    Waiting,
    /// The handler wants the body: `100 Continue` is sent next.
    Owed,
}

impl StreamInbound {
    pub(super) fn new(
        recv: RecvStream,
        expect: Http2Expectation,
        meter: Option<Meter>,
    ) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            recv,
            ahead: None,
            expect,
            meter,
        }))
    }

    /// Ready if the client sends content without waiting for `100 Continue`.
    pub(super) fn poll_unasked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ahead = Some(ready!(self.recv.poll_data(cx)));
        self.expect = Http2Expectation::Nothing;
        Poll::Ready(())
    }

    /// Ready once the client has ended its side.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(_)) = ready!(self.poll_data(cx)) {}
        Poll::Ready(())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        match self.ahead.take() {
            Some(ahead) => Poll::Ready(ahead),
            None => self.recv.poll_data(cx),
        }
    }
}

/// Body of a request as it arrives.
pub(super) struct Http2RequestBody {
    inbound: Rc<RefCell<StreamInbound>>,
    notes: Rc<BodyNotes>,
    /// None for a tunnel, which may be silent without limit.
    idle: Option<IdleTimer>,
    phase: BodyPhase,
}

enum BodyPhase {
    Content,
    Trailers,
    Ended,
}

impl Http2RequestBody {
    pub(super) fn new(
        inbound: Rc<RefCell<StreamInbound>>,
        notes: Rc<BodyNotes>,
        idle: Option<Duration>,
    ) -> Self {
        Self {
            inbound,
            notes,
            idle: idle.map(IdleTimer::new),
            phase: BodyPhase::Content,
        }
    }

    /// The next content; `None` at the end.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, h2::Error>> {
        let mut inbound = self.inbound.borrow_mut();
        while matches!(self.phase, BodyPhase::Content) {
            match ready!(inbound.poll_data(cx)) {
                Some(content) => {
                    let content = content?;
                    inbound.expect = Http2Expectation::Nothing;
                    inbound
                        .recv
                        .flow_control()
                        .release_capacity(content.len())?;
                    if let Some(meter) = &inbound.meter {
                        meter.consumed(content.len());
                    }
                    if !content.is_empty() {
                        if let Some(verification) = self.notes.verification.get() {
                            verification.request.content(&content);
                        }
                        return Poll::Ready(Ok(Some(content)));
                    }
                }
                None => {
                    self.phase = BodyPhase::Trailers;
                    self.notes.has_ended.set(true);
                    inbound.meter = None;
                }
            }
        }
        if matches!(self.phase, BodyPhase::Trailers) {
            let trailers = ready!(inbound.recv.poll_trailers(cx))?;
            self.phase = BodyPhase::Ended;
            self.notes
                .trailers
                .replace(trailers.as_ref().and_then(trailer_section));
        }
        Poll::Ready(Ok(None))
    }
}

impl Stream for Http2RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.poll_content(cx) {
            Poll::Ready(Ok(Some(content))) => {
                if let Some(idle) = &mut this.idle {
                    idle.heard();
                }
                let octets = &this.notes.octets;
                octets.set(octets.get() + content.len() as u64);
                Poll::Ready(Some(Ok(content)))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(_)) => failed(DownstreamError::Disconnected),
            Poll::Pending => {
                let mut inbound = this.inbound.borrow_mut();
                if inbound.expect == Http2Expectation::Waiting {
                    inbound.expect = Http2Expectation::Owed;
                    // the stream looks at it after this poll; but the poll may be of a body whose
                    // owner was woken by another task
                    cx.waker().wake_by_ref();
                }
                drop(inbound);
                let idle = this.idle.as_mut();
                if idle.is_some_and(|idle| idle.poll_silence(cx).is_ready()) {
                    return failed(DownstreamError::BodyTimeout);
                }
                Poll::Pending
            }
        }
    }
}

fn failed(cause: DownstreamError) -> Poll<Option<Result<Bytes, PayloadError>>> {
    Poll::Ready(Some(Err(PayloadError::Io(io::Error::other(cause)))))
}

/// Trailer section in HTTP/1.1 format; none if a field is not allowed in it (RFC 9110 §6.5.1), or
/// if there are too many fields.
pub fn trailer_section(trailers: &HeaderMap) -> Option<Bytes> {
    let mut octets = BytesMut::new();
    for (name, value) in trailers {
        if !may_trail(name.as_str().as_bytes()) {
            return None;
        }
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            octets.put_slice(piece);
        }
    }
    octets.put_slice(b"\r\n");
    (!trailers.is_empty() && trailers.len() <= MAX_FIELDS && octets.len() <= MAX_HEAD)
        .then(|| octets.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_become_a_section_of_http_1_1() {
        let section = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let map: HeaderMap = pairs.collect();
            trailer_section(&map)
        };
        assert_eq!(
            section(&[("x-sum", "1"), ("y", "")]).as_deref(),
            Some(&b"x-sum: 1\r\ny: \r\n\r\n"[..])
        );
        assert_eq!(section(&[]), None);
        assert_eq!(section(&[("x-sum", "1"), ("content-length", "5")]), None);
        assert_eq!(section(&[("x-sum", "1"), ("authorization", "k")]), None);
    }
}
