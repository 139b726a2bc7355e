//! One HTTP/1.1 exchange with the upstream, driven by the task that asked for it.
//!
//! Why not awc's own: docs/decisions/0004-awc-under-our-exchange.md. This one writes and reads at the
//! same time, so that an upload streams and an early answer is seen; passes over interim answers; takes
//! close-delimited bodies; tells a truncated body from a complete one; and knows whether a byte of the
//! request left, which decides whether it may be sent again. It spawns nothing and keeps no field map.
//!
//! It does not choose connections (that is [`super::pool`] and [`super::dial`]) and does not know
//! what a field means beyond framing.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::http::Method;
use bytes::Bytes;
use futures_core::Stream as _;
use tokio::io::AsyncWrite;

use super::{
    Road,
    age::Age,
    body::ResponseBody,
    dial::Stream,
    pool::{self, Pool},
    replay::{Keep, Replay},
};
use crate::{
    error::{DownstreamError, ProxyError, UpstreamError},
    wire::{
        body::{Framing, chunk_size_line},
        head::{BodyNotes, ResponseHead, may_be_complete},
        outbox::Outbox,
        pace::Pace,
        read::ReadBuffer,
    },
};

mod head;
mod request;
mod response;
mod tunnel;

use self::head::within_limit;
pub use self::{
    head::{Found, parse_head},
    request::{Body, Coding, Continue, Held, Incoming, Pieces, Request, Switch},
    response::{BodyError, ResponseBody as Http1Body},
    tunnel::Tunnel,
};

/// Octets of an upload that may wait when more is asked for; the largest read adds 48 KiB, which
/// makes the 64 KiB of docs/contract.md §4.3.
const UPLOAD_AHEAD: usize = 16 * 1024;
/// How long a client that expects `100 Continue` waits at most for the upstream's word
/// (RFC 9110 §10.1.1 asks not to wait for ever; one second is curl's patience).
pub(super) const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the upstream.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    pub(super) read: ReadBuffer,
    pub(super) age: Age,
    /// Whether it has served and was kept.
    pub(super) is_kept: bool,
}

impl Connection {
    /// A new connection.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: ReadBuffer::default(),
            age: Age::new(),
            is_kept: false,
        }
    }

    /// An idle connection has nothing to say: octets, an end or an error all mean that it is of no
    /// more use.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.read.octets.is_empty() && pool::silent(&self.read.poll_read(cx, &mut self.stream))
    }

    /// The same as the kernel knows it now: what the runtime knows may be one turn of its reactor old,
    /// and a request that is sent into a closed connection cannot be sent again.
    pub(super) fn is_open(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(self.stream.tcp()).peek(&mut octet);
        peeked.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A response whose head is complete.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// How its body is framed. [`Framing::None`] if it has none, [`Framing::UntilClose`] of a 101.
    pub framing: Framing,
    /// Its body.
    pub body: ResponseBody,
    /// The request, if it was kept and this answer is one that another upstream may better: by its
    /// status, or by its first event.
    pub replay: Option<Box<Replay>>,
    /// How it got its connection, where somebody wants to know.
    pub road: Option<Road>,
}

/// Why an exchange failed before its response head was complete.
#[derive(Debug)]
pub enum Failed {
    /// No octet of the request left, or the upstream said that it did not process it (RFC 9113
    /// §8.7), or it may be sent again whatever became of it (RFC 9110 §9.2.2): here it is back.
    Unsent(Box<Request>, UpstreamError),
    /// It cannot be sent again.
    Sent(ProxyError),
}

