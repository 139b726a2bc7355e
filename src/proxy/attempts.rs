//! On to the next upstream: before a response head has gone out, and only if nothing was lost.
//!
//! A request that could not be sent at all goes on freely: the upstream that failed got nothing of it.
//! One that was answered by a status of `FAILOVER_STATUS`, or by a stream that begins with an
//! `overloaded_error`, goes on if its body was kept and the retry budget allows it; the answer is held
//! meanwhile, and stands if the next upstream does no better. A request that was sent and not answered
//! goes nowhere: it may have been processed.

use std::time::{Duration, SystemTime};

use super::{outgoing::Outgoing, record::ExchangeRecord, worker::Worker};
use crate::{
    config::{Endpoint, Live},
    error::{ProxyError, UpstreamError},
    exchange::Tried,
    telemetry::metrics::Moved,
    upstream::{
        ResponseBody,
        balance::{Candidate, Selection, retry_after},
        exchange::{Failed, Replay, Response},
        first_event::{self, FirstEvent},
        prefetch,
        replay::ReplayBuffer,
        request::{Body, Request},
    },
    wire::head::{Fields, ResponseHead},
};

/// A response, and the endpoint that it came from.
pub(super) struct EndpointResponse {
    pub(super) response: Response<ResponseBody>,
    pub(super) endpoint: usize,
}

/// Sends a request to the only endpoint, or to the first that does.
pub(super) async fn send(
    worker: &Worker,
    live: &Live,
    outgoing: &mut Outgoing<'_>,
    body: Body,
    record: &mut ExchangeRecord,
) -> Result<EndpointResponse, ProxyError> {
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
            Ok(EndpointResponse {
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
            // what the client did wrong says nothing of the upstream
            if matches!(cause, ProxyError::Upstream(_)) {
                worker.balance.learned_of_only(&live.endpoints, true);
                record.tried(endpoint, Tried::Unanswered);
            }
            Err(cause)
        }
    }
}

async fn send_to_several(
    worker: &Worker,
    live: &Live,
    outgoing: &mut Outgoing<'_>,
    mut body: Body,
    record: &mut ExchangeRecord,
) -> Result<EndpointResponse, ProxyError> {
    let session = session(&outgoing.head.fields);
    let mut attempts = Attempts::new(worker.balance.selection(&live.endpoints, session));
    let mut keep = Some(Box::new(ReplayBuffer::new(
        &live.failover_status,
        live.max_replay_body,
        &worker.replay_memory,
    )));
    // the answer that stands if no other upstream gives a better one
    let mut standing: Option<EndpointResponse> = None;
    let mut waited = Some(outgoing.waited);
    let mut permanent = 0;
    let mut candidate = attempts.first();
    loop {
        let endpoint = &live.endpoints[candidate.endpoint];
        let request = outgoing.request(endpoint, body, keep.take());
        if let Some(waited) = waited.take() {
            record.sends(waited);
        }
        record.asks(endpoint);
        let attempt = match worker.client.send(live, candidate.endpoint, request).await {
            Ok(mut response) => {
                let replay = response.replay.take();
                let (response, is_overloaded) = begun(response, replay.is_some(), live).await;
                Attempt::answered(response, candidate.endpoint, replay, is_overloaded, live)
            }
            Err(Failed::Unsent(request, cause)) => Attempt::Unsent(request, cause),
            Err(Failed::Sent(cause)) => Attempt::Unanswered(cause),
        };
        attempts.learn(candidate, &attempt, live);
        attempt.record(endpoint, record);
        if matches!(&attempt, Attempt::Unsent(_, cause) if cause.is_permanent()) {
            permanent += 1;
        }
        record.has_other_ways = permanent < live.endpoints.len();
        let next = match attempt.outcome().verdict(standing.is_some()) {
            AttemptVerdict::Deliver | AttemptVerdict::Fail => None,
            AttemptVerdict::Retry(terms) => attempts.on(terms).next(),
        };
        let Some(next) = next else {
            return attempt.settle(standing);
        };
        let to = &live.endpoints[next.endpoint];
        match attempt {
            Attempt::Answered {
                answered,
                replay: Some(replay),
                is_overloaded,
                ..
            } => {
                let status = answered.response.head.status.as_u16();
                let (tried, moved, what) = match is_overloaded {
                    true => (
                        Tried::Overloaded,
                        Moved::Overloaded,
                        " with overloaded_error",
                    ),
                    false => (Tried::Status(status), Moved::Status, ""),
                };
                log::info!(
                    "[Failover] {} answered status={status}{what}; retrying on {}",
                    endpoint.upstream,
                    to.upstream,
                );
                record.tried(endpoint, tried);
                worker.observer.shard.moved(moved);
                outgoing.follow(&replay.body);
                standing = Some(answered);
                (body, keep) = (replay.body, Some(replay.keep));
            }
            Attempt::Unsent(request, cause) => {
                log::warn!(
                    "[Failover] {cause} at {}; retrying on {}",
                    endpoint.upstream,
                    to.upstream,
                );
                worker.observer.shard.moved(Moved::Unreachable);
                (body, keep) = (request.body, request.keep);
            }
            // the verdict on these is never to retry
            attempt @ (Attempt::Answered { replay: None, .. } | Attempt::Unanswered(_)) => {
                return attempt.settle(standing);
            }
        }
        candidate = next;
    }
}

