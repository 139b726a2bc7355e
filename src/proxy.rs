//! The default service: the whole way of a request, top-down.
//!
//! Forward only: snapshot, admission, head, edit or pass, send, relay. Nothing calls back up, and what
//! is observed hangs on the record of the exchange alone.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use actix_web::{HttpRequest, HttpResponse, dev::Payload, web};

use crate::{
    config::{Live, VerifyRule},
    edit,
    error::{DeniedError, ProxyError},
    exchange::Progress,
    label::Label,
    upstream::{ResponseBody, exchange::Response, request::Continue},
    wire::{
        body::Framing,
        head::{BodyNotes, RequestHead},
    },
};

mod attempts;
mod body_watch;
mod browser;
mod details;
mod edit_memory;
mod error_content;
pub mod field;
mod generation;
mod handshake;
mod head;
mod hold;
mod id;
mod inspection;
mod keyed;
mod origin;
mod outgoing;
mod path;
mod plan;
mod record;
mod respond;
mod response_body;
pub mod target;
mod telemetry;
mod texts;
mod tunnel;
mod verify;
mod worker;

use self::{
    details::ExchangeDetails,
    keyed::{FilteredList, KeyedRequest, ModelBody, cutting::RunningKey},
    outgoing::{Outgoing, patience},
    plan::{Plan, Treatment},
    record::ExchangeRecord,
};
pub use self::{
    edit_memory::EditMemory,
    id::RequestId,
    keyed::{cutting::RunningKeys, own_session::OwnSessions},
    telemetry::Telemetry,
    worker::Worker,
};

/// Response to a request.
enum Outcome {
    /// The upstream's.
    Relayed(Response<ResponseBody>),
    /// The upstream's list of models, without some.
    Filtered(FilteredList),
    /// The proxy's own, in JSON.
    Own(String),
}

/// Forwards one request.
pub async fn forward(
    req: HttpRequest,
    payload: web::Payload,
    worker: web::ThinData<Rc<Worker>>,
) -> HttpResponse {
    let live = worker.live.load_full();
    let head = head::take(&req);
    let path = path::shown(&head);
    let client = req.peer_addr().map(|address| address.ip());
    let keyed = match &worker.access {
        Some(access) => keyed::identify(access, &worker, &head, client),
        None => Ok(None),
    };
    if let (Ok(Some(keyed)), Some(access)) = (&keyed, &worker.access)
        && keyed.asks_for_session()
    {
        return keyed.session(access, &head, &worker, &live).await;
    }
    let mut record = ExchangeRecord::new(&head, path, worker.limits.exchange(), |id, path| {
        let keyed = keyed.as_ref().ok().and_then(Option::as_ref);
        let payer = keyed.map(KeyedRequest::payer);
        ExchangeDetails::begin(&worker.observer, &live, id, &head, path, client, payer)
    });
    if live.verify != VerifyRule::Off {
        verify::begin(&live.verify, &head, record.id());
    }
    let notes = Rc::clone(&head.notes);
    let outcome = match keyed {
        Ok(keyed) => {
            if let Some(keyed) = &keyed {
                record.has_key(&keyed.running);
            }
            let payload = payload.into_inner();
            let ending = Ending::of(&record, notes);
            // made in its place: moved, its octets would be copied for every request
            let relayed = pin!(relay(
                &req,
                head,
                payload,
                &worker,
                &live,
                keyed.as_ref(),
                &mut record
            ));
            ending.unless_ended(relayed).await
        }
        Err(cause) => Err(cause),
    };
    let version = head::version(&req);
    match outcome {
        Ok(Outcome::Relayed(response)) => respond::relayed(response, record, &live, version),
        Ok(Outcome::Filtered(list)) => respond::filtered(list, record, version),
        Ok(Outcome::Own(content)) => respond::own(content, record),
        Err(cause) => respond::refused(&cause, record),
    }
}

