//! Telemetry of one worker: the metrics, the activity, the access log, traces.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use super::texts::{AgentCache, TextCache};
use crate::{
    config::Live,
    exchange::{Exchange, ExchangeStart, Route, Termination, TerminationPhase, TerminationSource},
    telemetry::activity::EventSender,
    telemetry::metrics::Shard,
    telemetry::traces::Tracer,
    wire::{head::Version, refused_request::RefusedRequest},
};

/// Receivers of telemetry in one worker.
pub struct Telemetry {
    /// The activity and the access log, if there is one of them.
    pub recorder: Option<EventSender>,
    /// Traces, if they are on.
    pub(super) traces: Option<Tracer>,
    /// The worker's own counters.
    pub shard: Arc<Shard>,
    /// Counts every exchange, since alerts look at the counts.
    is_watched: bool,
    /// Methods, paths and models.
    pub(super) texts: TextCache,
    /// Sessions and agents.
    pub(super) sessions: TextCache,
    /// The clients' own names.
    pub(super) agents: AgentCache,
}

impl Telemetry {
    /// Creates the receivers of one worker.
    pub fn new(recorder: Option<EventSender>, traces: Option<Tracer>, shard: Arc<Shard>) -> Self {
        Self {
            recorder,
            traces,
            shard,
            is_watched: false,
            texts: TextCache::default(),
            sessions: TextCache::default(),
            agents: AgentCache::default(),
        }
    }

    /// Counts every exchange where alerts look at the counts, or they are sent.
    pub fn watched(self, is_watched: bool) -> Self {
        Self { is_watched, ..self }
    }

    /// Tells whether exchanges are observed.
    pub fn is_looking(&self, live: &Live) -> bool {
        self.recorder.is_some() || self.traces.is_some() || self.is_watched || live.metrics_public
    }

    /// Gives the event sender, if it has readers besides the access log.
    pub(super) fn readers(&self) -> Option<&EventSender> {
        self.recorder
            .as_ref()
            .filter(|recorder| recorder.has_readers())
    }

    /// A request was refused before there was an exchange: its head could not be read, or there was no
    /// place for its connection.
    pub fn refused(&self, live: &Live, client: Option<IpAddr>, refused: &RefusedRequest<'_>) {
        if !self.is_looking(live) {
            return;
        }
        let begun = ExchangeStart {
            seq: 0,
            id: refused.id.into(),
            started: SystemTime::now(),
            client,
            version: version(refused.version),
            method: refused.method.into(),
            path: "".into(),
            route: Route::Other,
            session: None,
            user_agent: None,
            agent: None,
            parent_agent: None,
            owner: None,
        };
        let ended = Termination {
            // what is wrong with a request is its client's doing, a limit is ours
            source: if refused.answer.status.is_server_error() {
                TerminationSource::Proxy
            } else {
                TerminationSource::Client
            },
            phase: TerminationPhase::Request,
            label: Some(refused.answer.label),
        };
        let exchange = Exchange {
            status: Some(refused.answer.status.as_u16()),
            ..Exchange::new(begun, ended)
        };
        self.ended(exchange.into());
    }

    /// An exchange has ended.
    pub(super) fn ended(&self, exchange: Box<Exchange>) {
        self.shard.exchange(&exchange);
        if let (Some(traces), Some(context)) = (&self.traces, &exchange.trace) {
            traces.end(&exchange, context);
        }
        if let Some(recorder) = &self.recorder {
            recorder.ended(exchange);
        }
    }
}

pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2",
    }
}
