//! One HTTP/2 connection, and the streams that are counted on it.

use std::{fmt, rc::Rc, time::Instant};

use bytes::Bytes;
use h2::client::SendRequest;

use super::state::Http2State;
use crate::wire::window::Meter;

/// A connection that takes new streams.
pub(super) struct Http2Connection {
    pub(super) send: SendRequest<Bytes>,
    pub(super) state: Rc<Http2State>,
}

/// A stream of a connection, counted for as long as this lives.
pub(crate) struct StreamPermit(Rc<Http2State>, Meter);

impl Http2Connection {
    /// One more stream, if there is room for it.
    pub(super) fn claim(&self) -> (SendRequest<Bytes>, StreamPermit) {
        let streams = &self.state.streams;
        streams.set(streams.get() + 1);
        let meter = self.state.windows.meter();
        (
            self.send.clone(),
            StreamPermit(Rc::clone(&self.state), meter),
        )
    }
}

impl StreamPermit {
    /// Octets that were given to the connection so far.
    pub(super) fn written(&self) -> u64 {
        self.0.written.get()
    }

    /// Octets that came from the connection so far.
    pub(super) fn heard(&self) -> u64 {
        self.0.heard.get()
    }

    /// Counts bytes of content that the client took.
    pub(super) fn consumed(&self, octets: usize) {
        self.1.consumed(octets);
    }

    /// Tells if the peer said that it did not process this stream (RFC 9113 §6.8).
    pub(super) fn was_left_behind(&self, stream: u32) -> bool {
        self.0.go_away.get().is_some_and(|last| stream > last)
    }

    /// Lowers the limit of streams, since the peer refused this one.
    pub(super) fn refused(&self) {
        let others = self.0.streams.get() - 1;
        self.0.taken.set(others.min(self.0.taken.get()));
    }

    /// Closes the connection for new streams.
    pub(super) fn exhausted(&self) {
        self.0.taken.set(0);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let streams = self.0.streams.get() - 1;
        self.0.streams.set(streams);
        if streams == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamPermit")
            .field(&self.0.streams.get())
            .finish()
    }
}
