//! The record of an exchange, which tells how it went.
//!
//! [`ExchangeRecord`] is finished when it is dropped, so that every exchange is told, also one whose client
//! vanished before there was a response: once, to the log and to telemetry.

use std::{
    fmt,
    rc::Rc,
    sync::Arc,
    task::Context,
    time::{Duration, Instant},
};

use actix_web::http::{Method, StatusCode};
use bytes::Bytes;

use super::{
    details::ExchangeDetails,
    id::RequestId,
    inspection::{SharedDigester, SharedInspector},
    keyed::{
        cutting::RunningKey,
        payment::Payment,
        settlement::{PaidEnd, Settlement},
    },
    verify,
};
use crate::{
    config::{Endpoint, prices::recent::RecentPrices},
    error::{Answer, DeniedError, DownstreamError, ProxyError, plain_text},
    exchange::{
        Progress, Termination, TerminationPhase, TerminationSource, Tried, Try, VerifiedExchange,
    },
    label::Label,
    limits::Admission,
    upstream::exchange::ConnectInfo,
    wire::{
        body::Framing,
        head::{BodyNotes, RequestHead, ResponseHead},
    },
};

/// End of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExchangeEnd {
    /// The response was complete.
    Complete,
    /// The client went away, or all was cut at the end of a drain.
    Client,
    /// The client broke the rules of HTTP or let a timer expire, by the label of our answer.
    Fault(Label),
    /// The upstream failed, before its response head (then there is an answer of ours) or inside of its
    /// response.
    Upstream(Label),
    /// A refusal of ours, by its label.
    Proxy(Label),
}

impl fmt::Display for ExchangeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Client => f.write_str("client_gone"),
            Self::Fault(label) => write!(f, "client:{label}"),
            Self::Upstream(label) => write!(f, "upstream:{label}"),
            Self::Proxy(label) => write!(f, "proxy:{label}"),
        }
    }
}

/// Record of one exchange.
pub(super) struct ExchangeRecord {
    pub(super) admission: Admission,
    id: RequestId,
    method: Method,
    /// The path as it may be logged.
    path: Box<str>,
    pub(super) notes: Rc<BodyNotes>,
    /// Framing of the request's body.
    framing: Framing,
    started: Instant,
    status: Option<StatusCode>,
    /// The endpoint that answered, of several.
    endpoint: Option<(Arc<[Endpoint]>, usize)>,
    head: Option<Duration>,
    /// Octets of the response's content.
    pub(super) sent: u64,
    pub(super) ended: ExchangeEnd,
    /// True if another upstream may do what the last one could not.
    pub(super) has_other_ways: bool,
    /// Details for telemetry, if it observes the exchange.
    details: Option<Box<ExchangeDetails>>,
    /// Payment for it, if a key pays and telemetry does not observe it.
    payment: Option<Box<Payment>>,
    /// The key that pays for it, which may be revoked.
    running: Option<Rc<RunningKey>>,
}

impl ExchangeRecord {
    pub(super) fn new(
        head: &RequestHead,
        path: Box<str>,
        admission: Admission,
        details: impl FnOnce(RequestId, &str) -> Option<Box<ExchangeDetails>>,
    ) -> Self {
        let id = RequestId::next();
        Self {
            admission,
            id,
            details: details(id, &path),
            method: head.method.clone(),
            path,
            notes: Rc::clone(&head.notes),
            framing: head.framing,
            started: Instant::now(),
            status: None,
            endpoint: None,
            head: None,
            sent: 0,
            ended: ExchangeEnd::Client,
            has_other_ways: false,
            payment: None,
            running: None,
        }
    }

    /// The exchange has a key of the proxy.
    pub(super) fn has_key(&mut self, running: &Rc<RunningKey>) {
        self.running = Some(Rc::clone(running));
    }

    /// All of the response has come.
    pub(super) fn completes(&mut self) {
        self.ended = ExchangeEnd::Complete;
        if let Some(details) = &mut self.details {
            details.completes();
        }
        // before the client has it and asks again
        self.pays(ExchangeEnd::Complete);
    }

