//! Metrics of requests: counts by route and result, aborts, edits, bytes and durations.

use std::fmt::Result;

use super::{
    counters::Counters,
    family::{Family, Unit},
    histogram::{Histogram, OVERHEAD, OVERHEAD_BUCKETS, SECONDS, SECONDS_BUCKETS, micros, nanos},
    writer::FamilyWriter,
};
use crate::{
    exchange::{Exchange, Identity, Route, TerminationPhase, TerminationSource, Verdict},
    label::Label,
};

/// Counted by one worker.
#[derive(Debug, Default)]
pub(super) struct RequestMetrics {
    requests: Counters<
        { METHODS.len() * ROUTES * STATUSES.len() * BY.len() * PHASES.len() * RESULTS.len() },
    >,
    aborts: Counters<{ BY.len() * PHASES.len() * REASONS }>,
    edits: Counters<{ Label::COUNT }>,
    verified: Counters<{ Identity::ALL.len() }>,
    received: Counters<ROUTES>,
    sent: Counters<ROUTES>,
    duration: [Histogram<SECONDS_BUCKETS>; ROUTES],
    head: [Histogram<SECONDS_BUCKETS>; ROUTES],
    overhead: Histogram<OVERHEAD_BUCKETS>,
}

impl RequestMetrics {
    pub(super) fn count(&self, exchange: &Exchange) {
        let (ended, timings) = (&exchange.termination, &exchange.timings);
        let route = exchange.begun.route as usize;
        let (by, phase) = (ended.source as usize, ended.phase as usize);
        let (method, status) = (method(&exchange.begun.method), status(exchange.status));
        let result = exchange.verdict() as usize;
        self.requests
            .add(place(method, route, status, by, phase, result), 1);
        if ended.source != TerminationSource::Complete {
            self.aborts.add(abort(by, phase, reason(ended.label)), 1);
        }
        if let Some(edit) = exchange.edit {
            self.edits.add(edit as usize, 1);
        }
        if let Some(verified) = &exchange.verified {
            self.verified.add(verified.identity() as usize, 1);
        }
        self.received.add(route, exchange.received);
        self.sent.add(route, exchange.sent);
        self.duration[route].observe(&SECONDS, micros(timings.total));
        if let Some(head) = timings.head {
            self.head[route].observe(&SECONDS, micros(head));
        }
        // where none was asked, nothing was made ready to be sent
        if exchange.upstream.is_some() {
            self.overhead.observe(&OVERHEAD, nanos(timings.overhead));
        }
    }

    /// Number of requests, and of those that failed.
    pub(super) fn totals(&self) -> (u64, u64) {
        let mut totals = (0_u64, 0_u64);
        for (at, count) in self.requests.iter().enumerate() {
            totals.0 = totals.0.wrapping_add(count);
            if at % RESULTS.len() == Verdict::Failed as usize {
                totals.1 = totals.1.wrapping_add(count);
            }
        }
        totals
    }

    /// Number of requests that failed with another status than 4xx.
    pub(super) fn failed_but_refused(&self) -> u64 {
        let of_a_status = BY.len() * PHASES.len() * RESULTS.len();
        let counts = self.requests.iter().enumerate();
        let failed = counts.filter(|(at, _)| {
            at % RESULTS.len() == Verdict::Failed as usize
                && STATUSES[at / of_a_status % STATUSES.len()] != "4xx"
        });
        failed.map(|(_, count)| count).sum()
    }

    /// Number of requests that the proxy ended with a label.
    pub(super) fn proxy_aborts(&self, label: Label) -> u64 {
        let by = TerminationSource::Proxy as usize;
        let places = PHASES.map(|phase| abort(by, phase as usize, reason(Some(label))));
        places
            .into_iter()
            .map(|place| self.aborts.read(place))
            .sum()
    }

    pub(super) fn absorb(&self, other: &Self) {
        let Self {
            requests,
            aborts,
            edits,
            verified,
            received,
            sent,
            duration,
            head,
            overhead,
        } = other;
        self.requests.absorb(requests);
        self.aborts.absorb(aborts);
        self.edits.absorb(edits);
        self.verified.absorb(verified);
        self.received.absorb(received);
        self.sent.absorb(sent);
        for route in 0..ROUTES {
            self.duration[route].absorb(&duration[route]);
            self.head[route].absorb(&head[route]);
        }
        self.overhead.absorb(overhead);
    }

