//! One HTTP/1.1 exchange with the upstream, driven by the task that asked for it.
//!
//! Why not awc's own: contract §7. This one writes and reads at the same time, so that an upload
//! streams and an early answer is seen; passes over interim answers; takes close-delimited bodies;
//! tells a truncated body from a complete one; and knows whether a byte of the request left, which
//! decides whether it may be sent again. It spawns nothing and keeps no field map.
//!
//! It does not choose connections (that is [`super::pool`] and [`super::dial`]) and does not know
//! what a field means beyond framing.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_web::{
    dev::Payload,
    http::{Method, StatusCode},
};
use bytes::Bytes;
use futures_core::Stream as _;
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::{
    dial::Stream,
    pool::{self, Pool},
};
use crate::{
    error::{DownstreamError, ProxyError, UpstreamError},
    framing::{
        MAX_FIELDS, MAX_HEAD,
        body::{Decoded, Decoder, Framing, chunk_size_line},
        head::{BodyNotes, Fields, ResponseHead, Role, content_length, may_be_complete, tokens},
        outbox::Outbox,
        read::ReadBuffer,
    },
};

/// Octets of an upload that may wait when more is asked for; the largest read adds 48 KiB, which
/// makes the 64 KiB of contract §4.
const UPLOAD_AHEAD: usize = 16 * 1024;
/// How long a client that expects `100 Continue` waits at most for the upstream's word
/// (RFC 9110 §10.1.1 asks not to wait for ever; one second is curl's patience).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the upstream.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    pub(super) read: ReadBuffer,
    pub(super) generation: u64,
}

impl Connection {
    /// A new connection, made under this generation of the pool.
    pub fn new(stream: Stream, generation: u64) -> Self {
        Self {
            stream,
            read: ReadBuffer::default(),
            generation,
        }
    }

    /// An idle connection has nothing to say: octets, an end or an error all mean that it is of no
    /// more use.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.read.octets.is_empty() && pool::silent(&self.read.poll_read(cx, &mut self.stream))
    }
}

/// A request to be sent.
#[derive(Debug)]
pub struct Request {
    /// The whole head, up to and with the empty line.
    pub head: Bytes,
    /// The method, which decides whether the response has a body.
    pub method: Method,
    /// The body.
    pub body: Body,
    /// Time for the response head, counted from the last octet of the request that left.
    pub patience: Duration,
}

/// A request body.
#[derive(Debug)]
pub enum Body {
    /// None.
    None,
    /// Complete in memory.
    Held(Held),
    /// As it comes.
    Streamed(Incoming),
}

/// A request body that has arrived.
#[derive(Debug)]
pub struct Held {
    /// The content.
    pub content: Pieces,
    /// Its framing towards the upstream.
    pub coding: Coding,
    /// Its raw trailer section, which a chunked body may have.
    pub trailers: Option<Bytes>,
}

/// Content in order, in one or more pieces.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// A request body that is still arriving.
pub struct Incoming {
    /// What was read before it was decided to stream.
    pub first: Pieces,
    /// The rest.
    pub payload: Payload,
    /// Its framing towards the upstream.
    pub coding: Coding,
    /// Whether it waits for the upstream's word.
    pub go_ahead: Continue,
    /// Where its trailer section will be.
    pub notes: Rc<BodyNotes>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("coding", &self.coding)
            .field("go_ahead", &self.go_ahead)
            .finish_non_exhaustive()
    }
}

/// How a request body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is, under a `Content-Length`.
    Length,
    /// In chunks.
    Chunked,
}

/// Whether the body waits for `100 Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continue {
    /// The client sends on its own.
    NotExpected,
    /// The client waits for the upstream's word, and so does the body.
    Expected,
}

/// A response whose head is complete.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// How its body is framed. [`Framing::None`] if it has none.
    pub framing: Framing,
    /// Its body.
    pub body: ResponseBody,
}

/// Why an exchange failed before its response head was complete.
#[derive(Debug)]
pub enum Failed {
    /// No octet of the request left: here it is back.
    Unsent(Box<Request>, UpstreamError),
    /// It cannot be sent again.
    Sent(ProxyError),
}

/// Why a response body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream closed the connection too early.
    #[error("upstream closed inside of the body")]
    Truncated,
    /// The connection failed.
    #[error("upstream connection failed inside of the body")]
    Io(#[source] io::Error),
    /// The chunked coding is broken.
    #[error("malformed chunked response body")]
    Malformed,
    /// The client failed while its upload was still running.
    #[error("request body failed: {0}")]
    Downstream(DownstreamError),
}

