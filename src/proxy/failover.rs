//! On to the next upstream: before a response head has gone out, and only if nothing was lost.
//!
//! A request that could not be sent at all goes on freely: the upstream that failed got nothing of it.
//! One that was answered by a status of `FAILOVER_STATUS`, or by a stream that begins with an
//! `overloaded_error`, goes on if its body was kept and the retry budget allows it; the answer is held
//! meanwhile, and stands if the next upstream does no better. A request that was sent and not answered
//! goes nowhere: it may have been processed.

use std::time::{Duration, SystemTime};

use super::{Outgoing, Worker, exchange::Record};
use crate::{
    config::{Endpoint, Live},
    error::{ProxyError, UpstreamError},
    exchange::Tried,
    telemetry::metrics::Moved,
    upstream::{
        balance::{Choice, Turn, retry_after},
        first_event::{self, FirstEvent},
        http1::{Body, Failed, Request, Response},
        replay::{Keep, Replay},
    },
    wire::head::{Fields, ResponseHead},
};

/// A response, and the endpoint that it came from.
pub(super) struct Answered {
    pub(super) response: Response,
    pub(super) endpoint: usize,
}

/// Sends a request to the only endpoint, or to the first that does.
pub(super) async fn send(
    worker: &Worker,
    live: &Live,
    outgoing: &mut Outgoing<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Answered, ProxyError> {
    if live.endpoints.len() > 1 {
        return Box::pin(send_to_several(worker, live, outgoing, body, record)).await;
    }
    let endpoint = &live.endpoints[0];
    let request = outgoing.request(endpoint, body, None);
    record.sends(outgoing.waited);
    record.asks(endpoint);
    match worker.client.send(live, 0, request).await {
        Ok(response) => {
            let has_failed = is_health_failure(live, 0, response.head.status.as_u16());
            worker.balance.learned_of_only(&live.endpoints, has_failed);
            Ok(Answered {
                response,
                endpoint: 0,
            })
        }
        Err(Failed::Unsent(_, cause)) => {
            let cause = cause.into();
            // what the proxy refused says nothing of the upstream
            if matches!(cause, ProxyError::Upstream(_)) {
                worker.balance.learned_of_only(&live.endpoints, true);
                record.tried(endpoint, Tried::Unreachable);
            }
            Err(cause)
        }
        Err(Failed::Sent(cause)) => {
            let cause = unanswered(cause, endpoint, record);
            if matches!(cause, ProxyError::Upstream(_)) {
                worker.balance.learned_of_only(&live.endpoints, true);
            }
            Err(cause)
        }
    }
}

/// A request was sent, and not answered.
fn unanswered(cause: ProxyError, endpoint: &Endpoint, record: &mut Record) -> ProxyError {
    // what the client did wrong says nothing of the upstream
    if matches!(cause, ProxyError::Upstream(_)) {
        record.tried(endpoint, Tried::Unanswered);
    }
    cause
}

async fn send_to_several(
    worker: &Worker,
    live: &Live,
    outgoing: &mut Outgoing<'_>,
    mut body: Body,
    record: &mut Record,
) -> Result<Answered, ProxyError> {
    let session = session(&outgoing.head.fields);
    let mut turn = worker.balance.turn(&live.endpoints, session);
    let mut choice = turn.first();
    let mut keep = Some(Box::new(Keep::new(
        &live.failover_status,
        live.max_replay_body,
        &worker.replay_memory,
    )));
    // the answer that stands if nobody gives a better one
    let mut standing: Option<Answered> = None;
    let mut waited = Some(outgoing.waited);
    loop {
        let endpoint = &live.endpoints[choice.endpoint];
        let request = outgoing.request(endpoint, body, keep.take());
        if let Some(waited) = waited.take() {
            record.sends(waited);
        }
        record.asks(endpoint);
        match worker.client.send(live, choice.endpoint, request).await {
            Ok(mut response) => {
                let replay = response.replay.take();
                let (response, is_overloaded) = begun(response, replay.is_some(), live).await;
                let is_failure = learn(&turn, choice, live, &response.head, is_overloaded);
                let answered = Answered {
                    response,
                    endpoint: choice.endpoint,
                };
                let Some((replay, next)) = replay
                    .filter(|_| is_failure)
                    .and_then(|replay| Some((replay, turn.another_within_budget()?)))
                else {
                    return Ok(answered);
                };
                let status = answered.response.head.status.as_u16();
                let (tried, moved, what) = match is_overloaded {
                    true => (
                        Tried::Overloaded,
                        Moved::Overloaded,
                        " with overloaded_error",
                    ),
                    false => (Tried::Status(status), Moved::Status, ""),
                };
                record.tried(endpoint, tried);
                log::info!(
                    "[Failover] status={status}{what} of {}, on to {}",
                    endpoint.upstream,
                    live.endpoints[next.endpoint].upstream,
                );
                let Replay {
                    body: whole,
                    keep: kept,
                } = *replay;
                worker.observer.shard.moved(moved);
                outgoing.follow(&whole);
                standing = Some(answered);
                (body, keep, choice) = (whole, Some(kept), next);
            }
            // nor would the next upstream get a connection, nor has this one failed
            Err(Failed::Unsent(_, cause @ UpstreamError::DescriptorsExhausted(_))) => {
                return standing.ok_or(cause.into());
            }
            Err(Failed::Unsent(request, cause)) => {
                failed(&turn, choice, live);
                record.tried(endpoint, Tried::Unreachable);
                let Request {
                    body: whole,
                    keep: kept,
                    ..
                } = *request;
                let next = turn.another().or_else(|| match standing {
                    None => turn.last_resort(),
                    Some(_) => None,
                });
                match next {
                    Some(next) => {
                        worker.observer.shard.moved(Moved::Unreachable);
                        log::warn!(
                            "[Failover] {cause} at {}, on to {}",
                            endpoint.upstream,
                            live.endpoints[next.endpoint].upstream,
                        );
                        (body, keep, choice) = (whole, kept, next);
                    }
                    None => return standing.ok_or(cause.into()),
                }
            }
            Err(Failed::Sent(cause)) => {
                let cause = unanswered(cause, endpoint, record);
                if !matches!(cause, ProxyError::Upstream(_)) {
                    // what the client did wrong is no upstream's to answer
                    return Err(cause);
                }
                failed(&turn, choice, live);
                return standing.ok_or(cause);
            }
        }
    }
}

/// The response, and whether it is a stream that begins with an `overloaded_error`, where that is to
/// count as a failure. The head of the stream waits for its first octets only if the request can go on.
async fn begun(response: Response, can_go_on: bool, live: &Live) -> (Response, bool) {
    let counts = live.failover_status.contains(first_event::OVERLOADED);
    if !counts || !first_event::is_event_stream(&response.head) {
        return (response, false);
    }
    let patience = match can_go_on {
        true => first_event::PATIENCE,
        false => Duration::ZERO,
    };
    let (response, first) = Box::pin(first_event::read(response, patience)).await;
    (response, first == FirstEvent::Overloaded)
}

/// Tells the endpoint's health how it answered, and the caller whether that was a failure.
fn learn(
    turn: &Turn<'_>,
    choice: Choice,
    live: &Live,
    head: &ResponseHead,
    is_overloaded: bool,
) -> bool {
    let status = match is_overloaded {
        true => first_event::OVERLOADED,
        false => head.status.as_u16(),
    };
    let is_failure = live.failover_status.contains(status);
    let is_ours = live.endpoints[choice.endpoint].credential.is_some();
    if is_health_failure(live, choice.endpoint, status) {
        failed(turn, choice, live);
    } else {
        turn.succeeded(choice);
    }
    // who was turned away there has no reason to come back
    if status < 400 {
        turn.stay(choice);
    }
    let may_ask_for_rest = matches!(status, 503 | 529) || (status == 429 && is_ours);
    if may_ask_for_rest
        && let Some(value) = head.fields.value("retry-after")
        && let Some(wait) = retry_after(value, SystemTime::now())
    {
        turn.rest(choice, wait);
    }
    is_failure
}

/// Whether a status says that the upstream is not well. 401, 429 and the like are about a credential:
/// where it is the client's own, they say nothing of the upstream, and others need not wait for it.
fn is_health_failure(live: &Live, endpoint: usize, status: u16) -> bool {
    let is_ours = || live.endpoints[endpoint].credential.is_some();
    live.failover_status.contains(status) && (status >= 500 || is_ours())
}

fn failed(turn: &Turn<'_>, choice: Choice, live: &Live) {
    if turn.failed(choice) {
        log::warn!(
            "[Failover] {} failed repeatedly: it is passed over for a while",
            live.endpoints[choice.endpoint].upstream
        );
    }
}

/// What a request should stay together with: its Claude Code session, else its key.
fn session(fields: &Fields) -> Option<&[u8]> {
    ["x-claude-code-session-id", "x-api-key", "authorization"]
        .iter()
        .filter_map(|name| fields.value(name))
        .find(|value| !value.is_empty())
}