    pub(super) fn write(&self, out: &mut FamilyWriter<'_>) -> Result {
        self.write_requests(out)?;
        self.write_aborts(out)?;
        let edits = Label::ALL.into_iter();
        let edits = edits.map(|label| (label, self.edits.read(label as usize)));
        let seen = edits.filter(|(label, count)| *count > 0 || *label == Label::Other);
        let seen = seen.map(|(label, count)| ([("outcome", label.text())], count));
        out.counters(&EDITS_TOTAL, seen)?;
        let verified = Identity::ALL.map(|it| {
            let count = self.verified.read(it as usize);
            ([("result", it.label())], count)
        });
        out.counters(&VERIFIED, verified)?;
        let bytes = [("request", &self.received), ("response", &self.sent)];
        out.counters(
            &CONTENT,
            bytes.into_iter().flat_map(|(direction, counters)| {
                Route::ALL.into_iter().map(move |route| {
                    let labels = [("direction", direction), ("route", route.label())];
                    (labels, counters.read(route as usize))
                })
            }),
        )?;
        for (family, histograms) in [(&DURATION, &self.duration), (&HEAD, &self.head)] {
            let seen = Route::ALL.into_iter().map(|route| {
                let labels = [("route", route.label())];
                (labels, &histograms[route as usize])
            });
            out.histograms(family, &SECONDS, seen.filter(|(_, seen)| !seen.is_empty()))?;
        }
        out.histograms(&OWN_TIME, &OVERHEAD, [([], &self.overhead)])
    }

    fn write_requests(&self, out: &mut FamilyWriter<'_>) -> Result {
        let methods = METHODS.iter().enumerate();
        let seen = methods
            .flat_map(|method| Route::ALL.map(|route| (method, route)))
            .flat_map(|asked| {
                let statuses = STATUSES.iter().enumerate();
                statuses.map(move |status| (asked, status))
            })
            .flat_map(|answered| BY.map(|by| (answered, by)))
            .flat_map(|answered| PHASES.map(|phase| (answered, phase)))
            .flat_map(|ended| RESULTS.map(|result| (ended, result)))
            .filter_map(
                |((((((at, method), route), (class, status)), by), phase), result)| {
                    let (route_at, by_at) = (route as usize, by as usize);
                    let place = place(at, route_at, class, by_at, phase as usize, result as usize);
                    let count = self.requests.read(place);
                    let labels = [
                        ("method", *method),
                        ("route", route.label()),
                        ("status", *status),
                        ("outcome", by.label()),
                        ("phase", phase.label()),
                        ("result", result.label()),
                    ];
                    (count > 0).then_some((labels, count))
                },
            );
        out.counters(&REQUESTS, seen)
    }

    fn write_aborts(&self, out: &mut FamilyWriter<'_>) -> Result {
        let seen = BY
            .into_iter()
            .flat_map(|by| PHASES.map(|phase| (by, phase)))
            .flat_map(|(by, phase)| {
                let labels = Label::ALL.into_iter().map(Some);
                labels.chain([None]).map(move |label| {
                    let labels = [
                        ("side", by.label()),
                        ("phase", phase.label()),
                        ("reason", label.map_or(UNNAMED, Label::text)),
                    ];
                    (labels, abort(by as usize, phase as usize, reason(label)))
                })
            })
            .map(|(labels, place)| (labels, self.aborts.read(place)));
        out.counters(&ABORTS, seen.filter(|(_, count)| *count > 0))
    }
}

fn place(
    method: usize,
    route: usize,
    status: usize,
    by: usize,
    phase: usize,
    result: usize,
) -> usize {
    let asked = method * ROUTES + route;
    let answered = asked * STATUSES.len() + status;
    let ended = (answered * BY.len() + by) * PHASES.len() + phase;
    ended * RESULTS.len() + result
}

fn abort(by: usize, phase: usize, reason: usize) -> usize {
    (by * PHASES.len() + phase) * REASONS + reason
}

