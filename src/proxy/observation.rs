//! Observation of an exchange, for the metrics, the activity and the access log.
//!
//! None of it is made while no telemetry is on: the record of an exchange then has no [`ExchangeObservation`].
//! All of it hangs on the beginning and the end of the exchange, on its response head, and on
//! a copy of its answer.

use std::{
    borrow::Cow,
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{
    error_content::ErrorPrefix,
    id::RequestId,
    inspection::SharedInspector,
    path,
    telemetry::{Telemetry, version},
};
use crate::{
    config::{Endpoint, Live},
    exchange::{
        ErrorContent, Exchange, ExchangeResponse, ExchangeStart, Progress, Route, ShownFields,
        Termination, TerminationPhase, TerminationSource, Timings, Tried, Try, Usage,
    },
    metering::{RequestDetails, RequestInspector, UsageReader},
    secret::Secrets,
    upstream::exchange::ConnectInfo,
    wire::head::{Fields, RequestHead, ResponseHead},
};

/// One exchange, as far as it is known.
pub(super) struct ExchangeObservation {
    observer: Rc<Telemetry>,
    live: Arc<Live>,
    begun: ExchangeStart,
    /// Progress that telemetry reads while the exchange runs.
    progress: Option<Arc<Progress>>,
    look: Option<SharedInspector>,
    tap: Option<UsageReader>,
    error: Option<ErrorPrefix>,
    upstream: Option<Arc<str>>,
    tries: Vec<Try>,
    upstream_request_id: Option<Box<str>>,
    rate_limit: Vec<(Box<str>, Box<str>)>,
    edit: Option<&'static str>,
    timings: Timings,
    request_fields: ShownFields,
    response_fields: ShownFields,
    /// Credentials that are hidden in whatever is told of it: the request's, and ours.
    secrets: Secrets,
}

/// Bytes of a path that are kept.
const LONGEST_PATH: usize = 1024;
/// Bytes of a name chosen by a client or an upstream that are kept.
const LONGEST_NAME: usize = 128;
/// Characters of a `User-Agent` that are kept.
const LONGEST_AGENT: usize = 256;
/// Fields of an answer that say how much is left.
const RATE_LIMIT: &str = "anthropic-ratelimit-";
/// Maximum of these that are kept: Anthropic sends twelve.
const MOST_RATE_LIMITS: usize = 16;

impl ExchangeObservation {
    /// Begins an observation, if telemetry is on.
    pub(super) fn begin(
        observer: &Rc<Telemetry>,
        live: &Arc<Live>,
        id: RequestId,
        head: &RequestHead,
        path: &str,
        client: Option<IpAddr>,
    ) -> Option<Box<Self>> {
        observer
            .is_looking(live)
            .then(|| Self::new(observer, live, id, head, path, client))
    }

    fn new(
        observer: &Rc<Telemetry>,
        live: &Arc<Live>,
        id: RequestId,
        head: &RequestHead,
        path: &str,
        client: Option<IpAddr>,
    ) -> Box<Self> {
        let route = match head.upgrade {
            Some(_) => Route::Tunnel,
            None => Route::of(head.method.as_str(), head.path()),
        };
        let mut secrets = path::credentials(head);
        secrets.add_all(&live.secrets);
        let session = name(head.fields.value("x-claude-code-session-id"));
        let user_agent = agent(head.fields.value("user-agent"), &secrets);
        let begun = ExchangeStart {
            id: id.to_string().into(),
            started: SystemTime::now(),
            client,
            version: version(head.version),
            method: head.method.as_str().into(),
            path: beginning(path).into(),
            route,
            session: session.map(|session| secrets.hide(&session).into()),
            user_agent,
        };
        let is_metered = live.metering && route == Route::Messages;
        let (request_fields, progress) = match observer.readers() {
            Some(recorder) => {
                let (fields, progress) =
                    (shown(&head.fields, &secrets), Arc::<Progress>::default());
                progress.asked_with(&fields);
                recorder.begun(&begun, &progress);
                let _ = head.notes.progress.set(Arc::clone(&progress));
                (fields, Some(progress))
            }
            None => Default::default(),
        };
        Box::new(Self {
            observer: Rc::clone(observer),
            live: Arc::clone(live),
            begun,
            progress,
            look: is_metered.then(|| Rc::new(RefCell::new(RequestInspector::new()))),
            tap: None,
            error: None,
            upstream: None,
            tries: Vec::new(),
            upstream_request_id: None,
            rate_limit: Vec::new(),
            edit: None,
            timings: Timings::default(),
            request_fields,
            response_fields: ShownFields::default(),
            secrets,
        })
    }

    /// Gives the progress that telemetry reads while the exchange runs.
    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        self.progress.as_ref()
    }

    /// Gives the inspector of the request's body, if it is inspected.
    pub(super) fn look(&self) -> Option<SharedInspector> {
        self.look.clone()
    }

    /// Records the outcome of the edit.
    pub(super) fn edited(&mut self, outcome: &'static str) {
        self.edit = Some(outcome);
        if let Some(progress) = &self.progress {
            progress.edited(outcome);
        }
    }

    /// The request's head is ready to be sent, after this overhead of the proxy.
    pub(super) fn sends(&mut self, overhead: Duration) {
        self.timings.overhead = overhead;
        if let (Some(progress), Some(look)) = (&self.progress, &self.look)
            && let Some(model) = &look.borrow().asked().model
        {
            progress.names(&self.secrets.hide(model));
        }
    }

    /// An upstream is asked.
    pub(super) fn asks(&mut self, endpoint: &Endpoint) {
        self.upstream = Some(Arc::clone(&endpoint.name));
        if let Some(progress) = &self.progress {
            progress.asks(&endpoint.name);
        }
    }

    /// A try does not bring the answer.
    pub(super) fn tried(&mut self, endpoint: &Endpoint, outcome: Tried) {
        let upstream = Arc::clone(&endpoint.name);
        self.tries.push(Try { upstream, outcome });
    }

    /// An upstream answered.
    pub(super) fn answered(
        &mut self,
        endpoint: &Endpoint,
        connect_info: Option<ConnectInfo>,
        started: Instant,
    ) {
        // the answer of a status that others were asked for stands if they gave none
        let has_stood = |tried: &Try| {
            matches!(tried.outcome, Tried::Status(_) | Tried::Overloaded)
                && tried.upstream == endpoint.name
        };
        if let Some(at) = self.tries.iter().position(has_stood) {
            self.tries.remove(at);
        }
        self.upstream = Some(Arc::clone(&endpoint.name));
        if let Some(connect_info) = connect_info {
            self.timings.connected = Some(connect_info.had_at.saturating_duration_since(started));
            self.timings.connecting = connect_info.connecting;
        }
    }

    /// The response head is here.
    pub(super) fn head(&mut self, head: &ResponseHead, after: Duration) {
        self.timings.head = Some(after);
        self.upstream_request_id = name(head.fields.value("request-id"));
        self.rate_limit = rate_limit(&head.fields);
        let coding = head.fields.value("content-encoding");
        if head.status.as_u16() >= 400 && self.observer.readers().is_some() {
            self.error = Some(ErrorPrefix::new(name(coding)));
        }
        if self.look.is_some() {
            let content_type = head.fields.value("content-type");
            self.tap = UsageReader::of(head.status.as_u16(), content_type, coding);
        }
        if let Some(recorder) = self.observer.readers() {
            self.response_fields = shown(&head.fields, &self.secrets);
            if let Some(progress) = &self.progress {
                progress.answered_with(head.status.as_u16(), &self.response_fields);
            }
            let asked = self.look.as_ref().map(|look| look.borrow().asked().clone());
            let asked = asked.unwrap_or_default();
            let hidden = |text: Option<Box<str>>| text.map(|text| self.secrets.hide(&text).into());
            let model: Option<Box<str>> = hidden(asked.model);
            if let (Some(progress), Some(model)) = (&self.progress, &model) {
                progress.names(model);
            }
            recorder.answered(ExchangeResponse {
                id: self.begun.id.clone(),
                status: head.status.as_u16(),
                upstream: self.upstream.clone(),
                upstream_request_id: hidden(self.upstream_request_id.clone()),
                model,
                is_stream: asked.is_stream,
                max_tokens: asked.max_tokens,
                timings: self.timings,
            });
        }
    }

    /// Content of the answer passes.
    pub(super) fn content(&mut self, content: &Bytes, sent: u64, started: Instant) {
        if let Some(tap) = &mut self.tap
            && tap.push(content)
        {
            self.timings.first_token = Some(started.elapsed());
        }
        if let Some(progress) = &self.progress {
            progress.sends(sent);
            if let Some(tap) = &self.tap {
                let (tokens, deltas) = tap.so_far();
                progress.meters(&tokens, deltas, self.timings.first_token);
            }
        }
        if let Some(error) = &mut self.error {
            error.push(content);
        }
    }

    /// The exchange has ended.
    pub(super) fn end(
        mut self,
        ended: Termination,
        status: Option<u16>,
        received: u64,
        sent: u64,
        total: Duration,
    ) {
        self.timings.total = total;
        let (usage, words) = self.usage(ended).unzip();
        let error = self.error_content(words.unwrap_or_default());
        let mut exchange = Exchange {
            begun: self.begun,
            status,
            upstream: self.upstream,
            tries: self.tries,
            upstream_request_id: self.upstream_request_id,
            received,
            sent,
            timings: self.timings,
            termination: ended,
            edit: self.edit,
            usage,
            error,
            rate_limit: self.rate_limit,
            request_fields: self.request_fields,
            response_fields: self.response_fields,
        };
        let secrets = &self.secrets;
        exchange.texts_mut(&mut |text| {
            if let Cow::Owned(masked) = secrets.hide(text) {
                *text = masked.into();
            }
        });
        self.observer.shard.exchange(&exchange);
        if let Some(recorder) = &self.observer.recorder {
            recorder.ended(exchange);
        }
    }

    /// Takes the upstream's error: the content of its response, or an error inside of a success.
    fn error_content(&mut self, words: Vec<u8>) -> Option<ErrorContent> {
        let (octets, coding) = match &mut self.error {
            Some(error) => error.take(),
            // undone already
            None => (words, None),
        };
        let is_shown = !octets.is_empty() && self.observer.readers().is_some();
        is_shown.then(|| ErrorContent {
            octets: octets.into(),
            coding,
            secrets: self.secrets.clone(),
        })
    }

    /// Takes the usage with its price, and the beginning of an error inside of a success.
    fn usage(&mut self, ended: Termination) -> Option<(Usage, Vec<u8>)> {
        let asked = match self.look.take() {
            Some(look) => std::mem::take(&mut *look.borrow_mut()).finish(),
            None => return None,
        };
        let RequestDetails {
            model,
            is_stream,
            max_tokens,
        } = asked;
        let (mut usage, words) = match self.tap.take() {
            Some(mut tap) => {
                if ended.source == TerminationSource::Complete {
                    tap.end();
                }
                tap.finish()
            }
            None => Default::default(),
        };
        // a request that was sent may have been worked on until it was given up
        let last = self.tries.last().map(|tried| tried.outcome);
        let is_given_up =
            ended.source == TerminationSource::Client && ended.phase == TerminationPhase::Request;
        usage.at_least |= self.timings.head.is_none()
            && (is_given_up && self.upstream.is_some() || last == Some(Tried::Unanswered));
        usage.model = usage.model.or(model);
        usage.is_stream |= is_stream.unwrap_or_default();
        usage.max_tokens = max_tokens;
        self.live.prices.apply(&mut usage);
        Some((usage, words))
    }
}