    /// Settles what its key pays, as far as telemetry does not do that.
    fn pays(&mut self, outcome: ExchangeEnd) {
        if let Some(payment) = self.payment.take() {
            payment.settle(&PaidEnd {
                status: self.status.map(|status| status.as_u16()),
                is_asked: self.notes.is_whole(self.framing),
                has_head: self.head.is_some(),
                termination: self.termination(outcome),
            });
        }
    }

    /// The key's limits let it run.
    pub(super) fn runs_on(
        &mut self,
        settlement: Settlement,
        model: Option<Rc<str>>,
        prices: &Rc<RecentPrices>,
    ) {
        match &mut self.details {
            Some(details) => details.runs_on(settlement),
            None => self.payment = Some(Payment::new(settlement, model, prices)),
        }
    }

    /// The grant that it runs on.
    pub(super) fn settlement(&self) -> Option<&Settlement> {
        match &self.details {
            Some(details) => details.settlement(),
            None => self.payment.as_ref().map(|payment| payment.settlement()),
        }
    }

    /// It waits for a free slot of its key, or not any more.
    pub(super) fn waits(&self, waits: bool) {
        if let Some(progress) = self.progress() {
            progress.waits(waits);
        }
    }

    /// The response is one of the proxy's own, and a success.
    pub(super) fn answers(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.completes();
        if let Some(progress) = self.progress() {
            progress.finishes();
        }
    }

    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    /// True if telemetry observes the exchange.
    pub(super) fn is_watched(&self) -> bool {
        self.details.is_some()
    }

    /// The inspector of the request's body, if it is inspected.
    pub(super) fn look(&self) -> Option<SharedInspector> {
        self.details.as_ref()?.look.clone()
    }

    /// The digester of the request's prompt, if it is digested.
    pub(super) fn digester(&self) -> Option<SharedDigester> {
        self.details.as_ref()?.digester.clone()
    }

    /// The plan for the body stands: what became of the edit, where one was thinkable.
    pub(super) fn plans(&mut self, edit: Option<Label>) {
        let Some((details, outcome)) = self.details.as_mut().zip(edit) else {
            return;
        };
        details.exchange.edit = edit;
        if let Some(progress) = &details.progress {
            progress.edited(outcome);
        }
    }

    /// One of the endpoints is asked.
    pub(super) fn asks(&mut self, endpoint: &Endpoint) {
        if let Some(payment) = &mut self.payment {
            payment.asks();
        }
        let Some(details) = &mut self.details else {
            return;
        };
        details.exchange.upstream = Some(Arc::clone(&endpoint.name));
        if let Some(progress) = &details.progress {
            progress.asks(&endpoint.name);
        }
    }

    /// A try at one of the endpoints does not bring the answer.
    pub(super) fn tried(&mut self, endpoint: &Endpoint, outcome: Tried) {
        if let Some(payment) = &mut self.payment {
            payment.tried(outcome);
        }
        let Some(details) = &mut self.details else {
            return;
        };
        let upstream = Arc::clone(&endpoint.name);
        details.exchange.tries.push(Try { upstream, outcome });
    }

    /// One of the endpoints answered.
    pub(super) fn answered_by(
        &mut self,
        endpoints: &Arc<[Endpoint]>,
        at: usize,
        connect_info: Option<ConnectInfo>,
    ) {
        if endpoints.len() > 1 {
            self.endpoint = Some((Arc::clone(endpoints), at));
        }
        if let Some(details) = &mut self.details {
            details.answered(&endpoints[at], connect_info, self.started);
        }
    }

    /// The head is ready to be sent. If the body was waited for: from then, until then.
    pub(super) fn sends(&mut self, waited: Option<(Instant, Instant)>) {
        let Some(details) = &mut self.details else {
            return;
        };
        let waited = waited.map_or(Duration::ZERO, |(from, until)| {
            until.saturating_duration_since(from)
        });
        details.sends(self.started.elapsed().saturating_sub(waited));
    }