/// Sends a request over a connection and waits for the response head.
///
/// # Errors
/// [`Failed::Unsent`] only if the connection was dead before anything was written to it.
pub async fn exchange(
    connection: Connection,
    request: Request,
    pool: &Rc<Pool>,
) -> Result<Response, Failed> {
    let mut exchange = Exchange::new(connection, &request.head, request.body);
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
                Poll::Ready(Ok(1..)) => continue,
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
            if exchange.sent == 0 =>
        {
            let Some(body) = exchange.unsent_body() else {
                return Err(Failed::Sent(cause.into()));
            };
            Err(Failed::Unsent(Box::new(Request { body, ..request }), cause))
        }
        Err(cause) => Err(Failed::Sent(cause)),
    }
}

/// The timer for the response head: counted from the last octet that left, so that an upload of an
/// hour does not use up the patience for the answer.
struct Patience {
    limit: Duration,
    since: Instant,
    sent: u64,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            sent: 0,
        }
    }

    fn progress(&mut self, sent: u64) {
        // the first write happens at once: the start is good enough for it
        if sent > self.sent {
            if self.sent > 0 {
                self.since = Instant::now();
            }
            self.sent = sent;
        }
    }

    fn deadline(&self) -> Instant {
        self.since + self.limit
    }
}

/// A running exchange: both directions of one connection.
#[derive(Debug)]
struct Exchange {
    connection: Connection,
    outbox: Outbox,
    upload: Upload,
    /// Octets of the request that left.
    sent: u64,
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
}

/// A body that can be given back as long as nothing of it left.
#[derive(Debug)]
enum Kept {
    None,
    Held(Held),
    Gone,
}

impl Exchange {
    fn new(connection: Connection, head: &Bytes, body: Body) -> Self {
        let mut outbox = Outbox::default();
        outbox.push(head.clone());
        let upload = match body {
            Body::None => Upload::Done(Kept::None),
            Body::Held(held) => {
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
                    push_content(&mut outbox, &first, incoming.coding);
                    Upload::Running(incoming)
                }
                Continue::Expected => {
                    let timer = Box::pin(actix_rt::time::sleep(CONTINUE_PATIENCE));
                    Upload::Waiting(incoming, Some(timer))
                }
            },
        };
        Self {
            connection,
            outbox,
            upload,
            sent: 0,
            flushed: true,
            goes_on: false,
            write_error: None,
        }
    }

    /// Moves what can be moved from the client to the upstream.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        loop {
            if self.write_error.is_some() {
                return Ok(());
            }
            self.pull(cx)?;
            if self.outbox.is_empty() {
                break;
            }
            match self.outbox.poll_write(cx, &mut self.connection.stream) {
                Poll::Ready(Ok(written)) => {
                    self.sent += written as u64;
                    self.flushed = false;
                    if let Upload::Done(kept) = &mut self.upload {
                        *kept = Kept::Gone;
                    }
                }
                Poll::Ready(Err(cause)) => self.write_error = Some(cause),
                Poll::Pending => break,
            }
        }
        if !self.flushed {
            match Pin::new(&mut self.connection.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(cause)) => self.write_error = Some(cause),
                Poll::Pending => {}
            }
        }
        Ok(())
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
                    push_content(&mut self.outbox, &[content], incoming.coding);
                }
                Poll::Ready(Some(Err(cause))) => return Err(DownstreamError::of(&cause)),
                Poll::Ready(None) => {
                    if incoming.coding == Coding::Chunked {
                        let end = BodyNotes::end_of_chunks(Some(&incoming.notes));
                        push_all(&mut self.outbox, end);
                    }
                    self.upload = Upload::Done(Kept::Gone);
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The upstream wants the body.
    fn go_on(&mut self) {
        let upload = std::mem::replace(&mut self.upload, Upload::Done(Kept::Gone));
        self.upload = match upload {
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
                101 => return Err(UpstreamError::HttpUpgradeFailed),
                100 => self.go_on(),
                102..=199 => {}
                _ => return Ok(Some(found)),
            }
        }
    }

    fn respond(mut self, found: Found, pool: &Rc<Pool>) -> Response {
        // a client that was told the outcome need not send its body any more (RFC 9110 §10.1.1)
        if let Upload::Waiting(_, timer) = &mut self.upload {
            *timer = None;
        }
        let Found {
            head,
            framing,
            reusable,
        } = found;
        let mut body = ResponseBody {
            decoder: Decoder::new(framing),
            exchange: Some(self),
            pool: Rc::clone(pool),
            reusable,
            trailers: None,
        };
        if body.decoder.is_done() {
            body.finish();
        }
        Response {
            head,
            framing,
            body,
        }
    }

    /// The body, if all of it is still here.
    fn unsent_body(self) -> Option<Body> {
        match self.upload {
            Upload::Done(Kept::None) => Some(Body::None),
            Upload::Done(Kept::Held(held)) => Some(Body::Held(held)),
            Upload::Waiting(incoming, _) => Some(Body::Streamed(incoming)),
            // content that was pulled is in the outbox, framed: it is not taken apart again
            Upload::Running(..) | Upload::Done(Kept::Gone) => None,
        }
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

fn within_limit(octets: usize) -> Result<(), UpstreamError> {
    if octets > MAX_HEAD {
        Err(UpstreamError::HttpResponseHeaderSectionSize)
    } else {
        Ok(())
    }
}

/// A parsed response head.
#[derive(Debug)]
pub struct Found {
    /// The head.
    pub head: ResponseHead,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection may serve again after it.
    pub reusable: bool,
}

/// Parses one head and takes it from the buffer; `None` if it is not complete.
///
/// # Errors
/// Whatever is not a response head of RFC 9112, or frames its body in two ways.
pub fn parse_head(
    buffer: &mut bytes::BytesMut,
    method: &Method,
) -> Result<Option<Found>, UpstreamError> {
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let result = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        buffer,
        &mut slots,
    );
    let length = match result {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(UpstreamError::HttpResponseHeaderSectionSize);
        }
        Err(_) => return Err(UpstreamError::HttpProtocolError),
    };
    within_limit(length)?;
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(UpstreamError::HttpProtocolError)?;
    let version_11 = parsed.version == Some(1);
    let reason = parsed.reason.unwrap_or_default();
    let reason_at = (reason.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    let reason = if reason.is_empty() {
        0..0
    } else {
        reason_at..reason_at + reason.len()
    };
    let spans = Fields::spans(buffer.as_ptr(), parsed.headers);
    let raw = buffer.split_to(length).freeze();
    let fields = Fields::with_spans(raw.clone(), spans);
    let head = ResponseHead {
        status,
        reason: raw.slice(reason),
        fields,
    };
    let (framing, reusable) = response_framing(&head, method, version_11)?;
    Ok(Some(Found {
        head,
        framing,
        reusable,
    }))
}