/// The place of a reason.
fn reason(label: Option<Label>) -> usize {
    label.map_or(REASONS - 1, |label| label as usize)
}

fn method(method: &str) -> usize {
    let last = METHODS.len() - 1;
    let known = METHODS[..last].iter().position(|known| *known == method);
    known.unwrap_or(last)
}

fn status(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100 - 1),
        Some(_) | None => STATUSES.len() - 1,
    }
}

/// The methods with a label of their own (RFC 9110 §9.3, RFC 5789), most frequent first; any other is the
/// last.
const METHODS: [&str; 8] = [
    "POST", "GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "other",
];

/// Classes of statuses; the last is for exchanges without one.
const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

const ROUTES: usize = Route::ALL.len();
const BY: [TerminationSource; 4] = [
    TerminationSource::Complete,
    TerminationSource::Client,
    TerminationSource::Upstream,
    TerminationSource::Proxy,
];
const PHASES: [TerminationPhase; 2] = [TerminationPhase::Request, TerminationPhase::Response];
const RESULTS: [Verdict; 3] = Verdict::ALL;

/// Every label, and none.
const REASONS: usize = Label::COUNT + 1;

/// The reason of an end without a label.
const UNNAMED: &str = "none";

const REQUESTS: Family = Family {
    name: "anthropic_proxy_requests",
    unit: None,
    help: "Requests that have ended, by method, route, class of status, termination source (complete, client, upstream, proxy), phase, and result: failed if the status is 400 or more, the response carried an error, or the upstream or the proxy ended it early; canceled if the client left before that; else succeeded.",
};

const ABORTS: Family = Family {
    name: "anthropic_proxy_aborts",
    unit: None,
    help: "Requests that did not end with a complete upstream response, by side, phase and reason.",
};

const VERIFIED: Family = Family {
    name: "anthropic_proxy_verified_exchanges",
    unit: None,
    help: "Exchanges whose content was compared before and after the proxy's own code (VERIFY), by result: same, incomplete (one side ended early), differs.",
};

const EDITS_TOTAL: Family = Family {
    name: "anthropic_proxy_edits",
    unit: None,
    help: "Requests whose system prompt may be edited, by outcome of the edit.",
};

const CONTENT: Family = Family {
    name: "anthropic_proxy_content",
    unit: Some(Unit::Bytes),
    help: "Bytes of content of requests that have ended, by direction and route.",
};

const DURATION: Family = Family {
    name: "anthropic_proxy_request_duration",
    unit: Some(Unit::Seconds),
    help: "Time from a request's head until its response was sent or given up, by route.",
};

const HEAD: Family = Family {
    name: "anthropic_proxy_time_to_head",
    unit: Some(Unit::Seconds),
    help: "Time from a request's head until the upstream's response head was complete, by route.",
};

const OWN_TIME: Family = Family {
    name: "anthropic_proxy_overhead",
    unit: Some(Unit::Seconds),
    help: "The proxy's own time until a request's head was ready to be sent, without waiting for the client's body, a connection or the upstream.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_the_labels() {
        for (at, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, at);
        }
        for (at, by) in BY.into_iter().enumerate() {
            assert_eq!(by as usize, at);
        }
        for (at, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
        }
        for (at, result) in RESULTS.into_iter().enumerate() {
            assert_eq!(result as usize, at);
        }
        let last = place(METHODS.len() - 1, ROUTES - 1, STATUSES.len() - 1, 3, 1, 2);
        assert_eq!(last, 8 * 7 * 6 * 4 * 2 * 3 - 1);
        assert_eq!(abort(3, 1, reason(None)), 4 * 2 * REASONS - 1);
    }

    #[test]
    fn methods_and_statuses_have_a_class() {
        assert_eq!(METHODS[method("POST")], "POST");
        assert_eq!(METHODS[method("post")], "other");
        assert_eq!(METHODS[method("other")], "other");
        for (given, class) in [
            (Some(101), "1xx"),
            (Some(200), "2xx"),
            (Some(308), "3xx"),
            (Some(499), "4xx"),
            (Some(529), "5xx"),
            (Some(600), "none"),
            (Some(0), "none"),
            (None, "none"),
        ] {
            assert_eq!(STATUSES[status(given)], class, "{given:?}");
        }
    }
}