    /// The upstream's response head is here.
    pub(super) fn head(mut self, head: &ResponseHead) -> Self {
        let after = self.started.elapsed();
        self.status = Some(head.status);
        self.head = Some(after);
        if let Some(details) = &mut self.details {
            details.head(head, after);
        }
        if let Some(payment) = &mut self.payment {
            payment.head(head);
        }
        self
    }

    /// Content of the response passes. If it is the last, [`Self::completes`] comes next.
    pub(super) fn content(&mut self, content: &Bytes, is_last: bool) {
        self.sent += content.len() as u64;
        if let Some(details) = &mut self.details {
            details.content(content, is_last, self.sent, self.started);
        }
        if let Some(payment) = &mut self.payment {
            payment.content(content, is_last);
        }
    }

    /// Octets of a tunnel pass towards the client.
    pub(super) fn relays(&mut self, octets: usize) {
        self.sent += octets as u64;
        if let Some(progress) = self.progress() {
            progress.sends(self.sent);
        }
    }

    /// The progress that telemetry reads, where there is one.
    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        self.details.as_ref()?.progress.as_ref()
    }

    /// Tells why the exchange is to end now, if an operator wants it, and registers the task to be woken
    /// then.
    pub(super) fn poll_ending(&mut self, cx: &Context<'_>) -> Option<Label> {
        let details = self.details.as_mut();
        if details.is_some_and(|details| details.poll_ending(cx)) {
            return Some(Label::EndedByOperator);
        }
        is_cut(self.running.as_deref(), cx).then_some(Label::KeyRevoked)
    }

    /// The key that pays for it.
    pub(super) fn running(&self) -> Option<&Rc<RunningKey>> {
        self.running.as_ref()
    }

    /// Tells how much of the request has come: it may still come while the answer passes.
    pub(super) fn receives(&self) {
        if let Some(progress) = self.progress() {
            progress.receives(self.notes.octets.get());
        }
    }

    /// Gives the termination, for telemetry.
    fn termination(&self, outcome: ExchangeEnd) -> Termination {
        let (source, label) = match outcome {
            ExchangeEnd::Complete => (TerminationSource::Complete, None),
            ExchangeEnd::Client if self.notes.is_stalled.get() => {
                (TerminationSource::Client, Some(Label::WriteTimeout))
            }
            ExchangeEnd::Client => (TerminationSource::Client, Some(Label::ClientDisconnected)),
            ExchangeEnd::Fault(label) => (TerminationSource::Client, Some(label)),
            ExchangeEnd::Upstream(label) => (TerminationSource::Upstream, Some(label)),
            ExchangeEnd::Proxy(label) => (TerminationSource::Proxy, Some(label)),
        };
        let phase = match self.head {
            Some(_) => TerminationPhase::Response,
            None => TerminationPhase::Request,
        };
        Termination {
            source,
            phase,
            label,
        }
    }

    /// Gives the end: an exchange that was dropped because the process ends, or because an operator ended it,
    /// was not left by its client.
    fn outcome(&self) -> ExchangeEnd {
        // read from the upstream, but not by the client
        let is_undelivered = self.ended == ExchangeEnd::Complete && self.notes.is_undelivered.get();
        match self.ended {
            ended if ended != ExchangeEnd::Client && !is_undelivered => ended,
            _ if self.admission.is_cut() => ExchangeEnd::Proxy(Label::Shutdown),
            _ if self.notes.is_ending() => ExchangeEnd::Proxy(Label::EndedByOperator),
            _ => ExchangeEnd::Client,
        }
    }

    /// The exchange ends with an answer of ours. Gives the name that the answer carries.
    pub(super) fn refuse(mut self, cause: &ProxyError, answer: &Answer) -> String {
        let id = self.id.to_string();
        // a client that left gets no answer
        let is_gone = matches!(cause, ProxyError::Downstream(DownstreamError::Disconnected));
        self.status = (!is_gone).then_some(answer.status);
        self.ended = match cause {
            ProxyError::Downstream(DownstreamError::Disconnected) => ExchangeEnd::Client,
            ProxyError::Downstream(_) => ExchangeEnd::Fault(answer.label),
            ProxyError::Upstream(_) => ExchangeEnd::Upstream(answer.label),
            ProxyError::Denied(DeniedError::EndedByOperator) => ExchangeEnd::Proxy(answer.label),
            // a rule of ours that the client broke, and no limit
            ProxyError::Denied(_) if answer.status.is_client_error() => {
                ExchangeEnd::Fault(answer.label)
            }
            ProxyError::Refused(refused) if !refused.is_limit => ExchangeEnd::Fault(answer.label),
            ProxyError::Denied(_) | ProxyError::Internal(_) | ProxyError::Refused(_) => {
                ExchangeEnd::Proxy(answer.label)
            }
        };
        if let ProxyError::Upstream(cause) = cause {
            log::warn!("[Proxy] {} request_id={id}", Chain(cause));
        }
        id
    }
}

