//! Details of an exchange that only telemetry wants: the metrics, the activity, the access log.
//!
//! None of it is made while no telemetry is on: the record of an exchange then has no [`ExchangeDetails`].
//! All of it hangs on the beginning and the end of the exchange, on its response head, and on
//! a copy of its answer.

use std::{
    borrow::Cow,
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{
    error_content::ErrorPrefix,
    id::RequestId,
    inspection::{SharedDigester, SharedInspector},
    keyed::settlement::{PaidEnd, Settlement},
    path,
    telemetry::{Telemetry, version},
};
use crate::{
    config::{Credential, Endpoint, Live},
    exchange::{
        ErrorContent, Exchange, ExchangeResponse, ExchangeStart, Owner, Progress, Route,
        ShownFields, Termination, TerminationPhase, TerminationSource, Tokens, Tried, Try, Usage,
        shortened,
    },
    metering::{PromptDigester, RequestDetails, RequestInspector, UsageReader},
    secret::Secrets,
    upstream::exchange::ConnectInfo,
    wire::head::{Fields, RequestHead, ResponseHead},
};

/// Details of one exchange.
pub(super) struct ExchangeDetails {
    observer: Rc<Telemetry>,
    live: Arc<Live>,
    /// Facts that are known so far.
    pub(super) exchange: Box<Exchange>,
    /// Progress that telemetry reads while the exchange runs.
    pub(super) progress: Option<Arc<Progress>>,
    /// Inspector of the request's body, if it is inspected.
    pub(super) look: Option<SharedInspector>,
    /// Digester of the request's prompt, if it is digested.
    pub(super) digester: Option<SharedDigester>,
    /// Boxed, so that the allocator keeps the details at hand: it is as large as all the rest of them.
    tap: Option<Box<UsageReader>>,
    /// The tokens that the progress has.
    shown: Tokens,
    /// The task that an operator's end wakes.
    waker: Option<Waker>,
    /// The grant that the exchange runs on, of one with a key of the proxy.
    settlement: Option<Box<Settlement>>,
    /// All of the request came.
    pub(super) is_asked: bool,
    /// Usage of the exchange, where that is known before its end.
    used: Option<(Usage, Vec<u8>)>,
    error: Option<ErrorPrefix>,
    /// Credentials that are hidden in whatever is told of it: the request's, and ours.
    secrets: Secrets,
}

/// The key of the proxy that pays for an exchange.
#[derive(Clone, Copy)]
pub(super) struct Payer<'a> {
    /// Its owner.
    pub(super) owner: &'a Arc<Owner>,
    /// Its credential for the upstream, which is never shown.
    pub(super) credential: Option<&'a Credential>,
}

/// Bytes of a path that are kept.
const LONGEST_PATH: usize = 1024;
/// Bytes of a name chosen by a client or an upstream that are kept.
const LONGEST_NAME: usize = 128;
impl ExchangeDetails {
    /// Begins them, if telemetry is on.
    pub(super) fn begin(
        observer: &Rc<Telemetry>,
        live: &Arc<Live>,
        id: RequestId,
        head: &RequestHead,
        path: &str,
        client: Option<IpAddr>,
        payer: Option<Payer<'_>>,
    ) -> Option<Box<Self>> {
        observer
            .is_looking(live)
            .then(|| Self::new(observer, live, id, head, path, client, payer))
    }

    fn new(
        observer: &Rc<Telemetry>,
        live: &Arc<Live>,
        id: RequestId,
        head: &RequestHead,
        path: &str,
        client: Option<IpAddr>,
        payer: Option<Payer<'_>>,
    ) -> Box<Self> {
        let route = match head.upgrade {
            Some(_) => Route::Tunnel,
            None => Route::of(head.method.as_str(), head.path()),
        };
        let mut secrets = path::credentials(head);
        secrets.share(&live.secrets);
        if let Some(credential) = payer.and_then(|payer| payer.credential) {
            let name = credential.name.as_str();
            secrets.add_field(name.as_bytes(), credential.value.as_bytes());
        }
        let named = |field: &str| {
            let value = name(head.fields.value(field))?;
            Some(observer.sessions.get(&secrets.hide(value)))
        };
        let session = named("x-claude-code-session-id");
        let (agent, parent_agent) = match session {
            Some(_) => (
                named("x-claude-code-agent-id"),
                named("x-claude-code-parent-agent-id"),
            ),
            None => (None, None),
        };
        let mut begun = ExchangeStart {
            seq: 0,
            id: id.text(),
            started: SystemTime::now(),
            client,
            version: version(head.version),
            method: observer
                .texts
                .get(shortened(head.method.as_str(), LONGEST_NAME)),
            path: observer.texts.get(shortened(path, LONGEST_PATH)),
            route,
            session,
            user_agent: observer
                .agents
                .shown(head.fields.value("user-agent"), &secrets),
            agent,
            parent_agent,
            owner: payer.map(|payer| Arc::clone(payer.owner)),
        };
        // what a key pays for is metered in any case
        let is_metered = (live.metering || payer.is_some()) && route == Route::Messages;
        let is_digested = is_metered && begun.session.is_some() && observer.readers().is_some();
        let (request_fields, progress, spare) = match observer.readers() {
            Some(recorder) => {
                let (fields, progress) =
                    (shown(&head.fields, &secrets), Arc::<Progress>::default());
                progress.asked_with(&fields);
                let spare = recorder.begun(&mut begun, &progress);
                let _ = head.notes.progress.set(Arc::clone(&progress));
                (fields, Some(progress), spare)
            }
            None => Default::default(),
        };
        let ended = Termination {
            source: TerminationSource::Client,
            phase: TerminationPhase::Request,
            label: None,
        };
        let trace = observer.traces.as_ref().and_then(|traces| {
            let value = |name| head.fields.value(name);
            traces.begin(value("traceparent"), value("tracestate"))
        });
        let exchange = Exchange {
            request_fields,
            trace,
            ..Exchange::new(begun, ended)
        };
        Box::new(Self {
            observer: Rc::clone(observer),
            live: Arc::clone(live),
            exchange: match spare {
                Some(mut spare) => {
                    *spare = exchange;
                    spare
                }
                None => Box::new(exchange),
            },
            progress,
            look: is_metered.then(|| Rc::new(RefCell::new(RequestInspector::new()))),
            digester: is_digested.then(|| Rc::new(RefCell::new(PromptDigester::new()))),
            tap: None,
            shown: Tokens::default(),
            waker: None,
            settlement: None,
            is_asked: true,
            used: None,
            error: None,
            secrets,
        })
    }