/// How the body ends (RFC 9112 §6.3), and whether the connection may serve again.
fn response_framing(
    head: &ResponseHead,
    method: &Method,
    version_11: bool,
) -> Result<(Framing, bool), UpstreamError> {
    let mut length = None;
    let mut chunked = false;
    let mut reusable = version_11;
    for field in head.fields.iter() {
        match field.role() {
            Role::ContentLength => {
                let value =
                    content_length(field.value).ok_or(UpstreamError::HttpResponseTransferCoding)?;
                if length.is_some_and(|earlier| earlier != value) {
                    return Err(UpstreamError::HttpResponseTransferCoding);
                }
                length = Some(value);
            }
            Role::TransferEncoding => {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(UpstreamError::HttpResponseTransferCoding);
                }
                chunked = true;
            }
            Role::Connection => {
                for token in tokens(field.value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        reusable = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") && !version_11 {
                        reusable = true;
                    }
                }
            }
            _ => {}
        }
    }
    let status = head.status.as_u16();
    Ok(match (chunked, length) {
        _ if *method == Method::HEAD || matches!(status, 100..=199 | 204 | 304) => {
            (Framing::None, reusable)
        }
        // both: Transfer-Encoding wins, and the connection is not trusted again (§6.3, 3.)
        (true, length) => (Framing::Chunked, reusable && length.is_none()),
        (false, Some(0)) => (Framing::Length(0), reusable),
        (false, Some(length)) => (Framing::Length(length), reusable),
        (false, None) => (Framing::UntilClose, false),
    })
}

/// The body of a response. To drop it before its end closes the connection to the upstream.
#[derive(Debug)]
pub struct ResponseBody {
    decoder: Decoder,
    exchange: Option<Exchange>,
    pool: Rc<Pool>,
    reusable: bool,
    trailers: Option<Bytes>,
}

