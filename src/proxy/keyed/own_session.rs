//! The answer to `GET /api/proxy/session?id=…`: cost and cache of a session of the key, the budget that is
//! nearest to its end, and the health of the upstreams, for a status line.
//!
//! A key reads its own sessions alone: they are looked up under its id. They are read off the worker, since
//! replicas may have to ask the store that they share. The request is no exchange: nothing is forwarded, and a
//! status line that asks every second must not fill the lists.

use std::{sync::Arc, time::SystemTime};

use actix_web::{HttpResponse, http::header, web};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::usage::rfc3339;
use crate::{
    access::{Access, Key, LimitKind, LimitState, Period, SubjectId},
    telemetry::activity::{ActivityView, session_view::SessionSums},
    upstream::circuit::CircuitState,
};

/// Read access to sessions, of one worker.
pub struct OwnSessions {
    view: Option<ActivityView>,
    /// Bounds the threads that read for it.
    turns: Arc<Semaphore>,
}

/// Threads of a worker that read sessions.
const AT_ONCE: usize = 2;

impl OwnSessions {
    /// Read access through this view; none where nothing is recorded.
    pub fn new(view: Option<ActivityView>) -> Self {
        Self {
            view,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Sums of a session of a key; zeros if it had no requests, none where nothing is recorded.
    async fn sums(&self, session: String, key: &Key) -> Option<SessionSums> {
        let view = self.view.clone()?;
        let key = Arc::clone(&key.owner().key);
        // the turn belongs to the work, which goes on if its client leaves
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let read = web::block(move || {
            let sums = view.session_sums(&session, &key);
            drop(turn);
            sums
        });
        read.await.ok().map(Option::unwrap_or_default)
    }
}

/// The answer for a key and the target of its request.
pub(super) async fn answer(
    sessions: &OwnSessions,
    access: &Access,
    key: &Key,
    target: &[u8],
    circuits: Vec<CircuitState>,
) -> HttpResponse {
    let id = session_id(target);
    let sums = match id.clone() {
        Some(id) => sessions.sums(id, key).await,
        None => None,
    };
    let states = access.explain_key(key, SystemTime::now());
    let content = json!({
        "session": sums.map(|sums| session(id, &sums)),
        "budget": budget(&states),
        "upstreams": upstreams(&circuits),
    });
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(content.to_string())
}

/// The session that the query names.
fn session_id(target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, id) = pairs.find(|(name, _)| *name == "id")?;
    let id = percent_decode_str(id).decode_utf8().ok()?;
    (!id.is_empty() && id.len() <= LONGEST_ID).then(|| id.into_owned())
}

/// Bytes of an id: as many as of the field `x-claude-code-session-id` are kept.
const LONGEST_ID: usize = 128;

fn session(id: Option<String>, sums: &SessionSums) -> Value {
    json!({
        "id": id,
        "requests": sums.requests,
        "errors": sums.errors,
        "tokens": sums.tokens,
        "cache_hit_share": sums.cache_hit_share,
        "cache_breaks": sums.cache_breaks,
        "cost_usd": sums.cost_usd,
        "cost_is_floor": sums.cost_is_floor,
    })
}

/// The budget of the key, its user, its team or the organisation that is nearest to its end.
fn budget(states: &[LimitState]) -> Option<Value> {
    let budgets = states.iter().filter_map(|state| match &state.kind {
        LimitKind::Spend { period, .. } => Some((*period, state)),
        _ => None,
    });
    let (of, state) =
        budgets.max_by(|(_, one), (_, other)| one.percent.total_cmp(&other.percent))?;
    let usd = |nano: u64| nano as f64 / NANO;
    Some(json!({
        // without names: a key does not tell its holder who else pays
        "of": match state.subject {
            SubjectId::Org => "org",
            SubjectId::Team(_) => "team",
            SubjectId::User(_) => "user",
            SubjectId::Key(_) => "key",
        },
        "period": match of {
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Total => "total",
        },
        "bound_usd": usd(state.amount),
        "spent_usd": usd(state.spent),
        "left_usd": usd(state.left),
        "percent": (state.percent * 10.0).round() / 10.0,
        "resets_at": state.resets.map(rfc3339),
    }))
}

/// Billionths of a US dollar in one.
const NANO: f64 = 1e9;

/// Number of upstreams, and of those whose circuit is open. Their names are the operator's.
fn upstreams(circuits: &[CircuitState]) -> Value {
    let is_open =
        |state: &&CircuitState| matches!(state, CircuitState::Open | CircuitState::HalfOpen);
    json!({
        "total": circuits.len(),
        "unavailable": circuits.iter().filter(is_open).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_the_session() {
        for (target, id) in [
            ("/api/proxy/session?id=a-1", Some("a-1")),
            ("/api/proxy/session?x=y&id=a%20b&id=c", Some("a b")),
            ("/api/proxy/session?id=", None),
            ("/api/proxy/session?id=%ff", None),
            ("/api/proxy/session?id", None),
            ("/api/proxy/session", None),
        ] {
            assert_eq!(session_id(target.as_bytes()).as_deref(), id, "{target}");
        }
        let long = format!("/api/proxy/session?id={}", "x".repeat(LONGEST_ID + 1));
        assert_eq!(session_id(long.as_bytes()), None);
    }

    #[test]
    fn open_circuits_are_counted() {
        let circuits = [
            CircuitState::Open,
            CircuitState::HalfOpen,
            CircuitState::Closed,
            CircuitState::Failing(2),
            CircuitState::Unknown,
        ];
        assert_eq!(upstreams(&circuits), json!({"total": 5, "unavailable": 2}));
    }
}