/// As much of a path as is kept.
fn beginning(path: &str) -> &str {
    let mut ends = (0..=path.len().min(LONGEST_PATH)).rev();
    let end = ends.find(|end| path.is_char_boundary(*end));
    &path[..end.unwrap_or_default()]
}

/// Fields as they may be shown.
fn shown(fields: &Fields, secrets: &Secrets) -> ShownFields {
    let fields = fields.iter().map(|field| (field.name, field.value));
    ShownFields::of(fields, secrets)
}

/// A value that may be shown: short and printable.
fn name(value: Option<&[u8]>) -> Option<Box<str>> {
    let value = std::str::from_utf8(value?).ok()?;
    let is_shown =
        value.len() <= LONGEST_NAME && value.bytes().all(|octet| octet.is_ascii_graphic());
    (is_shown && !value.is_empty()).then(|| value.into())
}

/// The beginning of a client's own name, without credentials and what is not printable.
fn agent(value: Option<&[u8]>, secrets: &Secrets) -> Option<Box<str>> {
    let value = String::from_utf8_lossy(value?);
    // before it is cut: half a key is one, too
    let hidden = secrets.hide(value.trim());
    let shown = |c: char| match c {
        ' '..='~' | '…' => c,
        _ => '?',
    };
    let mut text: String = hidden.chars().take(LONGEST_AGENT).map(shown).collect();
    while text.len() > LONGEST_AGENT {
        text.pop();
    }
    (!text.is_empty()).then(|| text.into())
}