/// An attempt to send a request to one upstream.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made, and never stored"
)]
enum Attempt {
    /// The upstream answered.
    Answered {
        answered: EndpointResponse,
        /// The request, if it was kept for one more attempt.
        replay: Option<Box<Replay>>,
        is_overloaded: bool,
        /// The answer is a failure by `FAILOVER_STATUS`.
        is_failure: bool,
    },
    /// Nothing of the request has left.
    Unsent(Box<Request>, UpstreamError),
    /// The request was sent, and no response head came.
    Unanswered(ProxyError),
}

impl Attempt {
    fn answered(
        response: Response<ResponseBody>,
        endpoint: usize,
        replay: Option<Box<Replay>>,
        is_overloaded: bool,
        live: &Live,
    ) -> Self {
        let status = status(&response.head, is_overloaded);
        Self::Answered {
            answered: EndpointResponse { response, endpoint },
            replay,
            is_overloaded,
            is_failure: live.failover_status.contains(status),
        }
    }

    fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Answered {
                is_failure, replay, ..
            } => match (is_failure, replay) {
                (false, _) => AttemptOutcome::Accepted,
                (true, None) => AttemptOutcome::Rejected(KeptContent::Gone),
                (true, Some(_)) => AttemptOutcome::Rejected(KeptContent::Kept),
            },
            Self::Unsent(_, UpstreamError::DescriptorsExhausted(_)) => AttemptOutcome::Exhausted,
            Self::Unsent(..) => AttemptOutcome::Unsent,
            Self::Unanswered(_) => AttemptOutcome::Unanswered,
        }
    }

    /// Records a failure to get any answer.
    fn record(&self, endpoint: &Endpoint, record: &mut ExchangeRecord) {
        match (self.outcome(), self) {
            (AttemptOutcome::Unsent, _) => record.tried(endpoint, Tried::Unreachable),
            // what the client did wrong says nothing of the upstream
            (_, Self::Unanswered(ProxyError::Upstream(_))) => {
                record.tried(endpoint, Tried::Unanswered);
            }
            _ => {}
        }
    }

    /// Gives what the client gets if this attempt is the last one. `standing` is the answer of an earlier
    /// one.
    fn settle(self, standing: Option<EndpointResponse>) -> Result<EndpointResponse, ProxyError> {
        match self {
            Self::Answered { answered, .. } => Ok(answered),
            Self::Unsent(_, cause) => standing.ok_or(cause.into()),
            Self::Unanswered(cause @ ProxyError::Upstream(_)) => standing.ok_or(cause),
            // what the client did wrong is no upstream's to answer
            Self::Unanswered(cause) => Err(cause),
        }
    }
}

/// Outcome of an attempt, as far as the verdict depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptOutcome {
    /// An answer that is no failure by `FAILOVER_STATUS`.
    Accepted,
    /// An answer that is one.
    Rejected(KeptContent),
    /// No connection.
    Unsent,
    /// No connection, since the proxy has no file descriptor left: no upstream would get one.
    Exhausted,
    /// No answer to a request that may have been processed.
    Unanswered,
}

/// Content of a request after it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptContent {
    Kept,
    Gone,
}

/// Verdict on an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptVerdict {
    /// The client gets this answer.
    Deliver,
    /// Another upstream is tried, if the terms allow it.
    Retry(RetryTerms),
    /// The client gets the error, or the answer that stands.
    Fail,
}

/// Upstreams that a retry may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryTerms {
    /// A healthy one, if the retry budget has room.
    WithinBudget,
    /// A healthy one.
    Healthy,
    /// Any one, a healthy one first.
    Any,
}

impl AttemptOutcome {
    fn verdict(self, has_standing: bool) -> AttemptVerdict {
        match (self, has_standing) {
            (Self::Accepted | Self::Rejected(KeptContent::Gone), _) => AttemptVerdict::Deliver,
            (Self::Rejected(KeptContent::Kept), _) => {
                AttemptVerdict::Retry(RetryTerms::WithinBudget)
            }
            // the upstream got nothing of the request
            (Self::Unsent, false) => AttemptVerdict::Retry(RetryTerms::Any),
            (Self::Unsent, true) => AttemptVerdict::Retry(RetryTerms::Healthy),
            (Self::Exhausted | Self::Unanswered, _) => AttemptVerdict::Fail,
        }
    }
}

/// The upstreams of one request, each once, on the terms of the last verdict.
struct Attempts<'a> {
    selection: Selection<'a>,
    terms: RetryTerms,
}

impl<'a> Attempts<'a> {
    fn new(selection: Selection<'a>) -> Self {
        Self {
            selection,
            terms: RetryTerms::Any,
        }
    }