/// From the client's request to the upstream's response.
async fn relay(
    req: &HttpRequest,
    head: RequestHead,
    payload: Payload,
    worker: &Worker,
    live: &Live,
    keyed: Option<&KeyedRequest>,
    record: &mut ExchangeRecord,
) -> Result<Outcome, ProxyError> {
    admit(&head, worker, live, record)?;
    if let (Some(keyed), Some(access)) = (keyed, &worker.access) {
        keyed.admit_path(access, &head, worker)?;
        if keyed.asks_for_usage() {
            return Ok(Outcome::Own(keyed.usage(access)));
        }
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
    let look = record.look();
    let payload = inspection::digested(payload, record.digester());
    let held_from = record.is_watched().then(Instant::now);
    let treatment = Treatment::of(&head, is_messages, live);
    let watch = match keyed {
        Some(keyed) if keyed.needs_model() => {
            let is_edited = matches!(treatment, Treatment::Edit(_));
            Some(keyed::watch(&head, worker, is_edited)?)
        }
        _ => None,
    };
    let payload = match keyed {
        Some(keyed) if head.framing != Framing::None => {
            // the edit reads the details itself
            let told = look
                .clone()
                .filter(|_| matches!(treatment, Treatment::Pass { .. }));
            keyed.body(&head, payload, watch.as_ref(), told)
        }
        _ => payload,
    };
    let plan = match (treatment, &watch) {
        (Treatment::Tunnel, _) => Plan::tunnel(&head, payload),
        (Treatment::Empty, _) => Plan::nothing(),
        (Treatment::Pass { unedited }, None) => {
            Plan::pass(&head, inspection::passing(payload, look), unedited, live)
        }
        (Treatment::Pass { unedited }, Some(watch)) => {
            let mut payload = payload;
            let first = keyed::hold(&head, &mut payload, watch, worker, live).await?;
            Plan {
                edit: unedited,
                complete_at: record.is_watched().then(Instant::now),
                ..Plan::streamed(&head, first, payload, Continue::NotExpected)
            }
        }
        (Treatment::Edit(edit), watch) => {
            let told = hold::Told {
                look,
                watch: watch.clone(),
                is_watched: record.is_watched(),
            };
            hold::edit(&head, payload, edit, worker, live, told).await?
        }
    };
    if let Some(keyed) = keyed {
        let body = ModelBody::of(&head, watch.as_ref())?;
        keyed.admit(body, &head, worker, live, record).await?;
    }
    record.plans(plan.edit);
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
        keyed: keyed.map(KeyedRequest::fields),
    };
    let answered = attempts::send(worker, live, &mut outgoing, plan.body, record).await?;
    if let Some(asked) = &plan.tunnel {
        asked.check(&answered.response.head)?;
    }
    if let Some(edges) = answered.response.body.edges()
        && let Some(verification) = head.notes.verification.get()
    {
        verification.relays(edges);
    }
    // plan.memory is given back here: the held body has left
    drop(plan.memory);
    record.answered_by(
        &live.endpoints,
        answered.endpoint,
        answered.response.connect_info,
    );
    if let Some(keyed) = keyed
        && keyed.filters_models()
        && answered.response.head.status == 200
    {
        if let Some(verification) = head.notes.verification.get() {
            verification.answers_itself();
        }
        return keyed
            .filter(answered.response, live)
            .await
            .map(Outcome::Filtered);
    }
    Ok(Outcome::Relayed(answered.response))
}

/// Refuses a request that must not be forwarded.
fn admit(
    head: &RequestHead,
    worker: &Worker,
    live: &Live,
    record: &ExchangeRecord,
) -> Result<(), DeniedError> {
    if worker.serves_dashboard && browser::runs_the_answer(&head.fields) {
        return Err(DeniedError::DashboardOrigin);
    }
    if live.adds_credential && origin::is_foreign(head, &live.allowed_origins, worker.is_loopback) {
        return Err(DeniedError::ForeignOrigin);
    }
    if record.admission.position > live.max_in_flight.min(worker.max_in_flight) {
        return Err(DeniedError::TooManyInFlight);
    }
    Ok(())
}

/// Causes that may end an exchange before its response head.
struct Ending {
    progress: Option<Arc<Progress>>,
    running: Option<Rc<RunningKey>>,
    notes: Rc<BodyNotes>,
}

impl Ending {
    fn of(record: &ExchangeRecord, notes: Rc<BodyNotes>) -> Self {
        Self {
            progress: record.progress().cloned(),
            running: record.running().cloned(),
            notes,
        }
    }

    /// Runs the exchange up to its response head, or until an operator ends it or its key is revoked.
    async fn unless_ended(
        self,
        mut relayed: Pin<&mut impl Future<Output = Result<Outcome, ProxyError>>>,
    ) -> Result<Outcome, ProxyError> {
        let Self {
            progress,
            running,
            notes,
        } = self;
        poll_fn(|cx| {
            let progress = progress.as_deref();
            if let Some(label) = record::poll_ending(progress, running.as_deref(), cx) {
                if let Some(progress) = progress {
                    progress.finishes();
                }
                return Poll::Ready(Err(match label {
                    Label::KeyRevoked => keyed::revoked(),
                    _ => DeniedError::EndedByOperator.into(),
                }));
            }
            let outcome = relayed.as_mut().poll(cx);
            if let Some(progress) = progress {
                progress.receives(notes.octets.get());
            }
            outcome
        })
        .await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::config::{
        self, Endpoint, ForwardedFields, HttpVersion, OutboundRoute, Statuses, Timers,
    };

    /// A snapshot for tests of the pure parts.
    pub(crate) fn live(base: &str) -> Live {
        let second = Duration::from_secs(1);
        Live {
            endpoints: Arc::new([Endpoint {
                name: base.into(),
                upstream: base.parse().unwrap(),
                route: OutboundRoute::Direct,
                http: HttpVersion::Http11,
                credential: None,
            }]),
            failover_status: Statuses::default(),
            max_replay_body: 1 << 20,
            metering: false,
            prices: Arc::default(),
            metrics_public: false,
            dashboard_key: None,
            operator_key: None,
            viewer_key: None,
            forward_auth: Arc::new(config::ForwardAuth {
                proxies: config::TrustedProxies::default(),
                user: actix_web::http::header::HeaderName::from_static("remote-user"),
                groups: actix_web::http::header::HeaderName::from_static("remote-groups"),
                roles: config::RoleRules::default(),
            }),
            tls: None,
            h2c: false,
            edit: None::<config::Edit>,
            max_held_body: 1 << 20,
            custom_fields: Vec::new(),
            removed_fields: Vec::new(),
            forwarded: ForwardedFields::Append,
            adds_credential: false,
            secrets: Arc::default(),
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
            verify: config::VerifyRule::Off,
        }
    }
}
