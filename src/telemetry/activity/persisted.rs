//! An exchange as it is stored for the next process: the facts of its row, without content, fields or the
//! text of an error.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::ended::{EndedExchange, EndedRecord};
use crate::exchange::{
    Estimate, Exchange, ExchangeStart, MeteringFailure, OtherModel, Owner, Route, Termination,
    TerminationPhase, TerminationSource, Terms, Timings, Tokens, Usage,
};
use crate::label::Label;

/// An exchange that ended, as the next process reads it.
#[derive(Serialize, Deserialize)]
struct PersistedExchange {
    /// End in microseconds since the epoch, like all times here; durations are microseconds.
    ended: u64,
    id: Box<str>,
    started: u64,
    client: Option<IpAddr>,
    version: Box<str>,
    method: Box<str>,
    path: Box<str>,
    route: Box<str>,
    session: Option<Box<str>>,
    #[serde(default)]
    agent: Option<Box<str>>,
    #[serde(default)]
    parent_agent: Option<Box<str>>,
    #[serde(default)]
    owner: Option<PersistedOwner>,
    user_agent: Option<Box<str>>,
    status: Option<u16>,
    upstream: Option<Box<str>>,
    upstream_request_id: Option<Box<str>>,
    received: u64,
    sent: u64,
    connected: Option<u64>,
    connecting: Option<u64>,
    head: Option<u64>,
    first_token: Option<u64>,
    total: u64,
    overhead: u64,
    by: Box<str>,
    phase: Box<str>,
    label: Option<Box<str>>,
    edit: Option<Box<str>>,
    usage: Option<PersistedUsage>,
    /// The type of the error in the response's content.
    kind: Option<Box<str>>,
}

#[derive(Serialize, Deserialize)]
struct PersistedUsage {
    model: Option<Box<str>>,
    is_stream: bool,
    max_tokens: Option<u64>,
    tokens: PersistedTokens,
    /// Model, tokens, cost.
    others: Vec<(Box<str>, PersistedTokens, Option<u64>)>,
    server_tools: u64,
    web_searches: u64,
    /// `inference_geo`, `speed`, `service_tier`.
    terms: [Option<Box<str>>; 3],
    stop_reason: Option<Box<str>>,
    error_type: Option<Box<str>>,
    failure: Option<Box<str>>,
    cost: Option<u64>,
    at_least: bool,
    /// Tokens of output, and the cost with them.
    estimate: Option<(u64, Option<u64>)>,
}

/// Id of the key, name of the key, user, team.
type PersistedOwner = (Box<str>, Box<str>, Option<Box<str>>, Option<Box<str>>);

/// Input, output, read from a cache, written to a cache for 5 minutes, for an hour.
type PersistedTokens = [u64; 5];

/// The text that is stored of an exchange.
pub(super) fn write(failure: &EndedRecord) -> Option<String> {
    serde_json::to_string(&PersistedExchange::of(failure)).ok()
}

/// The exchange of a stored text; none where it cannot be read.
pub(super) fn read(text: &str) -> Option<RestoredExchange> {
    let kept: PersistedExchange = serde_json::from_str(text).ok()?;
    kept.restored()
}

/// An exchange of an earlier process.
pub(super) struct RestoredExchange {
    pub(super) ended: SystemTime,
    pub(super) exchange: Exchange,
    /// The type of the error in the response's content.
    pub(super) kind: Option<Box<str>>,
}

impl PersistedExchange {
    fn of(failure: &EndedRecord) -> Self {
        let EndedExchange {
            ended, exchange, ..
        } = failure.done.as_ref();
        let (begun, timings) = (&exchange.begun, &exchange.timings);
        Self {
            ended: micros_since_epoch(*ended),
            id: (&*begun.id).into(),
            started: micros_since_epoch(begun.started),
            client: begun.client,
            version: begun.version.into(),
            method: (&*begun.method).into(),
            path: (&*begun.path).into(),
            route: begun.route.label().into(),
            session: begun.session.as_deref().map(Into::into),
            agent: begun.agent.as_deref().map(Into::into),
            parent_agent: begun.parent_agent.as_deref().map(Into::into),
            owner: begun.owner.as_deref().map(|owner| {
                let Owner {
                    key,
                    name,
                    user,
                    team,
                } = owner.clone();
                ((&*key).into(), name, user, team)
            }),
            user_agent: begun.user_agent.as_deref().map(Into::into),
            status: exchange.status,
            upstream: exchange.upstream.as_deref().map(Into::into),
            upstream_request_id: exchange.upstream_request_id.as_deref().map(Into::into),
            received: exchange.received,
            sent: exchange.sent,
            connected: timings.connected.map(micros),
            connecting: timings.connecting.map(micros),
            head: timings.head.map(micros),
            first_token: timings.first_token.map(micros),
            total: micros(timings.total),
            overhead: micros(timings.overhead),
            by: exchange.termination.source.label().into(),
            phase: exchange.termination.phase.label().into(),
            label: exchange.termination.label.map(|it| it.text().into()),
            edit: exchange.edit.map(|it| it.text().into()),
            usage: exchange.usage.as_ref().map(PersistedUsage::of),
            kind: failure.kind.clone(),
        }
    }

