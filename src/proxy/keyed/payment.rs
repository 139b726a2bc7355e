//! Payment for an exchange with a key that no telemetry observes: what its limits count is read from its
//! response, and nothing else is kept of it.

use std::rc::Rc;

use bytes::Bytes;

use super::settlement::{PaidEnd, Settlement};
use crate::{
    config::prices::recent::RecentPrices,
    exchange::{TerminationSource, Tried, Usage},
    metering::UsageReader,
    wire::head::ResponseHead,
};

/// Payment for an exchange, until it has ended.
pub(in crate::proxy) struct Payment {
    settlement: Settlement,
    prices: Rc<RecentPrices>,
    /// The model that the request names.
    model: Option<Rc<str>>,
    /// Reader of the response, if the limits count tokens or money.
    ///
    /// Boxed, so that the allocator keeps both at hand: it is as large as the rest.
    tap: Option<Box<UsageReader>>,
    /// An upstream was asked.
    was_asked: bool,
    /// The last one that was asked did not respond.
    is_unanswered: bool,
}

impl Payment {
    pub(in crate::proxy) fn new(
        settlement: Settlement,
        model: Option<Rc<str>>,
        prices: &Rc<RecentPrices>,
    ) -> Box<Self> {
        Box::new(Self {
            settlement,
            prices: Rc::clone(prices),
            model,
            tap: None,
            was_asked: false,
            is_unanswered: false,
        })
    }

    pub(in crate::proxy) fn settlement(&self) -> &Settlement {
        &self.settlement
    }

    /// One of the upstreams is asked.
    pub(in crate::proxy) fn asks(&mut self) {
        self.was_asked = true;
    }

    /// An attempt did not bring the response.
    pub(in crate::proxy) fn tried(&mut self, outcome: Tried) {
        self.is_unanswered = outcome == Tried::Unanswered;
    }

    /// The response head is here. An error costs nothing, so its content is not read.
    pub(in crate::proxy) fn head(&mut self, head: &ResponseHead) {
        if self.settlement.counts_usage() && head.status.is_success() {
            let [content_type, coding] = (head.fields).values(["content-type", "content-encoding"]);
            self.tap = UsageReader::of_cost(head.status.as_u16(), content_type, coding);
        }
    }

    /// Content of the response passes. What comes with the last is settled at once.
    pub(in crate::proxy) fn content(&mut self, content: &Bytes, is_last: bool) {
        if let Some(tap) = &mut self.tap {
            tap.push(content);
            if is_last {
                return;
            }
            let (tokens, deltas) = tap.so_far();
            self.settlement.progress(&tokens, deltas);
        }
    }

    /// Settles the grant by what is known at the end.
    pub(in crate::proxy) fn settle(mut self: Box<Self>, end: &PaidEnd) {
        if !self.settlement.counts_usage() {
            return self.settlement.settle(end, None);
        }
        let mut usage = match &mut self.tap {
            Some(tap) => {
                if end.termination.source == TerminationSource::Complete {
                    tap.end();
                }
                tap.finish().0
            }
            None => Usage::default(),
        };
        usage.at_least |= end.may_have_worked(self.was_asked, self.is_unanswered);
        if usage.model.is_none() {
            usage.model = self.model.as_deref().map(Box::from);
        }
        self.prices.apply(&mut usage);
        self.settlement.settle(end, Some(&usage));
    }
}
