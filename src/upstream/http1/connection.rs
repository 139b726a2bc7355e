//! One HTTP/1.1 connection: its stream, its read buffer and its age.

use std::{
    io,
    mem::MaybeUninit,
    task::{Context, Poll},
};

use crate::{
    upstream::{age::Age, dial::Stream},
    wire::read::ReadBuffer,
};

/// A connection to the upstream.
#[derive(Debug)]
pub struct Http1Connection {
    pub(super) stream: Stream,
    pub(super) read: ReadBuffer,
    pub(super) age: Age,
    /// Set once it has served an exchange and was pooled.
    pub(super) is_kept: bool,
}

impl Http1Connection {
    /// A new connection.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: ReadBuffer::default(),
            age: Age::new(),
            is_kept: false,
        }
    }

    /// Tells if nothing arrived on an idle connection: bytes, an end or an error all make it
    /// unusable.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.read.octets.is_empty() && silent(&self.read.poll_read(cx, &mut self.stream))
    }

    /// Tells if the connection is open and quiet as the kernel knows it now: the runtime may lag by
    /// one turn of its reactor, and a request that is sent into a closed connection cannot be sent
    /// again.
    pub(super) fn is_open(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(self.stream.tcp()).peek(&mut octet);
        peeked.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The answer to a poll of a connection that should be silent.
fn silent<T, E>(read: &Poll<Result<T, E>>) -> bool {
    read.is_pending()
}
