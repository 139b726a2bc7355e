//! Property test of the promise that no octet which left is sent again: a request goes from upstream to
//! upstream, and everything that may happen to it happens in any order.

use std::{cell::RefCell, collections::VecDeque, iter, rc::Rc, sync::Arc, task::Waker};

use actix_web::{dev::Payload, error::PayloadError, http::StatusCode};
use futures_util::stream::poll_fn;
use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    config::Statuses,
    memory::Budget,
    upstream::first_event,
    wire::head::{BodyNotes, Fields},
};

/// Octets of the content, again and again: their number is prime, so that no piece looks like its neighbour.
const CYCLE: [u8; 251] = {
    let mut octets = [0; 251];
    let mut at = 0;
    while at < octets.len() {
        octets[at] = at as u8;
        at += 1;
    }
    octets
};
/// Octets of the head, which leave before the content.
const HEAD: usize = 3;

/// Something that happens to an upload.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The client sends a piece of this many octets.
    Arrives(usize),
    /// The client ends the body.
    Ends,
    /// The client is known not to wait for `100 Continue`.
    Unasked,
    /// The upload is polled.
    Polled,
    /// The socket takes up to this many octets.
    Writes(usize),
    /// The upstream says `100 Continue`.
    GoesAhead,
    /// The upstream says nothing for long.
    Silence,
    /// The upstream answers: with a wanted status, an event stream, or anything else.
    Answers(Answer),
    /// The connection is lost before an answer.
    Lost { may_repeat: bool },
    /// The upstream says that it did not process the request.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Wanted,
    EventStream,
    Final,
}

/// The version of an upstream, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A request that left in part may have been processed.
    Http1,
    /// The upstream says what it did not process.
    Http2,
}

/// A request body as the proxy has it at first.
#[derive(Debug, Clone)]
enum Origin {
    None,
    Held(Vec<usize>),
    Streamed(Vec<usize>, Continue),
}

/// The client's side of a body.
#[derive(Default)]
struct ClientSide {
    /// All that the client sent, ever.
    sent: Vec<u8>,
    unread: VecDeque<Bytes>,
    has_ended: bool,
}

impl ClientSide {
    fn sends(&mut self, size: usize) -> Bytes {
        let at = self.sent.len();
        while self.sent.len() < at + size {
            let from = self.sent.len() % CYCLE.len();
            let most = at + size - self.sent.len();
            let piece = &CYCLE[from..];
            self.sent.extend_from_slice(&piece[..most.min(piece.len())]);
        }
        Bytes::copy_from_slice(&self.sent[at..])
    }
}

/// One upstream's side of a request.
struct Wire {
    kind: Kind,
    queue: VecDeque<u8>,
    head: usize,
    /// Content that left.
    got: Vec<u8>,
    left: usize,
    has_end: bool,
}

impl Wire {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            queue: VecDeque::new(),
            head: HEAD,
            got: Vec::new(),
            left: 0,
            has_end: false,
        }
    }

    fn writes(&mut self, most: usize) -> usize {
        let head = self.head.min(most);
        let content = self.queue.len().min(most - head);
        self.head -= head;
        // in pieces: octet by octet it takes most of the time of a test
        let (front, back) = self.queue.as_slices();
        let taken = content.min(front.len());
        self.got.extend_from_slice(&front[..taken]);
        self.got.extend_from_slice(&back[..content - taken]);
        self.queue.drain(..content);
        self.left += head + content;
        head + content
    }
}

impl BodyWriter for Wire {
    fn has_room(&self) -> bool {
        self.queue.len() < 100
    }

    fn write(&mut self, content: &[Bytes], coding: BodyCoding) {
        assert!(!self.has_end, "content after the end");
        assert_eq!(coding, BodyCoding::Chunked);
        for piece in content {
            self.queue.extend(&piece[..]);
        }
    }

    fn end(&mut self, _coding: BodyCoding, trailers: Option<&Bytes>) {
        assert!(!self.has_end, "a second end");
        assert_eq!(trailers, Some(&TRAILERS));
        self.has_end = true;
    }
}

const TRAILERS: Bytes = Bytes::from_static(b"x: y\r\n\r\n");

/// A request on its way, from upstream to upstream.
struct Run {
    client: Rc<RefCell<ClientSide>>,
    notes: Rc<BodyNotes>,
    has_body: bool,
    may_be_kept: usize,
    upload: Upload,
    wire: Wire,
}

