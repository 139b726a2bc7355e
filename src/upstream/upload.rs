//! The upload of one request body: where it stands, and what of it may still be given back.
//!
//! One state machine for both HTTP versions. It takes content from the client and hands it to a
//! [`BodyWriter`], which is the version's; it knows no connection. Its promise: **what left is never
//! sent again**. A body is given back whole, or not at all, and once:
//!
//! - by [`Upload::unsent`], if the upstream got nothing of the request, or said that it did not
//!   process it (RFC 9113 §8.7), or if there is no body and the request may be repeated;
//! - by [`Upload::answered`], if it was kept and the answer is one that another upstream may better.

use std::{
    future::Future as _,
    mem,
    pin::Pin,
    slice,
    task::{Context, Poll},
    time::Duration,
};

use actix_rt::time::{Sleep, sleep};
use bytes::Bytes;
use futures_core::Stream as _;

use super::{
    exchange::Replay,
    pieces::Pieces,
    replay::ReplayBuffer,
    request::{Body, BodyCoding, BufferedBody, Continue, StreamedBody, Switch},
};
use crate::{error::DownstreamError, wire::head::ResponseHead};

/// The way of a body to the upstream.
pub(super) trait BodyWriter {
    /// Tells if it takes more content now.
    fn has_room(&self) -> bool;

    /// Takes content, in the order of the body. A chunk of the chunked coding, if it is one.
    fn write(&mut self, content: &[Bytes], coding: BodyCoding);

    /// Takes the end of the body, and its trailer section.
    fn end(&mut self, coding: BodyCoding, trailers: Option<&Bytes>);
}

/// An upload.
#[derive(Debug)]
pub(super) struct Upload {
    state: UploadState,
    progress: UploadProgress,
    /// Keeps the sent content, if another upstream may need it.
    keep: Option<Box<ReplayBuffer>>,
}

/// The body, and its source.
#[derive(Debug)]
enum UploadState {
    /// All of it was given to the writer.
    Ended(EndedBody),
    /// More comes from the client. `first` is what came so far, as far as it is retained.
    Running(StreamedBody, Retained),
    /// More comes when the upstream says `100 Continue`, or has been silent for a while, or when
    /// the client sends unasked. A final response leaves the last: it makes the body needless.
    Waiting(StreamedBody, Option<Pin<Box<Sleep>>>),
    /// A tunnel that was asked for: more comes if the upstream switches protocols.
    Switching(Switch),
    /// It was given back; the request sent here stays incomplete.
    Taken,
}

/// A body of which no more comes.
#[derive(Debug)]
enum EndedBody {
    /// There is none.
    None,
    /// It is retained.
    Whole(BufferedBody),
    /// It is not; how it was framed, and its trailer section.
    Gone(BodyCoding, Option<Bytes>),
}

/// The beginning of a body that still runs.
#[derive(Debug)]
enum Retained {
    /// It is here, and the writer did not get it yet.
    Unread,
    /// It is here, and takes this many bytes.
    Bytes(usize),
    /// It is not here any more.
    Gone,
}

/// Progress of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadProgress {
    /// Nothing of it left, or the upstream will say whether it processed any.
    Unsent,
    /// Some of it left, and may have been processed.
    Left,
    /// It was answered.
    Answered,
}

impl Upload {
    /// An upload. The writer gets a body that is here whole.
    pub(super) fn new(
        body: Body,
        mut keep: Option<Box<ReplayBuffer>>,
        writer: &mut impl BodyWriter,
    ) -> Self {
        let state = match body {
            Body::None => UploadState::Ended(EndedBody::None),
            Body::Held(held) => {
                // pieces are references: to retain them costs no copy
                hand_on(&held.content, held.coding, &mut keep, writer);
                writer.end(held.coding, held.trailers.as_ref());
                UploadState::Ended(EndedBody::Whole(held))
            }
            Body::Streamed(incoming) => match incoming.go_ahead {
                Continue::NotExpected => UploadState::Running(incoming, Retained::Unread),
                Continue::Expected => {
                    UploadState::Waiting(incoming, Some(Box::pin(sleep(CONTINUE_PATIENCE))))
                }
            },
            Body::Tunnel(switch) => UploadState::Switching(switch),
        };
        Self {
            state,
            progress: UploadProgress::Unsent,
            keep,
        }
    }

