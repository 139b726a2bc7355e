//! Server-sent events: once a second, one text for all who listen.
//!
//! The text is made once, and only if a client listens. A slow client misses some; none waits for it. All of them end with the drain and where the key changes, and each with the
//! session that it belongs to.

use std::{
    future::ready,
    sync::Arc,
    time::{Instant, SystemTime},
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    identity::{AuthMethod, Identity},
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
use crate::{
    config::ForwardAuth,
    drain::DrainPhase,
    secret::Secret,
    telemetry::activity::{Cursor, view},
};

/// Makes the events; remembers the position of the last one.
#[derive(Default)]
pub(super) struct EventBroadcaster {
    seen: Option<Cursor>,
}

impl EventBroadcaster {
    /// Sends an event, if a client listens.
    pub(super) fn tell(&mut self, plane: &AdminState) {
        let sender = &plane.events.sender;
        let Some(view) = plane.sources.view.as_ref() else {
            return;
        };
        if sender.receiver_count() == 0 {
            // who comes next begins with nothing
            self.seen = None;
            return;
        }
        let mut activity = view.tick(&mut self.seen, SystemTime::now());
        activity.in_flight = plane.sources.limits.in_flight();
        let tick = TickEvent {
            boot_id: &plane.sources.boot_id,
            activity,
        };
        // without listeners by now it is lost, as it should be
        let _ = sender.send(event(&tick));
    }
}

/// Data of an event named `tick`: the activity of one second.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = TickEvent))]
pub(super) struct TickEvent<'a> {
    /// Names the run of the process that tells it.
    boot_id: &'a str,
    #[serde(flatten)]
    activity: view::TickView,
}

fn event(data: &TickEvent<'_>) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: tick\ndata: {data}\n\n").into()
}

/// A stream of events, one a second.
///
/// Server-sent events named `tick`; the data of each is a `TickEvent` as JSON.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/events",
    operation_id = "events",
    tag = "activity",
    extensions(("x-events" = json!({"tick": {"$ref": "#/components/schemas/TickEvent"}}))),
    responses(
        (status = 200, description = "events named `tick`, whose data is #/components/schemas/TickEvent",
         body = String, content_type = "text/event-stream"),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn answer(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, "text/event-stream"));
    if *request.method() == Method::HEAD {
        return Ok(response.streaming(stream::empty::<EventResult>()));
    }
    let identity = request.extensions().get::<Identity>().cloned();
    let identity = identity.ok_or(Problem::Unauthorized)?;
    let key = plane.key_of(identity.role);
    let auth = Arc::clone(&plane.sources.live.load().forward_auth);
    let seat = Arc::clone(&plane.events.seats).try_acquire_owned();
    let seat = seat.map_err(|_| {
        Problem::Unavailable("too many event-stream clients; close one of them and retry")
    })?;
    let listener = EventStream {
        texts: plane.events.sender.subscribe(),
        phase: plane.sources.phase.clone(),
        key,
        auth,
        identity,
        plane: Arc::clone(&plane),
        _seat: seat,
    };
    // the head goes out at once, with how long to wait before the next try
    let first = ready(EventResult::Ok(Bytes::from_static(b"retry: 2000\n\n")));
    let texts = stream::once(first).chain(stream::unfold(listener, EventStream::next));
    Ok(response.streaming(texts))
}

type EventResult = Result<Bytes, std::convert::Infallible>;

struct EventStream {
    plane: Arc<AdminState>,
    texts: broadcast::Receiver<Bytes>,
    phase: watch::Receiver<DrainPhase>,
    /// The key of its role.
    key: Option<Secret>,
    /// Trusted proxies and roles, as they were when it began.
    auth: Arc<ForwardAuth>,
    /// The client.
    identity: Identity,
    _seat: OwnedSemaphorePermit,
}

impl EventStream {
    async fn next(mut self) -> Option<(EventResult, Self)> {
        let text = loop {
            let text = tokio::select! {
                text = self.texts.recv() => text,
                _ = self.phase.wait_for(|phase| *phase >= DrainPhase::Draining) => return None,
            };
            match text {
                Ok(text) => break text,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        };
        self.may_go_on().then_some((Ok(text), self))
    }

    /// Tells whether the authentication is still valid. Listening does not keep a session alive.
    fn may_go_on(&self) -> bool {
        let Identity { method, role, .. } = self.identity;
        let is_in_effect = || self.key.is_some() && self.plane.key_of(role) == self.key;
        match (method, &self.key) {
            (AuthMethod::Session(name), Some(key)) => {
                let sessions = self.plane.sessions.of(role);
                is_in_effect() && sessions.is_valid(name, key, Instant::now())
            }
            (AuthMethod::Session(_), None) => false,
            (AuthMethod::Bearer, _) => is_in_effect(),
            (AuthMethod::Proxy, _) => self.plane.sources.live.load().forward_auth == self.auth,
            (AuthMethod::Socket, _) => true,
        }
    }
}
