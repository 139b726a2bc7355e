//! Recent exchanges: the last that ended, the last that failed.

use std::{collections::VecDeque, ops::Deref, sync::Arc, time::SystemTime};

use super::{
    ended::{EndedExchange, EndedRecord, RedactedText},
    persisted::RestoredExchange,
    queue::Numbers,
    totals::is_failure,
};
pub(super) use crate::exchange::shortened;
use crate::exchange::{Exchange, ExchangeStart, Progress, TerminationSource, Try};

/// Exchanges that are kept when they have ended.
pub(super) const KEPT: usize = 5_000;
/// Failures that are kept.
pub(super) const FAILURES: usize = 1_000;
/// Upper bound of bytes of the failures' texts: 16 MiB. The oldest go first.
const CONTENT: usize = 16 << 20;
/// Upper bound of kept bytes of a path.
const PATH: usize = 1024;
/// Calls of other models that are listed of an exchange.
const OTHERS: usize = 16;
/// Upper bound of kept bytes of `User-Agent`.
const AGENT: usize = 256;
/// Upper bound of kept bytes of other texts.
const TEXT: usize = 128;

/// The exchanges that are listed after their end.
#[derive(Default)]
pub(super) struct Recent {
    pub(super) numbers: Arc<Numbers>,
    changes: u64,
    done: VecDeque<Arc<EndedExchange>>,
    failures: VecDeque<EndedRecord>,
    attempts: VecDeque<FailedAttempt>,
    content: usize,
    oldest: Option<SystemTime>,
}

/// An exchange in flight.
#[derive(Clone)]
pub(super) struct InFlightExchange {
    pub(super) begun: ExchangeStart,
    /// Progress, which its worker updates.
    pub(super) progress: Arc<Progress>,
}

impl InFlightExchange {
    /// The exchange of this progress, if it has begun.
    pub(super) fn of(progress: &Arc<Progress>) -> Option<Self> {
        Some(Self {
            begun: progress.begun()?.clone(),
            progress: Arc::clone(progress),
        })
    }
}

/// An attempt at one upstream that failed, and after which another one was asked.
#[derive(Clone)]
pub(super) struct FailedAttempt {
    /// End of its exchange.
    pub(super) ended: SystemTime,
    /// Request id of its exchange.
    pub(super) id: Arc<str>,
    pub(super) attempt: Try,
}

/// Listed exchanges at one moment.
pub(super) struct Listed {
    /// Newest first.
    pub(super) in_flight: Vec<InFlightExchange>,
    /// Newest first, by their beginning.
    pub(super) done: Vec<Arc<EndedExchange>>,
}

impl Recent {
    /// Lists an exchange that has ended. Returns the part that may be stored, and the exchange that is no longer
    /// listed.
    pub(super) fn ended(
        &mut self,
        mut exchange: Box<Exchange>,
        ended: SystemTime,
        text: Option<RedactedText>,
        kind: Option<Box<str>>,
    ) -> (EndedRecord, Option<Arc<EndedExchange>>) {
        // of one that was refused before it began
        if exchange.begun.seq == 0 {
            exchange.begun.seq = self.numbers.next();
        }
        self.failed_over(&exchange, ended);
        trim_exchange(&mut exchange);
        let done = Arc::new(EndedExchange {
            change: self.next_change(),
            ended,
            exchange,
        });
        let stored = EndedRecord {
            done: Arc::clone(&done),
            kind: kind.clone(),
            text: None,
        };
        let unlisted = self.done(EndedRecord { done, kind, text });
        (stored, unlisted)
    }

    fn done(&mut self, ended: EndedRecord) -> Option<Arc<EndedExchange>> {
        let is_full = self.done.len() == KEPT;
        let unlisted = is_full.then(|| self.done.pop_front()).flatten();
        self.done.push_back(Arc::clone(&ended.done));
        if is_failure(&ended.done.exchange) {
            self.failed(ended);
        }
        unlisted
    }

    /// Keeps the attempts after which another upstream was asked. The last one of an exchange that was
    /// without a response is the failure of that exchange.
    fn failed_over(&mut self, exchange: &Exchange, ended: SystemTime) {
        let is_own = exchange.timings.head.is_none()
            && exchange.termination.source == TerminationSource::Upstream;
        let own = usize::from(is_own);
        let others = exchange.tries.len().saturating_sub(own);
        for attempt in &exchange.tries[..others] {
            if self.attempts.len() == FAILURES {
                self.attempts.pop_front();
            }
            self.attempts.push_back(FailedAttempt {
                ended,
                id: Arc::clone(&exchange.begun.id),
                attempt: attempt.clone(),
            });
        }
    }