    /// Takes content from the client while the writer has room.
    ///
    /// # Errors
    /// A fault of the client.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut impl BodyWriter,
    ) -> Result<(), DownstreamError> {
        if let UploadState::Waiting(incoming, timer) = &mut self.state {
            let timer = timer.as_mut();
            if incoming.notes.is_unasked.get()
                || timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
            {
                self.go_on();
            }
        }
        if let UploadState::Running(incoming, retained @ Retained::Unread) = &mut self.state {
            hand_on(&incoming.first, incoming.coding, &mut self.keep, writer);
            *retained = Retained::Bytes(incoming.first.iter().map(Bytes::len).sum());
            if self.progress != UploadProgress::Unsent {
                self.release();
            }
        }
        while let UploadState::Running(incoming, retained) = &mut self.state
            && writer.has_room()
        {
            match Pin::new(&mut incoming.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(content))) => {
                    retained.add(&mut incoming.first, &content);
                    let content = slice::from_ref(&content);
                    hand_on(content, incoming.coding, &mut self.keep, writer);
                }
                Poll::Ready(Some(Err(cause))) => return Err(DownstreamError::of(&cause)),
                Poll::Ready(None) => {
                    let (coding, trailers) = (incoming.coding, incoming.notes.trailers.take());
                    writer.end(coding, trailers.as_ref());
                    let content = mem::take(&mut incoming.first);
                    self.state = UploadState::Ended(match retained {
                        Retained::Gone => EndedBody::Gone(coding, trailers),
                        Retained::Unread | Retained::Bytes(_) => EndedBody::Whole(BufferedBody {
                            content,
                            coding,
                            trailers,
                        }),
                    });
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Releases the body, since the upstream asked for it. Tells if it was waiting.
    pub(super) fn go_on(&mut self) -> bool {
        let (state, is_waiting) = match mem::replace(&mut self.state, UploadState::Taken) {
            UploadState::Waiting(mut incoming, _) => {
                incoming.go_ahead = Continue::NotExpected;
                (UploadState::Running(incoming, Retained::Unread), true)
            }
            other => (other, false),
        };
        self.state = state;
        is_waiting
    }

    /// Takes note that octets of the request left, and may have been processed. Not for a version
    /// whose upstream says what it did not process.
    pub(super) fn left(&mut self) {
        if self.progress == UploadProgress::Unsent {
            self.progress = UploadProgress::Left;
            self.release();
        }
    }

    /// Takes note of a final response: the request is not sent to this upstream again, and a client
    /// that waits for `100 Continue` need not send its body (RFC 9110 §10.1.1). Returns the request,
    /// if it was kept and another upstream may give a better answer.
    ///
    /// `is_sent` tells if the writer has nothing left to write.
    pub(super) fn answered(&mut self, answer: &ResponseHead, is_sent: bool) -> Option<Box<Replay>> {
        self.progress = UploadProgress::Answered;
        let replay = self.replay(answer, is_sent && self.is_ended());
        self.release();
        match &mut self.state {
            UploadState::Waiting(_, timer) => *timer = None,
            UploadState::Switching(_) => {
                // refused: what the client sent meanwhile is its next request
                let switching = mem::replace(&mut self.state, UploadState::Ended(EndedBody::None));
                if let UploadState::Switching(switch) = switching
                    && answer.status == 101
                {
                    self.state = UploadState::Running(switch.open(), Retained::Gone);
                }
            }
            UploadState::Ended(_) | UploadState::Running(..) | UploadState::Taken => {}
        }
        replay
    }

    /// The body and its replay buffer, after a failure before any answer, if the upstream got nothing
    /// of the request or did not process it. `may_repeat` allows to give back a request without a
    /// body in any case.
    pub(super) fn unsent(mut self, may_repeat: bool) -> Option<(Body, Option<Box<ReplayBuffer>>)> {
        let is_empty = matches!(self.state, UploadState::Ended(EndedBody::None));
        match self.progress {
            UploadProgress::Unsent => {}
            UploadProgress::Left if may_repeat && is_empty => {}
            UploadProgress::Left | UploadProgress::Answered => return None,
        }
        let kept = self.keep.as_mut().and_then(|keep| keep.take());
        Some((self.take(kept)?, self.keep))
    }

    /// Tells if all of the body was given to the writer.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, UploadState::Ended(_))
    }

    /// Tells if the body was given back before its end.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.state, UploadState::Taken)
    }

    /// Tells if a 101 agrees to what was asked for.
    pub(super) fn agrees(&self, answer: &ResponseHead) -> bool {
        matches!(&self.state, UploadState::Switching(switch) if switch.agrees(answer))
    }

    /// Drops the content that is retained.
    fn release(&mut self) {
        if let UploadState::Ended(ended) = &mut self.state
            && let EndedBody::Whole(held) = ended
        {
            *ended = EndedBody::Gone(held.coding, held.trailers.take());
        } else if let UploadState::Running(incoming, retained) = &mut self.state
            && matches!(retained, Retained::Bytes(_))
        {
            incoming.first = Pieces::new();
            *retained = Retained::Gone;
        }
    }

    /// The request for another upstream, whose answer may be better than this one.
    fn replay(&mut self, answer: &ResponseHead, is_sent: bool) -> Option<Box<Replay>> {
        let mut keep = self.keep.take()?;
        // a request that still runs is not taken from a stream that may well go on
        let is_wanted = keep.is_wanted_for(answer.status.as_u16())
            || (is_sent && keep.may_be_wanted_for(answer));
        let kept = is_wanted.then(|| keep.take()).flatten()?;
        let body = self.take(Some(kept))?;
        Some(Box::new(Replay { body, keep }))
    }

    /// The body from its beginning: what is retained, or else `kept`. A client that still sends goes
    /// with it: no more comes here.
    fn take(&mut self, kept: Option<Pieces>) -> Option<Body> {
        let taken = mem::replace(&mut self.state, UploadState::Taken);
        if matches!(taken, UploadState::Ended(_)) {
            self.state = UploadState::Ended(EndedBody::None);
        }
        Some(match taken {
            UploadState::Ended(EndedBody::None) => Body::None,
            UploadState::Ended(EndedBody::Whole(held)) => Body::Held(held),
            UploadState::Ended(EndedBody::Gone(coding, trailers)) => Body::Held(BufferedBody {
                content: kept?,
                coding,
                trailers,
            }),
            UploadState::Running(incoming, Retained::Gone) => Body::Streamed(StreamedBody {
                first: kept?,
                ..incoming
            }),
            UploadState::Running(incoming, _) | UploadState::Waiting(incoming, _) => {
                Body::Streamed(incoming)
            }
            UploadState::Switching(switch) => Body::Tunnel(switch),
            UploadState::Taken => return None,
        })
    }
}

fn hand_on(
    content: &[Bytes],
    coding: BodyCoding,
    keep: &mut Option<Box<ReplayBuffer>>,
    writer: &mut impl BodyWriter,
) {
    if let Some(keep) = keep {
        content.iter().for_each(|piece| keep.push(piece));
    }
    writer.write(content, coding);
}

impl Retained {
    fn add(&mut self, first: &mut Pieces, content: &Bytes) {
        if let Self::Bytes(size) = self {
            // many small pieces take more for the references than for the content
            *size += content.len() + size_of::<Bytes>();
            if *size <= MAX_RETAINED {
                first.push(content.clone());
            } else {
                *first = Pieces::new();
                *self = Self::Gone;
            }
        }
    }
}

/// Time that a client that expects `100 Continue` waits at most for the upstream's interim response
/// (RFC 9110 §10.1.1 asks not to wait for ever; curl waits for one second).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
/// Content of a streamed body that is retained until there is an answer: the bound of one stream
/// (docs/contract.md §4.3), and more than most requests have.
const MAX_RETAINED: usize = 64 * 1024;

#[cfg(test)]
mod tests;