/// Tells if the key of an exchange was revoked with the wish to cut.
fn is_cut(running: Option<&RunningKey>, cx: &Context<'_>) -> bool {
    running.is_some_and(|running| running.poll_cut(cx))
}

/// Tells why an exchange without a response is to end now, and registers the task to be woken then.
pub(super) fn poll_ending(
    progress: Option<&Progress>,
    running: Option<&RunningKey>,
    cx: &Context<'_>,
) -> Option<Label> {
    if progress.is_some_and(|progress| progress.poll_ending(cx)) {
        return Some(Label::EndedByOperator);
    }
    is_cut(running, cx).then_some(Label::KeyRevoked)
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        let (outcome, total) = (self.outcome(), self.started.elapsed());
        let (received, sent) = (self.notes.octets.get(), self.sent);
        let verified = self.notes.verification.get().map(|verification| {
            verify::outcome(verification, outcome == ExchangeEnd::Complete, self.id)
        });
        let status = self.status.map(|status| status.as_u16());
        log::info!(
            "[Proxy] {} {} status={} in={received} out={sent} head_ms={} ms={} ended={outcome}{}{} request_id={}",
            self.method,
            self.path,
            status.unwrap_or_default(),
            Millis(self.head.unwrap_or_default()),
            Millis(total),
            EndpointSuffix(self.endpoint.as_ref()),
            VerifySuffix(verified.as_ref()),
            self.id,
        );
        self.pays(outcome);
        let Some(mut details) = self.details.take() else {
            return;
        };
        if let Some(progress) = &details.progress
            && outcome != ExchangeEnd::Proxy(Label::EndedByOperator)
        {
            // what still waits for the client is not to be cut
            progress.finishes();
        }
        let exchange = &mut *details.exchange;
        exchange.status = status;
        (exchange.received, exchange.sent) = (received, sent);
        exchange.timings.total = total;
        exchange.verified = verified.map(Box::new);
        exchange.termination = self.termination(outcome);
        details.is_asked = self.notes.is_whole(self.framing);
        details.finish();
    }
}

/// The endpoint that answered, where there are several.
struct EndpointSuffix<'a>(Option<&'a (Arc<[Endpoint]>, usize)>);

impl fmt::Display for EndpointSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((endpoints, at)) => write!(f, " upstream={}", endpoints[*at].upstream),
            None => Ok(()),
        }
    }
}

/// The outcome of an exchange that was verified.
struct VerifySuffix<'a>(Option<&'a VerifiedExchange>);

impl fmt::Display for VerifySuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(verified) => write!(f, " verify={}", verified.identity().label()),
            None => Ok(()),
        }
    }
}

/// Milliseconds with one decimal, without the cost of a float.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.as_micros() / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// An error and its causes. Only errors of connecting come here: they name hosts and system errors,
/// never content.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain_text(self.0))?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {}", plain_text(error))?;
            cause = error.source();
        }
        Ok(())
    }
}