/// Sends a request over a connection and waits for the response head.
///
/// # Errors
/// [`Failed::Unsent`] only if the connection was dead before anything was written to it; or if it was a
/// kept one that closed before any octet of an answer, and the request may be repeated.
pub async fn exchange(
    connection: Connection,
    request: Request,
    pool: &Rc<Pool>,
) -> Result<Response, Failed> {
    let mut exchange = Exchange::new(connection, &request.head, request.body, request.keep);
    let mut parsed_to = 0;
    let mut patience = Patience::new(request.patience);
    let mut patience_timer = pin!(actix_rt::time::sleep_until(patience.deadline().into()));
    let outcome = poll_fn(|cx| {
        loop {
            if let Err(cause) = exchange.poll_upload(cx) {
                return Poll::Ready(Err(ProxyError::Downstream(cause)));
            }
            patience.progress(exchange.sent);
            match exchange.parse(&request.method, &mut parsed_to) {
                Ok(Some(found)) => return Poll::Ready(Ok(found)),
                // the upstream said `100 Continue`: the body may be polled now
                Ok(None) if std::mem::take(&mut exchange.goes_on) => continue,
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Err(cause.into())),
            }
            let cause = match exchange.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {
                    exchange.is_heard = true;
                    continue;
                }
                Poll::Ready(Ok(0)) => exchange.write_error.take(),
                Poll::Ready(Err(cause)) => Some(cause),
                Poll::Pending if patience_timer.as_mut().poll(cx).is_ready() => {
                    if patience.deadline() > Instant::now() {
                        patience_timer.as_mut().reset(patience.deadline().into());
                        continue;
                    }
                    return Poll::Ready(Err(UpstreamError::HttpResponseTimeout.into()));
                }
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(Err(UpstreamError::ConnectionTerminated(cause).into()));
        }
    })
    .await;
    match outcome {
        Ok(found) => Ok(exchange.respond(found, pool)),
        Err(ProxyError::Upstream(cause @ UpstreamError::ConnectionTerminated(_)))
            if exchange.sent == 0
                || (exchange.connection.is_kept
                    && !exchange.is_heard
                    && is_repeatable(&request.method)
                    && matches!(exchange.upload, Upload::Done(Kept::None))) =>
        {
            let Some((body, keep)) = exchange.unsent_body() else {
                return Err(Failed::Sent(cause.into()));
            };
            let request = Request {
                body,
                keep,
                ..request
            };
            Err(Failed::Unsent(Box::new(request), cause))
        }
        Err(cause) => Err(Failed::Sent(cause)),
    }
}

/// Whether a request of this method, without content, may be sent again once whatever became of it (RFC
/// 9110 §9.2.2). Other idempotent methods are left to their clients: what they change is not ours to
/// judge.
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The timer for the response head: counted from the last octet that left, so that an upload of an
/// hour does not use up the patience for the answer.
pub(super) struct Patience {
    limit: Duration,
    since: Instant,
    sent: u64,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            sent: 0,
        }
    }

    pub(super) fn progress(&mut self, sent: u64) {
        // the first write happens at once: the start is good enough for it
        if sent > self.sent {
            if self.sent > 0 {
                self.since = Instant::now();
            }
            self.sent = sent;
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.since + self.limit
    }
}

/// A running exchange: both directions of one connection.
#[derive(Debug)]
struct Exchange {
    connection: Connection,
    outbox: Outbox,
    pace: Pace,
    upload: Upload,
    /// Keeps what leaves, where another upstream may need it.
    keep: Option<Box<Keep>>,
    /// Octets of the request that left.
    sent: u64,
    /// Whether an octet came from the upstream.
    is_heard: bool,
    flushed: bool,
    /// Whether the body was released and not polled since.
    goes_on: bool,
    /// Why writing stopped. Reading goes on: an answer may be waiting.
    write_error: Option<io::Error>,
}

/// What is left of the request body.
#[derive(Debug)]
enum Upload {
    /// All of it is in the outbox, or left.
    Done(Kept),
    /// More comes from the client.
    Running(Incoming),
    /// More comes when the upstream says `100 Continue`, or has been silent for a while, or when
    /// the client sends unasked. A final response leaves the last: it makes the body needless.
    Waiting(Incoming, Option<Pin<Box<actix_rt::time::Sleep>>>),
    /// It went on to another upstream; what was sent here stays incomplete.
    Taken,
    /// A tunnel that was asked for: more comes if the upstream switches protocols.
    Switching(Switch),
}

/// A body that can be given back.
#[derive(Debug)]
enum Kept {
    /// There is none.
    None,
    /// As long as nothing of it left.
    Held(Held),
    /// If its content was kept: how it was framed, and its trailer section.
    Sent(Coding, Option<Bytes>),
}

impl Exchange {
    fn new(connection: Connection, head: &Bytes, body: Body, mut keep: Option<Box<Keep>>) -> Self {
        let mut outbox = Outbox::default();
        outbox.push(head.clone());
        let upload = match body {
            Body::None => Upload::Done(Kept::None),
            Body::Held(held) => {
                if let Some(keep) = &mut keep {
                    held.content.iter().for_each(|piece| keep.push(piece));
                }
                push_content(&mut outbox, &held.content, held.coding);
                if held.coding == Coding::Chunked {
                    push_all(&mut outbox, BodyNotes::end_with(held.trailers.clone()));
                }
                // pieces are references: to keep them costs no copy
                Upload::Done(Kept::Held(held))
            }
            Body::Streamed(mut incoming) => match incoming.go_ahead {
                Continue::NotExpected => {
                    let first = std::mem::take(&mut incoming.first);
                    if let Some(keep) = &mut keep {
                        first.iter().for_each(|piece| keep.push(piece));
                    }
                    push_content(&mut outbox, &first, incoming.coding);
                    Upload::Running(incoming)
                }
                Continue::Expected => {
                    let timer = Box::pin(actix_rt::time::sleep(CONTINUE_PATIENCE));
                    Upload::Waiting(incoming, Some(timer))
                }
            },
            Body::Tunnel(switch) => Upload::Switching(switch),
        };
        Self {
            connection,
            outbox,
            pace: Pace::default(),
            upload,
            keep,
            sent: 0,
            is_heard: false,
            flushed: true,
            goes_on: false,
            write_error: None,
        }
    }