impl Run {
    fn new(origin: Origin, keep: Option<usize>, kind: Kind) -> Self {
        let client = Rc::new(RefCell::new(ClientSide::default()));
        let notes = Rc::new(BodyNotes::default());
        let has_body = !matches!(origin, Origin::None);
        let pieces = |sizes: Vec<usize>| -> Pieces {
            let mut client = client.borrow_mut();
            sizes.into_iter().map(|size| client.sends(size)).collect()
        };
        let body = match origin {
            Origin::None => Body::None,
            Origin::Held(sizes) => {
                let content = pieces(sizes);
                client.borrow_mut().has_ended = true;
                Body::Held(BufferedBody {
                    content,
                    coding: BodyCoding::Chunked,
                    trailers: Some(TRAILERS),
                })
            }
            Origin::Streamed(sizes, go_ahead) => {
                let first = pieces(sizes);
                let (side, trailers) = (Rc::clone(&client), Rc::clone(&notes));
                let stream = poll_fn(move |_| {
                    let mut side = side.borrow_mut();
                    match side.unread.pop_front() {
                        Some(piece) => Poll::Ready(Some(Ok::<_, PayloadError>(piece))),
                        None if side.has_ended => {
                            trailers.trailers.replace(Some(TRAILERS));
                            Poll::Ready(None)
                        }
                        None => Poll::Pending,
                    }
                });
                Body::Streamed(StreamedBody {
                    first,
                    payload: Payload::Stream {
                        payload: Box::pin(stream),
                    },
                    coding: BodyCoding::Chunked,
                    go_ahead,
                    notes: Rc::clone(&notes),
                })
            }
        };
        let memory = Arc::new(Budget::new(1 << 24));
        let buffer = |limit| {
            Box::new(ReplayBuffer::new(
                &Statuses::of(&[503, first_event::OVERLOADED]),
                limit as u64,
                &memory,
            ))
        };
        let mut wire = Wire::new(kind);
        Self {
            client,
            notes,
            has_body,
            may_be_kept: keep.unwrap_or(0),
            upload: Upload::new(body, keep.map(buffer), &mut wire),
            wire,
        }
    }

    /// Sends the request to the next upstream. All of it must have come back.
    fn goes_on(&mut self, body: Body, keep: Option<Box<ReplayBuffer>>) {
        self.is_whole(&body);
        let mut wire = Wire::new(self.wire.kind);
        self.upload = Upload::new(body, keep, &mut wire);
        self.wire = wire;
    }

    fn is_whole(&self, body: &Body) {
        let client = self.client.borrow();
        let (content, rest): (&Pieces, Option<&VecDeque<Bytes>>) = match body {
            Body::None => {
                assert!(!self.has_body, "a body was lost");
                return;
            }
            Body::Held(held) => {
                assert_eq!(held.trailers, Some(TRAILERS));
                assert!(client.has_ended, "a body that still runs is no whole");
                (&held.content, None)
            }
            Body::Streamed(incoming) => (&incoming.first, Some(&client.unread)),
            Body::Tunnel(_) => panic!("a tunnel was not asked for"),
        };
        let pieces = content.iter().chain(rest.into_iter().flatten());
        let whole: Vec<u8> = pieces.flatten().copied().collect();
        assert!(
            whole == client.sent,
            "a part of the body is lost, or there twice"
        );
    }

    /// What is on the wire, and before it, is the beginning of what the client sent.
    fn is_in_order(&self) {
        let client = self.client.borrow();
        let given = self.wire.got.iter().chain(&self.wire.queue);
        assert!(
            given.eq(client
                .sent
                .iter()
                .take(self.wire.got.len() + self.wire.queue.len()))
        );
    }

    /// Octets that the upload has taken from the client.
    fn read(&self) -> usize {
        let client = self.client.borrow();
        client.sent.len() - client.unread.iter().map(Bytes::len).sum::<usize>()
    }

    /// Ends the upload by a failure. False if the request ends with it.
    fn fails(&mut self, may_repeat: bool) -> bool {
        let gone = Upload::new(Body::None, None, &mut Wire::new(self.wire.kind));
        let upload = mem::replace(&mut self.upload, gone);
        let back = upload.unsent(may_repeat);
        // many pieces take room beside their content: well below the bound, the body must be here
        let is_retained = self.read() < MAX_RETAINED / 2 || self.read() < self.may_be_kept / 2;
        let is_unsent = self.wire.kind == Kind::Http2 || self.wire.left == 0;
        match &back {
            Some(_) => assert!(
                is_unsent || (may_repeat && !self.has_body),
                "what left would be sent again"
            ),
            None => assert!(
                !(is_unsent && is_retained),
                "a request was lost that never left"
            ),
        }
        back.map(|(body, keep)| self.goes_on(body, keep)).is_some()
    }

    /// True if the request went to another upstream.
    fn is_answered(&mut self, answer: Answer) -> bool {
        let (status, kind) = match answer {
            Answer::Wanted => (StatusCode::SERVICE_UNAVAILABLE, "text/plain"),
            Answer::EventStream => (StatusCode::OK, "text/event-stream"),
            Answer::Final => (StatusCode::OK, "text/plain"),
        };
        let head = ResponseHead {
            status,
            reason: Bytes::new(),
            fields: Fields::from_pairs([(&b"content-type"[..], kind.as_bytes())]),
        };
        let is_written = self.wire.head == 0 && self.wire.queue.is_empty();
        let is_sent = is_written && self.upload.is_ended();
        let Some(replay) = self.upload.answered(&head, is_written) else {
            let is_kept = self.read() < self.may_be_kept / 2;
            assert!(
                !(answer == Answer::Wanted && is_kept),
                "a kept request was lost"
            );
            return false;
        };
        assert!(
            answer == Answer::Wanted || (answer == Answer::EventStream && is_sent),
            "no reason to send it again"
        );
        // nothing more of it goes to the upstream that answered
        let before = self.wire.queue.len();
        self.poll();
        assert_eq!(self.wire.queue.len(), before);
        let Replay { body, keep } = *replay;
        let answered = mem::replace(
            &mut self.upload,
            Upload {
                state: UploadState::Taken,
                progress: UploadProgress::Answered,
                keep: None,
            },
        );
        assert!(answered.unsent(true).is_none(), "given back twice");
        self.goes_on(body, Some(keep));
        true
    }