    /// Takes over exchanges of an earlier process.
    pub(super) fn restore(&mut self, mut restored: Vec<RestoredExchange>) {
        restored.sort_by_key(|it| it.exchange.begun.started);
        let mut all: Vec<_> = restored
            .into_iter()
            .map(|it| (self.numbers.next(), it))
            .collect();
        all.sort_by_key(|(_, it)| it.ended);
        self.oldest = all.first().map(|(_, it)| it.ended);
        for (seq, restored) in all {
            let RestoredExchange {
                ended,
                mut exchange,
                mut kind,
            } = restored;
            exchange.begun.seq = seq;
            trim_exchange(&mut exchange);
            cut_some(&mut kind);
            let done = Arc::new(EndedExchange {
                change: self.next_change(),
                ended,
                exchange: exchange.into(),
            });
            self.done(EndedRecord {
                done,
                kind,
                text: None,
            });
        }
    }

    /// Earliest end among the exchanges of an earlier process, if there are some.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.oldest
    }

    fn failed(&mut self, failure: EndedRecord) {
        if self.failures.len() == FAILURES
            && let Some(EndedRecord {
                text: Some(text), ..
            }) = self.failures.pop_front()
        {
            self.content -= text.content.len();
        }
        self.content += failure.text.as_ref().map_or(0, |text| text.content.len());
        self.failures.push_back(failure);
        for oldest in &mut self.failures {
            if self.content <= CONTENT {
                break;
            }
            if let Some(text) = oldest.text.take() {
                self.content -= text.content.len();
            }
        }
    }

    /// The exchanges that have ended, in the order of their end; pointers only.
    pub(super) fn done_all(&self) -> Vec<Arc<EndedExchange>> {
        self.done.iter().cloned().collect()
    }

    /// The exchanges that ended after a change, the last one first, and the last change; pointers only.
    pub(super) fn ended_since(&self, change: u64) -> (Vec<Arc<EndedExchange>>, u64) {
        let done = self.done.iter().rev();
        let done = done.take_while(|done| done.change > change);
        (done.cloned().collect(), self.changes)
    }

    /// Finds an exchange that has ended by its request id: the proxy's own, else that of the upstream, which is
    /// what its client saw.
    pub(super) fn find(&self, id: &str) -> Option<EndedRecord> {
        let is_own = |done: &EndedExchange| *done.exchange.begun.id == *id;
        let is_theirs = |done: &EndedExchange| {
            let theirs = done.exchange.upstream_request_id.as_deref();
            theirs == Some(id)
        };
        self.find_by(&is_own).or_else(|| self.find_by(&is_theirs))
    }

    fn find_by(&self, is_it: &dyn Fn(&EndedExchange) -> bool) -> Option<EndedRecord> {
        let failure = self.failures.iter().rev().find(|it| is_it(&it.done));
        failure.cloned().or_else(|| {
            let done = self.done.iter().rev().find(|done| is_it(done))?;
            Some(EndedRecord {
                done: Arc::clone(done),
                kind: None,
                text: None,
            })
        })
    }

    /// The failures, newest first.
    pub(super) fn failures(&self) -> Vec<EndedRecord> {
        self.failures.iter().rev().cloned().collect()
    }

    /// The attempts after which another upstream was asked, newest first.
    pub(super) fn failed_attempts(&self) -> Vec<FailedAttempt> {
        self.attempts.iter().rev().cloned().collect()
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }
}

/// Cuts the texts of an exchange to their bounds.
fn trim_exchange(exchange: &mut Exchange) {
    trim(&mut exchange.begun);
    cut_some(&mut exchange.upstream_request_id);
    if let Some(usage) = &mut exchange.usage {
        cut_some(&mut usage.model);
        cut_some(&mut usage.stop_reason);
        cut_some(&mut usage.error_type);
        usage.others.truncate(OTHERS);
        usage.others.shrink_to_fit();
    }
    exchange.error = None;
    exchange.prompt = None;
    exchange.tries = Vec::new();
}

fn trim(begun: &mut ExchangeStart) {
    cut(&mut begun.path, PATH);
    cut(&mut begun.method, TEXT);
    cut(&mut begun.id, TEXT);
    cut_some(&mut begun.session);
    cut_some(&mut begun.agent);
    cut_some(&mut begun.parent_agent);
    if let Some(agent) = &mut begun.user_agent {
        cut(agent, AGENT);
    }
}

fn cut_some<T: for<'a> From<&'a str> + Deref<Target = str>>(text: &mut Option<T>) {
    if let Some(text) = text {
        cut(text, TEXT);
    }
}

fn cut<T: for<'a> From<&'a str> + Deref<Target = str>>(text: &mut T, longest: usize) {
    if text.len() > longest {
        *text = shortened(text, longest).into();
    }
}