    /// Moves what can be moved from the client to the upstream, as long as it is its turn.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        while self.pace.poll_turn(cx).is_ready() {
            match self.poll_round(cx) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => break,
            }
        }
        self.flush(cx);
        if self.upload_is_done() {
            // no more is moved: a turn that is not taken would hold up all others
            self.pace = Pace::default();
        }
        Ok(())
    }

    /// The same while the response comes.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        if self.upload_is_done() {
            return Ok(());
        }
        self.poll_upload(cx)
    }

    /// Takes from the client what there is room for, and writes once. `Pending` when nothing more
    /// can be moved now.
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DownstreamError>> {
        if self.write_error.is_some() {
            return Poll::Pending;
        }
        self.pull(cx)?;
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.outbox.poll_write(cx, &mut self.connection.stream)) {
            Ok(written) => {
                self.sent += written as u64;
                self.pace.spend(written);
                self.flushed = false;
                if let Upload::Done(kept) = &mut self.upload
                    && let Kept::Held(held) = kept
                {
                    *kept = Kept::Sent(held.coding, held.trailers.take());
                }
            }
            Err(cause) => self.write_error = Some(cause),
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.flushed {
            match Pin::new(&mut self.connection.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(cause)) => self.write_error = Some(cause),
                Poll::Pending => {}
            }
        }
    }

    /// Takes content from the client while there is room.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        if let Upload::Waiting(incoming, timer) = &mut self.upload
            && (incoming.notes.is_unasked.get()
                || timer
                    .as_mut()
                    .is_some_and(|timer| timer.as_mut().poll(cx).is_ready()))
        {
            self.go_on();
        }
        while self.outbox.octets() < UPLOAD_AHEAD {
            let Upload::Running(incoming) = &mut self.upload else {
                break;
            };
            match Pin::new(&mut incoming.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(content))) => {
                    if let Some(keep) = &mut self.keep {
                        keep.push(&content);
                    }
                    push_content(&mut self.outbox, &[content], incoming.coding);
                }
                Poll::Ready(Some(Err(cause))) => return Err(DownstreamError::of(&cause)),
                Poll::Ready(None) => {
                    let (coding, trailers) = (incoming.coding, incoming.notes.trailers.take());
                    if coding == Coding::Chunked {
                        push_all(&mut self.outbox, BodyNotes::end_with(trailers.clone()));
                    }
                    self.upload = Upload::Done(Kept::Sent(coding, trailers));
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The upstream wants the body.
    fn go_on(&mut self) {
        self.upload = match std::mem::replace(&mut self.upload, Upload::Taken) {
            Upload::Waiting(incoming, _) => {
                self.goes_on = true;
                Upload::Running(incoming)
            }
            other => other,
        };
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Connection { stream, read, .. } = &mut self.connection;
        read.poll_read(cx, stream)
    }

    /// The final response head, if it is there. Interim ones are passed over (RFC 9110 §15.2).
    fn parse(
        &mut self,
        method: &Method,
        parsed_to: &mut usize,
    ) -> Result<Option<Found>, UpstreamError> {
        loop {
            let buffer = &mut self.connection.read.octets;
            if buffer.is_empty() {
                return Ok(None);
            }
            // the first octets are parsed at once, so that a wrong protocol is seen at once
            if *parsed_to > 0 && !may_be_complete(buffer, *parsed_to) {
                *parsed_to = buffer.len();
                return within_limit(buffer.len()).map(|()| None);
            }
            *parsed_to = buffer.len();
            let Some(found) = parse_head(buffer, method)? else {
                return within_limit(buffer.len()).map(|()| None);
            };
            *parsed_to = 0;
            match found.head.status.as_u16() {
                101 => {
                    return match &self.upload {
                        Upload::Switching(switch) if switch.agrees(&found.head) => Ok(Some(found)),
                        _ => Err(UpstreamError::HttpUpgradeFailed),
                    };
                }
                100 => self.go_on(),
                102..=199 => {}
                _ => return Ok(Some(found)),
            }
        }
    }

    fn respond(mut self, found: Found, pool: &Rc<Pool>) -> Response {
        // the response may stand unpolled while another upstream is asked: it waits for no turn then
        self.pace = Pace::default();
        let Found {
            head,
            mut framing,
            mut reusable,
        } = found;
        let replay = match &self.keep {
            Some(keep) if keep.is_wanted_for(head.status.as_u16()) => {
                self.take_body().map(Box::new)
            }
            // a request that still runs is not taken from a stream that may well go on
            Some(keep) if keep.may_be_wanted_for(&head) && self.upload_is_done() => {
                self.take_body().map(Box::new)
            }
            _ => None,
        };
        self.keep = None;
        match &mut self.upload {
            // a client that was told the outcome need not send its body any more (RFC 9110 §10.1.1)
            Upload::Waiting(_, timer) => *timer = None,
            Upload::Switching(_) => {
                // refused: what the client sent meanwhile is its next request
                let upload = std::mem::replace(&mut self.upload, Upload::Done(Kept::None));
                if let Upload::Switching(switch) = upload
                    && head.status == 101
                {
                    self.upload = Upload::Running(switch.open());
                    (framing, reusable) = (Framing::UntilClose, false);
                }
            }
            Upload::Done(_) | Upload::Running(_) | Upload::Taken => {}
        }
        let body = ResponseBody::Http1(Http1Body::new(self, framing, reusable, pool));
        Response {
            head,
            framing,
            body,
            replay,
            road: None,
        }
    }

    /// The body, if all of it is still here.
    fn unsent_body(mut self) -> Option<(Body, Option<Box<Keep>>)> {
        let body = match self.upload {
            Upload::Done(Kept::None) => Body::None,
            Upload::Done(Kept::Held(held)) => Body::Held(held),
            Upload::Waiting(incoming, _) => Body::Streamed(incoming),
            Upload::Switching(switch) => Body::Tunnel(switch),
            // content that was pulled is in the outbox, framed: it is not taken apart again
            Upload::Running(..) | Upload::Done(Kept::Sent(..)) | Upload::Taken => {
                let Replay { body, keep } = self.take_body()?;
                return Some((body, Some(keep)));
            }
        };
        let mut keep = self.keep;
        if let Some(keep) = &mut keep {
            keep.take();
        }
        Some((body, keep))
    }

    /// The body from its beginning, if it was kept. What did not leave yet does not leave any more.
    fn take_body(&mut self) -> Option<Replay> {
        let mut keep = self.keep.take()?;
        let content = keep.take()?;
        let is_written = self.upload_is_done();
        let body = match std::mem::replace(&mut self.upload, Upload::Taken) {
            Upload::Done(kept) => {
                let (body, same) = match kept {
                    Kept::None => (Body::None, Kept::None),
                    Kept::Held(held) => {
                        let sent = Kept::Sent(held.coding, None);
                        (Body::Held(held), sent)
                    }
                    Kept::Sent(coding, trailers) => {
                        let held = Held {
                            content,
                            coding,
                            trailers,
                        };
                        (Body::Held(held), Kept::Sent(coding, None))
                    }
                };
                if is_written {
                    self.upload = Upload::Done(same);
                }
                body
            }
            Upload::Running(incoming) => Body::Streamed(Incoming {
                first: content,
                go_ahead: Continue::NotExpected,
                ..incoming
            }),
            Upload::Waiting(incoming, _) => Body::Streamed(incoming),
            Upload::Switching(switch) => Body::Tunnel(switch),
            Upload::Taken => return None,
        };
        Some(Replay { body, keep })
    }
}

fn push_all(outbox: &mut Outbox, pieces: [Bytes; 2]) {
    for piece in pieces {
        outbox.push(piece);
    }
}

fn push_content(outbox: &mut Outbox, pieces: &[Bytes], coding: Coding) {
    let octets: usize = pieces.iter().map(Bytes::len).sum();
    if octets == 0 {
        return;
    }
    if coding == Coding::Chunked {
        outbox.push(chunk_size_line(octets));
    }
    for piece in pieces {
        outbox.push(piece.clone());
    }
    if coding == Coding::Chunked {
        outbox.push(Bytes::from_static(b"\r\n"));
    }
}

impl Exchange {
    /// Whether the whole request left.
    fn upload_is_done(&self) -> bool {
        matches!(self.upload, Upload::Done(_))
            && self.outbox.is_empty()
            && self.flushed
            && self.write_error.is_none()
    }
}