    fn first(&mut self) -> Candidate {
        self.selection.first()
    }

    fn on(&mut self, terms: RetryTerms) -> &mut Self {
        self.terms = terms;
        self
    }

    /// Tells the endpoint's health how the attempt went.
    fn learn(&self, candidate: Candidate, attempt: &Attempt, live: &Live) {
        match (attempt.outcome(), attempt) {
            (
                _,
                Attempt::Answered {
                    answered,
                    is_overloaded,
                    ..
                },
            ) => {
                let head = &answered.response.head;
                learn(&self.selection, candidate, live, head, *is_overloaded);
            }
            (AttemptOutcome::Unsent, _) | (_, Attempt::Unanswered(ProxyError::Upstream(_))) => {
                failed(&self.selection, candidate, live);
            }
            _ => {}
        }
    }
}

impl Iterator for Attempts<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        match self.terms {
            RetryTerms::WithinBudget => self.selection.next_healthy_within_budget(),
            RetryTerms::Healthy => self.selection.next_healthy(),
            RetryTerms::Any => self
                .selection
                .next_healthy()
                .or_else(|| self.selection.last_resort()),
        }
    }
}

/// The response, and whether it is a stream that begins with an `overloaded_error`, where that is to
/// count as a failure. The head of the stream waits for its first octets only if the request can go on.
async fn begun(
    response: Response<ResponseBody>,
    can_go_on: bool,
    live: &Live,
) -> (Response<ResponseBody>, bool) {
    let counts = live.failover_status.contains(first_event::OVERLOADED);
    if !counts || !first_event::is_event_stream(&response.head) {
        return (response, false);
    }
    let patience = match can_go_on {
        true => first_event::PATIENCE,
        false => Duration::ZERO,
    };
    let (response, first) = Box::pin(prefetch::read(response, patience)).await;
    (response, first == FirstEvent::Overloaded)
}

/// The status of an answer, as `FAILOVER_STATUS` has it.
fn status(head: &ResponseHead, is_overloaded: bool) -> u16 {
    match is_overloaded {
        true => first_event::OVERLOADED,
        false => head.status.as_u16(),
    }
}

/// Tells the endpoint's health how it answered.
fn learn(
    selection: &Selection<'_>,
    candidate: Candidate,
    live: &Live,
    head: &ResponseHead,
    is_overloaded: bool,
) {
    let status = status(head, is_overloaded);
    let is_ours = live.endpoints[candidate.endpoint].credential.is_some();
    if is_health_failure(live, candidate.endpoint, status) {
        failed(selection, candidate, live);
    } else {
        selection.succeeded(candidate);
    }
    // who was turned away there has no reason to come back
    if status < 400 {
        selection.pin_session(candidate);
    }
    let may_ask_for_rest = matches!(status, 503 | 529) || (status == 429 && is_ours);
    if may_ask_for_rest
        && let Some(value) = head.fields.value("retry-after")
        && let Some(wait) = retry_after(value, SystemTime::now())
    {
        selection.back_off(candidate, wait);
    }
}

/// Tells whether a status counts against the upstream's health. 401, 429 and the like are about a credential:
/// if it is the client's own, they do not.
fn is_health_failure(live: &Live, endpoint: usize, status: u16) -> bool {
    let is_ours = || live.endpoints[endpoint].credential.is_some();
    live.failover_status.contains(status) && (status >= 500 || is_ours())
}

fn failed(selection: &Selection<'_>, candidate: Candidate, live: &Live) {
    if selection.failed(candidate) {
        log::warn!(
            "[Failover] {} failed repeatedly; its circuit is open, and requests go to other upstreams until it recovers",
            live.endpoints[candidate.endpoint].upstream
        );
    }
}

/// Gives the affinity key of a request: its Claude Code session, else its API key.
fn session(fields: &Fields) -> Option<&[u8]> {
    ["x-claude-code-session-id", "x-api-key", "authorization"]
        .iter()
        .filter_map(|name| fields.value(name))
        .find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_may_have_been_processed_is_never_sent_again() {
        use self::{AttemptOutcome::*, KeptContent::*};
        for (outcome, first, with_standing) in [
            (Accepted, AttemptVerdict::Deliver, AttemptVerdict::Deliver),
            (
                Rejected(Gone),
                AttemptVerdict::Deliver,
                AttemptVerdict::Deliver,
            ),
            (
                Rejected(Kept),
                AttemptVerdict::Retry(RetryTerms::WithinBudget),
                AttemptVerdict::Retry(RetryTerms::WithinBudget),
            ),
            (
                Unsent,
                AttemptVerdict::Retry(RetryTerms::Any),
                AttemptVerdict::Retry(RetryTerms::Healthy),
            ),
            (Exhausted, AttemptVerdict::Fail, AttemptVerdict::Fail),
            (Unanswered, AttemptVerdict::Fail, AttemptVerdict::Fail),
        ] {
            assert_eq!(outcome.verdict(false), first, "{outcome:?}");
            assert_eq!(outcome.verdict(true), with_standing, "{outcome:?}");
        }
    }
}