    /// Tells whether an operator has ended the exchange, and registers the task to be woken then: once, and not
    /// for each piece of content.
    pub(super) fn poll_ending(&mut self, cx: &Context<'_>) -> bool {
        let Some(progress) = &self.progress else {
            return false;
        };
        let waker = cx.waker();
        if self.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            return progress.is_ending();
        }
        self.waker = Some(waker.clone());
        progress.poll_ending(cx)
    }

    /// The exchange runs on a grant.
    pub(super) fn runs_on(&mut self, settlement: Settlement) {
        self.settlement = Some(Box::new(settlement));
    }

    /// All of the answer has come. A grant is settled now: before the client has it and asks again.
    pub(super) fn completes(&mut self) {
        let Some(mut settlement) = self.settlement.take() else {
            return;
        };
        self.exchange.termination.source = TerminationSource::Complete;
        self.used = self.usage();
        let usage = self.used.as_ref().map(|(usage, _)| usage);
        settlement.settle(&PaidEnd::of(&self.exchange, self.is_asked), usage);
    }

    /// The grant that the exchange runs on.
    pub(super) fn settlement(&self) -> Option<&Settlement> {
        self.settlement.as_deref()
    }

    /// The request's head is ready to be sent, after this overhead of the proxy.
    pub(super) fn sends(&mut self, overhead: Duration) {
        self.exchange.timings.overhead = overhead;
        if let (Some(progress), Some(look)) = (&self.progress, &self.look)
            && let Some(model) = &look.borrow().asked().model
        {
            progress.names(self.observer.texts.get(&self.secrets.hide(model)));
        }
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
        let exchange = &mut self.exchange;
        if let Some(at) = exchange.tries.iter().position(has_stood) {
            exchange.tries.remove(at);
        }
        // it was asked, and is remembered already, unless the answer of an earlier one stands
        if self.exchange.upstream.as_ref() != Some(&endpoint.name) {
            self.exchange.upstream = Some(Arc::clone(&endpoint.name));
        }
        if let Some(connect_info) = connect_info {
            let connected = connect_info.had_at.saturating_duration_since(started);
            self.exchange.timings.connected = Some(connected);
            self.exchange.timings.connecting = connect_info.connecting;
        }
    }

    /// The response head is here.
    pub(super) fn head(&mut self, head: &ResponseHead, after: Duration) {
        let exchange = &mut *self.exchange;
        exchange.timings.head = Some(after);
        exchange.status = Some(head.status.as_u16());
        let id = name(head.fields.value("request-id"));
        exchange.upstream_request_id = id.map(|id| self.secrets.hide(id).into());
        let [content_type, coding] = head.fields.values(["content-type", "content-encoding"]);
        let status = head.status.as_u16();
        if status >= 400 && self.observer.readers().is_some() {
            self.error = Some(ErrorPrefix::new(name(coding).map(Into::into)));
        }
        if self.look.is_some() {
            self.tap = UsageReader::of(status, content_type, coding);
        }
        if let Some(progress) = &self.progress {
            exchange.response_fields = shown(&head.fields, &self.secrets);
            let look = self.look.as_ref().map(|look| look.borrow());
            let asked = look.as_ref().map(|look| look.asked());
            let model = || {
                // it came after the head was sent
                let model = asked.and_then(|asked| asked.model.as_deref())?;
                Some(self.observer.texts.get(&self.secrets.hide(model)))
            };
            let response = ExchangeResponse {
                status,
                upstream: exchange.upstream.clone(),
                upstream_request_id: exchange.upstream_request_id.clone(),
                model: progress.model().cloned().or_else(model),
                is_stream: asked.and_then(|asked| asked.is_stream),
                max_tokens: asked.and_then(|asked| asked.max_tokens),
                timings: exchange.timings,
            };
            progress.answered_with(response, &exchange.response_fields);
        }
    }

    /// Content of the answer passes.
    pub(super) fn content(&mut self, content: &Bytes, is_last: bool, sent: u64, started: Instant) {
        let is_first = self.tap.as_mut().is_some_and(|tap| tap.push(content));
        if is_first {
            self.exchange.timings.first_token = Some(started.elapsed());
        }
        if let Some(progress) = &self.progress {
            progress.sends(sent);
        }
        if let Some(tap) = &self.tap
            && (self.progress.is_some() || self.settlement.is_some())
        {
            let (tokens, deltas) = tap.so_far();
            if let Some(progress) = &self.progress {
                progress.streams(deltas);
                if is_first || tokens != self.shown {
                    self.shown = tokens;
                    progress.meters(&tokens, self.exchange.timings.first_token);
                }
            }
            // what comes with the last is settled at once
            if let Some(settlement) = self.settlement.as_mut().filter(|_| !is_last) {
                settlement.progress(&tokens, deltas);
            }
        }
        if let Some(error) = &mut self.error {
            error.push(content);
        }
    }

    /// The exchange has ended, as it says.
    pub(super) fn finish(mut self: Box<Self>) {
        let used = self.used.take().or_else(|| self.usage());
        let (usage, words) = used.unzip();
        if let Some(mut settlement) = self.settlement.take() {
            settlement.settle(&PaidEnd::of(&self.exchange, self.is_asked), usage.as_ref());
        }
        let error = self.error_content(words.unwrap_or_default());
        (self.exchange.usage, self.exchange.error) = (usage, error);
        if let Some(digester) = self.digester.take() {
            self.exchange.prompt = digester.take().finish().map(Arc::new);
        }
        self.observer.ended(self.exchange);
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
    fn usage(&mut self) -> Option<(Usage, Vec<u8>)> {
        let ended = self.exchange.termination;
        let asked = match self.look.take() {
            Some(look) => std::mem::take(look.borrow_mut().asked_mut()),
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
        let exchange = &self.exchange;
        let last = exchange.tries.last().map(|tried| tried.outcome);
        let end = PaidEnd::of(exchange, self.is_asked);
        let is_unanswered = last == Some(Tried::Unanswered);
        usage.at_least |= end.may_have_worked(exchange.upstream.is_some(), is_unanswered);
        if let (Some(trace), Some(model)) = (&mut self.exchange.trace, &model) {
            trace.asked_model = Some(self.secrets.hide(model).into());
        }
        usage.model = usage.model.or(model);
        usage.is_stream |= is_stream.unwrap_or_default();
        usage.max_tokens = max_tokens;
        self.live.prices.apply(&mut usage);
        usage.texts_mut(|text| {
            if let Cow::Owned(masked) = self.secrets.hide(text) {
                *text = masked.into();
            }
        });
        Some((usage, words))
    }
}

/// Fields as they may be shown.
fn shown(fields: &Fields, secrets: &Secrets) -> ShownFields {
    let fields = fields.iter().map(|field| (field.name, field.value));
    ShownFields::of(fields, secrets)
}

/// A value that may be shown: short and printable.
fn name(value: Option<&[u8]>) -> Option<&str> {
    let value = std::str::from_utf8(value?).ok()?;
    let is_shown =
        value.len() <= LONGEST_NAME && value.bytes().all(|octet| octet.is_ascii_graphic());
    (is_shown && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;

    use super::*;
    use crate::{
        proxy::tests::live,
        wire::{
            body::Framing,
            head::{Transport, Version},
        },
    };

    #[test]
    fn a_key_that_pays_makes_no_details_where_nothing_reads_them() {
        let head = RequestHead {
            method: Method::POST,
            target: "/v1/messages".into(),
            version: Version::Http11,
            transport: Transport::Clear,
            fields: Fields::default(),
            framing: Framing::None,
            expects_continue: false,
            upgrade: None,
            notes: Rc::default(),
        };
        let owner = Arc::new(Owner {
            key: "0000000001".into(),
            name: "ci".into(),
            user: None,
            team: None,
        });
        let payer = Payer {
            owner: &owner,
            credential: None,
        };
        let observer = Rc::new(Telemetry::new(None, None, Arc::default()));
        for is_public in [false, true] {
            let live = Arc::new(Live {
                metrics_public: is_public,
                ..live("http://upstream.test")
            });
            let id = RequestId::next();
            let path = "/v1/messages";
            let begun =
                ExchangeDetails::begin(&observer, &live, id, &head, path, None, Some(payer));
            assert_eq!(begun.is_some(), is_public);
        }
    }

    #[test]
    fn only_what_may_be_shown_is_kept() {
        assert_eq!(name(Some(b"req_1")), Some("req_1"));
        for value in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
            assert_eq!(name(Some(value)), None);
        }
    }
}
