//! Recent exchanges: those in flight, the last that ended, the last that failed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use super::{
    ended::{EndedExchange, EndedRecord, RedactedText},
    persisted::RestoredExchange,
    totals::is_failure,
};
use crate::exchange::{
    Exchange, ExchangeResponse, ExchangeStart, Progress, TerminationSource, Try,
};

/// Exchanges in flight that are listed; more are counted.
const LISTED: usize = 10_000;
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

/// The exchanges that are listed.
#[derive(Default)]
pub(super) struct Recent {
    last_seq: u64,
    changes: u64,
    in_flight: BTreeMap<u64, InFlightExchange>,
    ids: HashMap<Box<str>, u64>,
    unlisted: usize,
    done: VecDeque<Arc<EndedExchange>>,
    failures: VecDeque<EndedRecord>,
    attempts: VecDeque<FailedAttempt>,
    content: usize,
    oldest: Option<SystemTime>,
}

/// An exchange in flight.
#[derive(Clone)]
pub(super) struct InFlightExchange {
    pub(super) seq: u64,
    pub(super) change: u64,
    pub(super) begun: Arc<ExchangeStart>,
    /// Progress, which its worker updates.
    pub(super) progress: Arc<Progress>,
    /// The response head, once it is here.
    pub(super) answered: Option<Arc<ExchangeResponse>>,
}

/// An attempt at one upstream that failed, and after which another one was asked.
#[derive(Clone)]
pub(super) struct FailedAttempt {
    /// End of its exchange.
    pub(super) ended: SystemTime,
    /// Request id of its exchange.
    pub(super) id: Box<str>,
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
    pub(super) fn begun(&mut self, mut begun: ExchangeStart, progress: Arc<Progress>) {
        if self.in_flight.len() >= LISTED {
            self.unlisted += 1;
            return;
        }
        trim(&mut begun);
        let (seq, change) = (self.next_seq(), self.next_change());
        if let Some(same) = self.ids.insert(begun.id.clone(), seq) {
            self.in_flight.remove(&same);
        }
        let pending = InFlightExchange {
            seq,
            change,
            begun: Arc::new(begun),
            progress,
            answered: None,
        };
        self.in_flight.insert(seq, pending);
    }

    pub(super) fn answered(&mut self, mut answered: ExchangeResponse) {
        let change = self.next_change();
        let seq = self.ids.get(&answered.id);
        if let Some(pending) = seq.and_then(|seq| self.in_flight.get_mut(seq)) {
            cut_some(&mut answered.model);
            cut_some(&mut answered.upstream_request_id);
            pending.change = change;
            pending.answered = Some(Arc::new(answered));
        }
    }

    /// Lists an exchange that has ended. Returns the part that may be stored.
    pub(super) fn ended(
        &mut self,
        mut exchange: Exchange,
        ended: SystemTime,
        text: Option<RedactedText>,
        kind: Option<Box<str>>,
    ) -> EndedRecord {
        let seq = match self.ids.remove(&exchange.begun.id) {
            Some(seq) => {
                self.in_flight.remove(&seq);
                seq
            }
            None => {
                self.unlisted = self.unlisted.saturating_sub(1);
                self.next_seq()
            }
        };
        self.failed_over(&exchange, ended);
        trim_exchange(&mut exchange);
        let done = Arc::new(EndedExchange {
            seq,
            change: self.next_change(),
            ended,
            exchange,
        });
        let stored = EndedRecord {
            done: Arc::clone(&done),
            kind: kind.clone(),
            text: None,
        };
        self.done(EndedRecord { done, kind, text });
        stored
    }

