//! The default service: the whole way of a request, top-down.
//!
//! Forward only: snapshot, admission, head, edit or pass, send, relay. Nothing calls back up, and what
//! is observed hangs on the record of the exchange alone.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Instant,
};

use actix_web::{HttpRequest, HttpResponse, dev::Payload, web};

use crate::{
    config::Live,
    edit,
    error::{DeniedError, ProxyError},
    exchange::Progress,
    upstream::{ResponseBody, exchange::Response},
    wire::head::{BodyNotes, RequestHead},
};

mod attempts;
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
mod worker;

use self::{
    details::ExchangeDetails,
    outgoing::{Outgoing, patience},
    plan::{Plan, Treatment},
    record::ExchangeRecord,
};
pub use self::{edit_memory::EditMemory, id::RequestId, telemetry::Telemetry, worker::Worker};

/// Forwards one request.
pub async fn forward(
    req: HttpRequest,
    payload: web::Payload,
    worker: web::ThinData<Rc<Worker>>,
) -> HttpResponse {
    let live = worker.live.load_full();
    let head = head::take(&req);
    let path = path::shown(&head);
    let mut record = ExchangeRecord::new(&head, path, worker.limits.exchange(), |id, path| {
        let client = req.peer_addr().map(|address| address.ip());
        ExchangeDetails::begin(&worker.observer, &live, id, &head, path, client)
    });
    let (progress, notes) = (record.progress().cloned(), Rc::clone(&head.notes));
    let outcome = {
        let payload = payload.into_inner();
        // made in its place: moved, its octets would be copied for every request
        let relayed = pin!(relay(&req, head, payload, &worker, &live, &mut record));
        unless_ended(relayed, progress.as_deref(), &notes).await
    };
    match outcome {
        Ok(response) => respond::relayed(response, record, &live, head::version(&req)),
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
    record: &mut ExchangeRecord,
) -> Result<Response<ResponseBody>, ProxyError> {
    admit(&head, worker, live, record)?;
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
    let plan = match Treatment::of(&head, is_messages, live) {
        Treatment::Tunnel => Plan::tunnel(&head, payload),
        Treatment::Empty => Plan::nothing(),
        Treatment::Pass { unedited } => {
            Plan::pass(&head, inspection::passing(payload, look), unedited, live)
        }
        Treatment::Edit(edit) => {
            let is_watched = record.is_watched();
            hold::edit(&head, payload, edit, worker, live, look, is_watched).await?
        }
    };
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
    };
    let answered = attempts::send(worker, live, &mut outgoing, plan.body, record).await?;
    if let Some(asked) = &plan.tunnel {
        asked.check(&answered.response.head)?;
    }
    // plan.memory is given back here: the held body has left
    drop(plan.memory);
    record.answered_by(
        &live.endpoints,
        answered.endpoint,
        answered.response.connect_info,
    );
    Ok(answered.response)
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

/// Runs the exchange up to its response head, or until an operator ends it.
async fn unless_ended(
    mut relayed: Pin<&mut impl Future<Output = Result<Response<ResponseBody>, ProxyError>>>,
    progress: Option<&Progress>,
    notes: &BodyNotes,
) -> Result<Response<ResponseBody>, ProxyError> {
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
            tls: None,
            h2c: false,
            edit: None::<config::Edit>,
            max_held_body: 1 << 20,
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
}
