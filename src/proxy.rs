//! The default service: the whole way of a request, top-down.
//!
//! Forward only: snapshot, admission, head, edit or pass, send, relay. Nothing calls back up, and what
//! is observed hangs on `exchange::Record` alone.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, body::BoxBody, dev::Payload, http::header, web,
};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;

use crate::{
    config::{Edit, Endpoint, Live, Scheme},
    edit,
    error::{DeniedError, ProxyError},
    exchange::Progress,
    limits::Limits,
    upstream::{
        Client,
        balance::Balance,
        dial,
        http1::{Body, Coding, Continue, Held, Incoming, Pieces, Request, Response},
        replay::Keep,
    },
    wire::{
        body::Framing,
        head::{BodyNotes, Fields, RelayedHead, RequestHead, Transport, Version},
    },
};

mod browser;
mod exchange;
mod failover;
pub mod field;
mod generation;
mod hold;
mod id;
mod origin;
mod path;
pub mod target;
#[cfg(feature = "awc-hot-path")]
pub mod through_awc;
mod tunnel;
mod watch;

use self::{
    exchange::{ExchangeBody, Record},
    failover::Answered,
    watch::{Looking, Watch},
};
pub use self::{hold::EditMemory, id::RequestId, watch::Observer};

/// What the default service needs of its worker.
pub struct Worker {
    /// The door to the upstream.
    pub client: Client,
    /// The configuration.
    pub live: Arc<ArcSwap<Live>>,
    /// Counts of the process.
    pub limits: Arc<Limits>,
    /// Exchanges that the file descriptors allow, whatever `MAX_IN_FLIGHT` becomes.
    pub max_in_flight: usize,
    /// Memory for held bodies, of the process.
    pub edit_memory: EditMemory,
    /// Free memory for bodies that are kept for the next upstream, in KiB, of the process.
    pub replay_memory: Arc<Semaphore>,
    /// What all workers know of the upstreams.
    pub balance: Arc<Balance>,
    /// Who looks at the exchanges.
    pub observer: Rc<Observer>,
    /// Whether the ports that forward serve the dashboard, too.
    pub serves_dashboard: bool,
    /// Whether only this machine is listened to.
    pub is_loopback: bool,
}

/// Forwards one request.
pub async fn forward(
    req: HttpRequest,
    payload: web::Payload,
    worker: web::ThinData<Rc<Worker>>,
) -> HttpResponse {
    let live = worker.live.load_full();
    let head = take_head(&req);
    let path = path::shown(&head);
    let mut record = Record::new(&head, path, worker.limits.exchange(), |id, path| {
        let client = req.peer_addr().map(|address| address.ip());
        Watch::begin(&worker.observer, &live, id, &head, path, client)
    });
    let (progress, notes) = (record.progress().cloned(), Rc::clone(&head.notes));
    let outcome = {
        let payload = payload.into_inner();
        // made in its place: moved, its octets would be copied for every request
        let relayed = pin!(relay(&req, head, payload, &worker, &live, &mut record));
        unless_ended(relayed, progress.as_deref(), &notes).await
    };
    match outcome {
        Ok(response) => relayed(response, record, &live, version(&req)),
        Err(cause) => refused(&cause, record),
    }
}

/// Runs the exchange up to its response head, or until an operator ends it.
async fn unless_ended(
    mut relayed: Pin<&mut impl Future<Output = Result<Response, ProxyError>>>,
    progress: Option<&Progress>,
    notes: &BodyNotes,
) -> Result<Response, ProxyError> {
    poll_fn(|cx| {
        if let Some(progress) = progress
            && progress.poll_ending(cx)
        {
            progress.finishes();
            return Poll::Ready(Err(DeniedError::EndedByOperator.into()));
        }
        let outcome = relayed.as_mut().poll(cx);
        if let Some(progress) = progress {
            progress.receives(notes.octets.get());
        }
        outcome
    })
    .await
}