fn rate_limit(fields: &Fields) -> Vec<(Box<str>, Box<str>)> {
    fields
        .iter()
        .filter_map(|field| {
            let field_name = std::str::from_utf8(field.name).ok()?.to_ascii_lowercase();
            let short = field_name
                .strip_prefix(RATE_LIMIT)
                .or_else(|| (field_name == "retry-after").then_some("retry-after"))?;
            // dates have a blank, and only here
            let value = std::str::from_utf8(field.value).ok()?;
            let is_shown = value.len() <= LONGEST_NAME && value.is_ascii();
            is_shown.then(|| (short.into(), value.into()))
        })
        .take(MOST_RATE_LIMITS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_shown_is_kept() {
        assert_eq!(name(Some(b"req_1")).as_deref(), Some("req_1"));
        for value in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
            assert_eq!(name(Some(value)), None);
        }
        let fields = Fields::from_pairs([
            (&b"Anthropic-RateLimit-Requests-Remaining"[..], &b"7"[..]),
            (b"retry-after", b"3"),
            (b"x-other", b"1"),
        ]);
        let found = rate_limit(&fields);
        assert_eq!(
            found,
            [
                ("requests-remaining".into(), "7".into()),
                ("retry-after".into(), "3".into())
            ]
        );
    }
}