    fn restored(self) -> Option<RestoredExchange> {
        let by = [
            TerminationSource::Complete,
            TerminationSource::Client,
            TerminationSource::Upstream,
            TerminationSource::Proxy,
        ];
        let phase = [TerminationPhase::Request, TerminationPhase::Response];
        let begun = ExchangeStart {
            seq: 0,
            id: self.id.into(),
            started: at(self.started),
            client: self.client,
            version: version(&self.version),
            method: self.method.into(),
            path: self.path.into(),
            route: Route::ALL
                .into_iter()
                .find(|route| route.label() == &*self.route)?,
            session: self.session.map(Into::into),
            user_agent: self.user_agent.map(Into::into),
            agent: self.agent.map(Into::into),
            parent_agent: self.parent_agent.map(Into::into),
            owner: self.owner.map(|(key, name, user, team)| {
                Arc::new(Owner {
                    key: key.into(),
                    name,
                    user,
                    team,
                })
            }),
        };
        let ended = Termination {
            source: by.into_iter().find(|by| by.label() == &*self.by)?,
            phase: phase
                .into_iter()
                .find(|phase| phase.label() == &*self.phase)?,
            label: self.label.as_deref().map(Label::of),
        };
        let exchange = Exchange {
            status: self.status,
            upstream: self.upstream.map(Into::into),
            upstream_request_id: self.upstream_request_id.map(Into::into),
            received: self.received,
            sent: self.sent,
            timings: Timings {
                connected: self.connected.map(Duration::from_micros),
                connecting: self.connecting.map(Duration::from_micros),
                head: self.head.map(Duration::from_micros),
                first_token: self.first_token.map(Duration::from_micros),
                total: Duration::from_micros(self.total),
                overhead: Duration::from_micros(self.overhead),
            },
            edit: self.edit.as_deref().map(Label::of),
            usage: self.usage.map(PersistedUsage::usage),
            ..Exchange::new(begun, ended)
        };
        Some(RestoredExchange {
            ended: at(self.ended),
            exchange,
            kind: self.kind,
        })
    }
}

impl PersistedUsage {
    fn of(usage: &Usage) -> Self {
        let Terms {
            inference_geo,
            speed,
            service_tier,
        } = &usage.terms;
        let others = usage.others.iter();
        Self {
            model: usage.model.clone(),
            is_stream: usage.is_stream,
            max_tokens: usage.max_tokens,
            tokens: kept_tokens(&usage.tokens),
            others: others
                .map(|other| (other.model.clone(), kept_tokens(&other.tokens), other.cost))
                .collect(),
            server_tools: usage.server_tools,
            web_searches: usage.web_searches,
            terms: [inference_geo, speed, service_tier].map(Clone::clone),
            stop_reason: usage.stop_reason.clone(),
            error_type: usage.error_type.clone(),
            failure: usage.failure.map(|failure| failure.label().into()),
            cost: usage.cost,
            at_least: usage.at_least,
            estimate: usage.estimate.map(|it| (it.output, it.cost)),
        }
    }

    fn usage(self) -> Usage {
        let [inference_geo, speed, service_tier] = self.terms;
        let failure = self.failure.as_deref();
        Usage {
            model: self.model,
            is_stream: self.is_stream,
            max_tokens: self.max_tokens,
            tokens: tokens(self.tokens),
            compactions: Vec::new(),
            others: self
                .others
                .into_iter()
                .map(|(model, used, cost)| OtherModel {
                    model,
                    tokens: tokens(used),
                    cost,
                })
                .collect(),
            server_tools: self.server_tools,
            web_searches: self.web_searches,
            terms: Terms {
                inference_geo,
                speed,
                service_tier,
            },
            stop_reason: self.stop_reason,
            error_type: self.error_type,
            failure: MeteringFailure::ALL
                .into_iter()
                .find(|it| Some(it.label()) == failure),
            cost: self.cost,
            at_least: self.at_least,
            estimate: self
                .estimate
                .map(|(output, cost)| Estimate { output, cost }),
        }
    }
}

fn kept_tokens(tokens: &Tokens) -> PersistedTokens {
    [
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
    ]
}

fn tokens(kept: PersistedTokens) -> Tokens {
    let [input, output, cache_read, cache_write_5m, cache_write_1h] = kept;
    Tokens {
        input,
        output,
        cache_read,
        cache_write_5m,
        cache_write_1h,
    }
}

/// The version of a stored text.
fn version(text: &str) -> &'static str {
    let known = ["1.0", "1.1", "2"].into_iter().find(|known| *known == text);
    known.unwrap_or("unknown")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn micros_since_epoch(at: SystemTime) -> u64 {
    micros(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Time of a number of microseconds; the epoch if the number is out of range.
fn at(micros: u64) -> SystemTime {
    let since = Duration::from_micros(micros);
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}