/// From the client's request to the upstream's response.
async fn relay(
    req: &HttpRequest,
    head: RequestHead,
    payload: Payload,
    worker: &Worker,
    live: &Live,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    if worker.serves_dashboard && browser::runs_the_answer(&head.fields) {
        return Err(DeniedError::DashboardOrigin.into());
    }
    if live.adds_credential && origin::is_foreign(&head, &live.allowed_origins, worker.is_loopback)
    {
        return Err(DeniedError::ForeignOrigin.into());
    }
    if record.admission.position > live.max_in_flight.min(worker.max_in_flight) {
        return Err(DeniedError::TooManyInFlight.into());
    }
    let is_messages =
        std::str::from_utf8(head.path()).is_ok_and(|path| edit::is_messages(&head.method, path));
    let generates = generation::kind(&head.method, head.path());
    if let Some(kind) = generates
        && !is_messages
        && (live.edit.is_some() || (live.metering && record.is_watched()))
    {
        kind.passes_unseen();
    }
    let look = record.watch.as_ref().and_then(|watch| watch.look());
    let held_from = record.is_watched().then(Instant::now);
    let plan = match (head.framing, &live.edit) {
        _ if head.upgrade.is_some() => tunnel::ask(&head, payload),
        (Framing::None, _) => Plan::nothing(),
        (_, Some(edit)) if is_messages => match passes(&head, edit) {
            None => {
                let is_watched = record.is_watched();
                hold::edit(&head, payload, edit, worker, live, look, is_watched).await?
            }
            Some(reason) => {
                let payload = passing(payload, look);
                if live.debug {
                    log::debug!(
                        "[System Replacement] unchanged reason={reason} framing={:?}",
                        head.framing
                    );
                }
                Plan {
                    edit: Some(reason),
                    ..Plan::stream(&head, payload)
                }
            }
        },
        _ => Plan::stream(&head, passing(payload, look)),
    };
    if let (Some(watch), Some(outcome)) = (&mut record.watch, plan.edit) {
        watch.edited(outcome);
    }
    if live.debug {
        log::debug!(
            "[Proxy] forwarding request_id={} fields={} head_octets={} body={}",
            record.id(),
            head.fields.len(),
            head.fields.octets(),
            plan.describe(),
        );
    }
    let mut outgoing = Outgoing {
        head: &head,
        live,
        client: req.peer_addr().map(|address| address.ip()),
        framing: plan.framing,
        expect: plan.expect,
        patience: patience(&head.fields, generates.is_some(), live),
        tunnel: plan.tunnel.as_ref(),
        waited: held_from.zip(plan.complete_at),
        is_watched: record.is_watched(),
    };
    let answered = failover::send(worker, live, &mut outgoing, plan.body, record).await?;
    if let Some(asked) = &plan.tunnel {
        asked.check(&answered.response.head)?;
    }
    // plan.memory is given back here: the held body has left
    drop(plan.memory);
    let Answered { response, endpoint } = answered;
    record.answered_by(&live.endpoints, endpoint, response.road);
    Ok(response)
}

/// The body of a request on its way, looked at where somebody does.
fn passing(payload: Payload, look: Option<Looking>) -> Payload {
    match look {
        Some(look) => watch::looked_at(payload, look),
        None => payload,
    }
}

/// A request on its way out: all that its head is made from, for whichever endpoint it goes to.
struct Outgoing<'a> {
    head: &'a RequestHead,
    live: &'a Live,
    client: Option<IpAddr>,
    framing: field::Length,
    expect: field::Expect,
    patience: Duration,
    tunnel: Option<&'a tunnel::Asked>,
    /// From when to when the body was waited for, where it was and somebody looks.
    waited: Option<(Instant, Instant)>,
    /// Whether somebody looks.
    is_watched: bool,
}

impl Outgoing<'_> {
    fn request(&self, endpoint: &Endpoint, body: Body, keep: Option<Box<Keep>>) -> Request {
        Request {
            head: self.head_for(endpoint),
            method: self.head.method.clone(),
            body,
            patience: self.patience,
            keep,
            is_watched: self.is_watched,
        }
    }

    /// A body that was asked for once does not wait for the next upstream's word.
    fn follow(&mut self, body: &Body) {
        if !matches!(
            body,
            Body::Streamed(Incoming {
                go_ahead: Continue::Expected,
                ..
            })
        ) {
            self.expect = field::Expect::Answered;
        }
    }

    fn head_for(&self, endpoint: &Endpoint) -> Bytes {
        // a tunnel has told the proxy already, and the upstream is not to be told
        let proxy_authorization = match endpoint.upstream.scheme {
            Scheme::Http => dial::proxy_authorization(&endpoint.route),
            Scheme::Https => None,
        };
        let Self {
            head, live, client, ..
        } = *self;
        let mut octets = BytesMut::with_capacity(head.fields.octets() + 512);
        target::put_request_line(&mut octets, endpoint, &head.method, &head.target);
        field::put_request_fields(
            &mut octets,
            &field::Request {
                live,
                endpoint,
                transport: head.transport,
                fields: &head.fields,
                client,
                framing: self.framing,
                expect: self.expect,
                proxy_authorization: proxy_authorization.as_ref(),
                upgrade: self.tunnel.map(tunnel::Asked::fields),
            },
        );
        octets.freeze()
    }
}