impl ResponseBody {
    /// More content, `None` at the end. Drives the rest of the upload, too.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let outcome = self.poll_inner(cx);
        if let Poll::Ready(Some(Err(_))) = outcome {
            self.exchange = None;
        }
        outcome
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let Some(exchange) = &mut self.exchange else {
                return Poll::Ready(None);
            };
            if !exchange.upload_is_done()
                && let Err(cause) = exchange.poll_upload(cx)
            {
                return Poll::Ready(Some(Err(BodyError::Downstream(cause))));
            }
            match self.decoder.decode(&mut exchange.connection.read.octets) {
                Ok(Decoded::Content(content)) => {
                    if self.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(content)));
                }
                Ok(Decoded::End(trailers)) => {
                    self.trailers = trailers;
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
            match exchange.poll_read(cx) {
                Poll::Ready(Ok(0)) if self.decoder.ends_with_connection() => {
                    self.exchange = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(BodyError::Truncated))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Some(Err(BodyError::Io(cause)))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether the whole response was read.
    pub fn is_done(&self) -> bool {
        self.exchange.is_none()
    }

    /// The raw trailer section, once the body has ended.
    pub fn take_trailers(&mut self) -> Option<Bytes> {
        self.trailers.take()
    }

    /// The response is complete: the connection may serve again, or is closed.
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && self.reusable
            && exchange.upload_is_done()
            && exchange.connection.read.octets.is_empty()
        {
            self.pool.put(exchange.connection);
        }
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn parse(head: &str, method: &Method) -> Result<(Framing, bool), UpstreamError> {
        let found = parse_head(&mut BytesMut::from(head), method)?.unwrap();
        Ok((found.framing, found.reusable))
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_rfc_has_it() {
        let (get, head) = (Method::GET, Method::HEAD);
        for (text, method, expected) in [
            ("HTTP/1.1 200 OK\r\n", &get, (Framing::UntilClose, false)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
                &get,
                (Framing::Length(0), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
                &get,
                (Framing::Chunked, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Chunked, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n",
                &get,
                (Framing::Length(5), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
                &get,
                (Framing::Length(5), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
                &get,
                (Framing::Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                &head,
                (Framing::None, true),
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
                &get,
                (Framing::None, true),
            ),
            ("HTTP/1.1 204 No Content\r\n", &get, (Framing::None, true)),
        ] {
            assert_eq!(
                parse(&format!("{text}\r\n"), method).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn contradictions_and_other_protocols_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            assert!(
                parse_head(&mut BytesMut::from(text), &Method::GET).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn reason_and_fields_are_kept_as_they_came() {
        let mut octets =
            BytesMut::from(&b"HTTP/1.1 529 \xc3\x9cberlastet \r\nSet-Cookie: a\r\nset-cookie: \xff\r\nE:\r\n\r\nrest"[..]);
        let found = parse_head(&mut octets, &Method::GET);
        let Ok(Some(found)) = found else {
            panic!("{found:?}")
        };
        assert_eq!(found.head.status, 529);
        let fields: Vec<_> = found
            .head
            .fields
            .iter()
            .map(|f| (f.name, f.value))
            .collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"Set-Cookie", b"a"), (b"set-cookie", b"\xff"), (b"E", b"")];
        assert_eq!(fields, expected);
        assert_eq!(octets, "rest");
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_fail_hard(
            octets in prop::collection::vec(
                prop::sample::select(&b"HTTP/1.1 200 OK\r\n:Content-Length5chunkedTransfer-Encoding\x00\xff \t"[..]),
                0..120,
            ),
        ) {
            let mut buffer = BytesMut::from(&octets[..]);
            if let Ok(Some(_)) = parse_head(&mut buffer, &Method::GET) {
                prop_assert!(buffer.len() < octets.len());
            } else {
                prop_assert_eq!(&buffer[..], &octets[..], "nothing is taken");
            }
        }

        #[test]
        fn a_written_head_is_read_back(
            status in 200_u16..600,
            fields in prop::collection::vec(("[A-Za-z][A-Za-z-]{0,12}", "[!-~]{0,12}"), 0..20),
        ) {
            prop_assume!(fields.iter().all(|(name, _)| Role::of(name.as_bytes()) == Role::EndToEnd));
            let mut text = format!("HTTP/1.1 {status} R\r\n");
            for (name, value) in &fields {
                text += &format!("{name}: {value}\r\n");
            }
            let mut buffer = BytesMut::from(format!("{text}\r\n").as_str());
            let found = parse_head(&mut buffer, &Method::GET).unwrap().unwrap();
            prop_assert_eq!(found.head.status.as_u16(), status);
            let read: Vec<(String, String)> = found
                .head
                .fields
                .iter()
                .map(|field| {
                    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
                    (text(field.name), text(field.value))
                })
                .collect();
            prop_assert_eq!(read, fields);
        }
    }
}