    fn writes(&mut self, most: usize) {
        if self.wire.writes(most) > 0 && self.wire.kind == Kind::Http1 {
            self.upload.left();
            let state = &self.upload.state;
            let is_retained = matches!(
                state,
                UploadState::Ended(EndedBody::Whole(_))
                    | UploadState::Running(_, Retained::Bytes(_))
            );
            assert!(!is_retained, "content is retained that is never given back");
        }
    }

    fn poll(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.upload.poll(&mut cx, &mut self.wire).unwrap();
    }
}

/// Lets everything happen. Returns the octets that each upstream got, and whether it answered.
async fn run(mut run: Run, events: Vec<Event>) {
    let mut is_answered = false;
    for event in events {
        match event {
            Event::Arrives(size) => {
                let mut client = run.client.borrow_mut();
                if !client.has_ended && run.has_body {
                    let piece = client.sends(size);
                    client.unread.push_back(piece);
                }
            }
            Event::Ends => run.client.borrow_mut().has_ended = true,
            Event::Unasked => run.notes.is_unasked.set(true),
            Event::Polled => run.poll(),
            Event::Writes(most) => run.writes(most),
            Event::GoesAhead => {
                run.upload.go_on();
            }
            Event::Silence => tokio::time::advance(CONTINUE_PATIENCE).await,
            Event::Answers(_) | Event::Lost { .. } | Event::Refused if is_answered => {}
            Event::Answers(answer) => is_answered = !run.is_answered(answer),
            Event::Lost { may_repeat } => {
                // without the upstream's word, nothing is sent again that was begun
                let may_ask = run.wire.kind == Kind::Http1 || run.wire.left == 0;
                if !may_ask || !run.fails(may_repeat) {
                    return;
                }
            }
            Event::Refused if run.wire.kind == Kind::Http2 => {
                if !run.fails(false) {
                    return;
                }
            }
            Event::Refused => {}
        }
        run.is_in_order();
    }
    if is_answered {
        assert!(
            run.upload.unsent(true).is_none(),
            "given back after an answer"
        );
        return;
    }
    // without any more trouble, all of it arrives
    run.client.borrow_mut().has_ended = true;
    run.upload.go_on();
    for _ in 0..200 {
        run.poll();
        run.writes(usize::MAX);
    }
    assert!(run.wire.got == run.client.borrow().sent);
    assert_eq!(run.wire.has_end, run.has_body);
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..40_usize, 1 => 30_000..50_000_usize]
}

fn origins() -> impl Strategy<Value = Origin> {
    let pieces = || prop::collection::vec(sizes(), 0..4);
    prop_oneof![
        1 => Just(Origin::None),
        2 => pieces().prop_map(Origin::Held),
        4 => (pieces(), select(vec![Continue::Expected, Continue::NotExpected]))
            .prop_map(|(sizes, go_ahead)| Origin::Streamed(sizes, go_ahead)),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => sizes().prop_map(Event::Arrives),
        1 => Just(Event::Ends),
        1 => Just(Event::Unasked),
        6 => Just(Event::Polled),
        4 => prop_oneof![0..10_usize, Just(usize::MAX)].prop_map(Event::Writes),
        1 => Just(Event::GoesAhead),
        1 => Just(Event::Silence),
        2 => select(vec![Answer::Wanted, Answer::EventStream, Answer::Final])
            .prop_map(Event::Answers),
        2 => any::<bool>().prop_map(|may_repeat| Event::Lost { may_repeat }),
        1 => Just(Event::Refused),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_left_is_never_sent_again(
        origin in origins(),
        keep in prop::option::of(select(vec![0, 50, 1 << 20])),
        kind in select(vec![Kind::Http1, Kind::Http2]),
        events in events(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { run(Run::new(origin, keep, kind), events).await });
    }
}

#[test]
fn what_is_retained_is_bounded_however_small_its_pieces_are() {
    let mut first = Pieces::new();
    let mut retained = Retained::Bytes(0);
    retained.add(&mut first, &Bytes::from_static(&[0; 48 * 1024]));
    assert!(matches!(retained, Retained::Bytes(_)));
    let mut retained = Retained::Bytes(0);
    for piece in iter::repeat_n(Bytes::from_static(b"."), MAX_RETAINED / size_of::<Bytes>()) {
        retained.add(&mut first, &piece);
    }
    assert!(matches!(retained, Retained::Gone) && first.is_empty());
}