/// What is sent as the body, and how the head speaks of it.
struct Plan {
    body: Body,
    framing: field::Length,
    expect: field::Expect,
    memory: Option<hold::Share>,
    /// What became of the edit, where one was thinkable.
    edit: Option<&'static str>,
    /// When the body was complete that was held, or as much of it as was waited for; only where somebody
    /// looks.
    complete_at: Option<Instant>,
    tunnel: Option<tunnel::Asked>,
}

impl Plan {
    fn nothing() -> Self {
        let (framing, expect) = (field::Length::Unsaid, field::Expect::Answered);
        Self {
            body: Body::None,
            framing,
            expect,
            memory: None,
            edit: None,
            complete_at: None,
            tunnel: None,
        }
    }

    /// For the log: what becomes of the body.
    fn describe(&self) -> &'static str {
        match &self.body {
            Body::None => "none",
            Body::Held(Held {
                coding: Coding::Length,
                ..
            }) => "held length",
            Body::Held(Held {
                coding: Coding::Chunked,
                ..
            }) => "held chunked",
            Body::Streamed(Incoming {
                coding: Coding::Length,
                ..
            }) => "streamed length",
            Body::Streamed(Incoming {
                coding: Coding::Chunked,
                ..
            }) => "streamed chunked",
            Body::Tunnel(_) => "tunnel",
        }
    }

    fn stream(head: &RequestHead, payload: Payload) -> Self {
        let go_ahead = if head.expects_continue {
            Continue::Expected
        } else {
            Continue::NotExpected
        };
        Self::streamed(head, Pieces::new(), payload, go_ahead)
    }

    fn streamed(head: &RequestHead, first: Pieces, payload: Payload, go_ahead: Continue) -> Self {
        let (framing, coding) = match head.framing {
            Framing::Length(length) => (field::Length::Exactly(length), Coding::Length),
            Framing::Chunked | Framing::UntilClose | Framing::None => {
                (field::Length::Chunked, Coding::Chunked)
            }
        };
        let expect = match go_ahead {
            Continue::Expected => field::Expect::Forward,
            Continue::NotExpected => field::Expect::Answered,
        };
        let notes = Rc::clone(&head.notes);
        let body = Body::Streamed(Incoming {
            first,
            payload,
            coding,
            go_ahead,
            notes,
        });
        Self {
            body,
            framing,
            expect,
            memory: None,
            edit: None,
            complete_at: None,
            tunnel: None,
        }
    }
}

/// The head as the connection parsed it; made from actix-web's map for connections that do not.
fn take_head(req: &HttpRequest) -> RequestHead {
    if let Some(head) = req.extensions_mut().remove::<RequestHead>() {
        return head;
    }
    let length = req.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let target = req
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    RequestHead {
        method: req.method().clone(),
        target: target.to_owned().into(),
        version: version(req),
        transport: Transport::Clear,
        fields: Fields::from_map(req.headers()),
        framing: length.map_or(Framing::Chunked, Framing::Length),
        expects_continue: false,
        upgrade: None,
        notes: Rc::default(),
    }
}

fn version(req: &HttpRequest) -> Version {
    match req.version() {
        actix_web::http::Version::HTTP_09 | actix_web::http::Version::HTTP_10 => Version::Http10,
        actix_web::http::Version::HTTP_2 => Version::Http2,
        _ => Version::Http11,
    }
}

/// Why a message passes as it is, if its head says so already.
fn passes(head: &RequestHead, edit: &Edit) -> Option<&'static str> {
    // of several codings or types, each has to allow it
    let all = |name: &str, is_fine: &dyn Fn(&[u8]) -> bool| {
        head.fields
            .iter()
            .filter(|field| field.is(name))
            .all(|field| is_fine(field.value))
    };
    if !all("content-encoding", &|coding| {
        edit::is_editable(None, Some(coding))
    }) {
        Some("content_coding")
    } else if !all("content-type", &|media_type| {
        edit::is_editable(Some(media_type), None)
    }) {
        Some("not_json")
    } else if matches!(head.framing, Framing::Length(length) if length > edit.max_body) {
        Some("too_large")
    } else {
        None
    }
}