    fn done(&mut self, ended: EndedRecord) {
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        self.done.push_back(Arc::clone(&ended.done));
        if is_failure(&ended.done.exchange) {
            self.failed(ended);
        }
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
                id: shortened(&exchange.begun.id, TEXT).into(),
                attempt: attempt.clone(),
            });
        }
    }

    /// Takes over exchanges of an earlier process.
    pub(super) fn restore(&mut self, mut restored: Vec<RestoredExchange>) {
        restored.sort_by_key(|it| it.exchange.begun.started);
        let mut all: Vec<_> = restored
            .into_iter()
            .map(|it| (self.next_seq(), it))
            .collect();
        all.sort_by_key(|(_, it)| it.ended);
        self.oldest = all.first().map(|(_, it)| it.ended);
        for (seq, restored) in all {
            let RestoredExchange {
                ended,
                mut exchange,
                mut kind,
            } = restored;
            trim_exchange(&mut exchange);
            cut_some(&mut kind);
            let done = Arc::new(EndedExchange {
                seq,
                change: self.next_change(),
                ended,
                exchange,
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

    /// Removes the exchanges in flight after lost ends, whose exchanges would be listed for ever.
    pub(super) fn forget_in_flight(&mut self, lost: u64) {
        self.unlisted += self.in_flight.len();
        let lost = usize::try_from(lost).unwrap_or(usize::MAX);
        self.unlisted = self.unlisted.saturating_sub(lost);
        self.in_flight.clear();
        self.ids.clear();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len() + self.unlisted
    }

    /// The listed exchanges; pointers only. Ended ones are in the order of their end.
    pub(super) fn listed(&self) -> Listed {
        Listed {
            in_flight: self.in_flight.values().rev().cloned().collect(),
            done: self.done.iter().cloned().collect(),
        }
    }

    /// The exchanges that began, got a response head or ended after a change, newest first, and the last
    /// change.
    pub(super) fn changed_since(&self, change: u64) -> (Listed, u64) {
        let done = self.done.iter().rev();
        let listed = Listed {
            in_flight: self
                .in_flight
                .values()
                .rev()
                // in the order of their beginning, not of the change
                .filter(|pending| pending.change > change)
                .cloned()
                .collect(),
            done: done
                .take_while(|done| done.change > change)
                .cloned()
                .collect(),
        };
        (listed, self.changes)
    }

    /// The newest exchanges in flight; pointers only.
    pub(super) fn newest_in_flight(&self, count: usize) -> Vec<InFlightExchange> {
        self.in_flight.values().rev().take(count).cloned().collect()
    }

    /// Finds an exchange by its request id.
    pub(super) fn find(&self, id: &str) -> Option<FoundExchange> {
        if let Some(seq) = self.ids.get(id) {
            return self.in_flight.get(seq).cloned().map(FoundExchange::Pending);
        }
        let is_it = |done: &Arc<EndedExchange>| done.exchange.begun.id.as_ref() == id;
        let failure = self.failures.iter().rev().find(|it| is_it(&it.done));
        match failure {
            Some(failure) => Some(FoundExchange::Done(failure.clone())),
            None => self.done.iter().rev().find(|done| is_it(done)).map(|done| {
                FoundExchange::Done(EndedRecord {
                    done: Arc::clone(done),
                    kind: None,
                    text: None,
                })
            }),
        }
    }

    /// The failures, newest first.
    pub(super) fn failures(&self) -> Vec<EndedRecord> {
        self.failures.iter().rev().cloned().collect()
    }

    /// The attempts after which another upstream was asked, newest first.
    pub(super) fn failed_attempts(&self) -> Vec<FailedAttempt> {
        self.attempts.iter().rev().cloned().collect()
    }

    fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }
}

/// An exchange found by its request id.
pub(super) enum FoundExchange {
    /// An exchange in flight.
    Pending(InFlightExchange),
    /// One that has ended, with its text if it failed.
    Done(EndedRecord),
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
    exchange.rate_limit = Vec::new();
    exchange.tries = Vec::new();
}

fn trim(begun: &mut ExchangeStart) {
    cut(&mut begun.path, PATH);
    cut(&mut begun.method, TEXT);
    cut(&mut begun.id, TEXT);
    cut_some(&mut begun.session);
    if let Some(agent) = &mut begun.user_agent {
        cut(agent, AGENT);
    }
}

fn cut_some(text: &mut Option<Box<str>>) {
    if let Some(text) = text {
        cut(text, TEXT);
    }
}

fn cut(text: &mut Box<str>, longest: usize) {
    if text.len() > longest {
        *text = shortened(text, longest).into();
    }
}

/// The beginning of a text.
pub(super) fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev();
    let end = end.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}