/// The longest wait for the response head (docs/contract.md §4.2).
fn patience(fields: &Fields, generates: bool, live: &Live) -> Duration {
    let ours = if generates {
        live.timers.generation
    } else {
        live.timers.response_head
    };
    let theirs = fields
        .value("x-stainless-timeout")
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<u32>().ok())
        .map(|seconds| Duration::from_secs(u64::from(seconds)).min(MAX_DECLARED_PATIENCE));
    theirs.map_or(ours, |theirs| theirs.max(ours))
}

/// What a client may declare in `X-Stainless-Timeout`.
const MAX_DECLARED_PATIENCE: Duration = Duration::from_secs(3600);

/// The upstream's response, as it came.
fn relayed(response: Response, record: Record, live: &Live, client: Version) -> HttpResponse {
    let Response {
        head,
        framing,
        body,
        replay: _,
        road: _,
    } = response;
    let keeps_length = framing == Framing::None;
    let content = field::response_head(&head, keeps_length, client);
    if head.status == 101 {
        return tunnel::relayed(content, body, record.head(&head), live);
    }
    let body = ExchangeBody::new(body, framing, record.head(&head), live.timers.stream_idle);
    let relayed = RelayedHead {
        content,
        framing,
        notes: body.notes(),
        tunnel: None,
    };
    let mut response = HttpResponse::new(head.status);
    response.extensions_mut().insert(relayed);
    response.set_body(BoxBody::new(body))
}

/// An answer of ours.
fn refused(cause: &ProxyError, record: Record) -> HttpResponse {
    let answer = cause.answer();
    let request_id = record.refuse(cause, &answer);
    let mut response = HttpResponse::build(answer.status);
    response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header(("request-id", request_id.as_str()))
        .insert_header(("x-proxy-error", answer.label));
    if let ProxyError::Denied(DeniedError::DashboardOrigin) = cause {
        for field in browser::PAGE_FIELDS {
            response.insert_header(field);
        }
        return response.body(browser::page(answer.message, &request_id));
    }
    if let Some(seconds) = answer.retry_after {
        response.insert_header((header::RETRY_AFTER, seconds.to_string()));
    }
    response.body(answer.content(&request_id))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{self, ForwardedFields, HttpVersion, Route, Statuses, Timers};

    /// A snapshot for tests of the pure parts.
    pub(crate) fn live(base: &str) -> Live {
        let second = Duration::from_secs(1);
        Live {
            endpoints: Arc::new([Endpoint {
                name: base.into(),
                upstream: base.parse().unwrap(),
                route: Route::Direct,
                http: HttpVersion::Http11,
                credential: None,
            }]),
            failover_status: Statuses::default(),
            max_replay_body: 1 << 20,
            metering: false,
            prices: Arc::default(),
            metrics_public: false,
            dashboard_key: None,
            tls: None,
            h2c: false,
            edit: None::<config::Edit>,
            custom_fields: Vec::new(),
            removed_fields: Vec::new(),
            forwarded: ForwardedFields::Append,
            adds_credential: false,
            secrets: crate::secret::Secrets::default(),
            allowed_origins: config::AllowedOrigins::default(),
            preserve_host: false,
            timers: Timers {
                request_head: second,
                request_body: second,
                write: second,
                keep_alive: second,
                upstream_keep_alive: second,
                upstream_max_age: second * 60,
                connect: second,
                response_head: second,
                generation: second * 2,
                stream_idle: second,
                tunnel_idle: second,
            },
            max_in_flight: 10,
            debug: false,
        }
    }

    #[test]
    fn patience_grows_with_what_the_client_declares() {
        let live = live("http://a");
        let declared = |value: &str| {
            let mut map = actix_web::http::header::HeaderMap::new();
            map.insert(
                "x-stainless-timeout".parse().unwrap(),
                value.parse().unwrap(),
            );
            Fields::from_map(&map)
        };
        for (value, generates, seconds) in [
            ("600", true, 600),
            ("1", true, 2),
            ("1", false, 1),
            ("99999", false, 3600),
            ("soon", false, 1),
        ] {
            let found = patience(&declared(value), generates, &live);
            assert_eq!(found, Duration::from_secs(seconds), "{value}");
        }
    }
}
