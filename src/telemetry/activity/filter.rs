//! Filters of the list of exchanges, and its pages.

use std::sync::Arc;

use super::{
    ended::EndedExchange,
    recent::{InFlightExchange, Listed},
    unix_time::unix_millis,
};
use crate::{
    exchange::{Exchange, ExchangeStart, Verdict},
    label::Label,
};

/// The longest text of a filter, in characters.
const LONGEST: usize = 256;
/// Default and upper bound of rows of a page.
const ROWS: (usize, usize) = (200, 1000);

/// Filter of exchanges. Texts match any part of a value, ignoring case; a method matches as a
/// whole.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Rows of the page.
    pub limit: Option<usize>,
    /// Only exchanges with smaller numbers.
    pub before: Option<u64>,
    /// End of the exchange.
    pub status: Option<StatusFilter>,
    /// The method.
    pub method: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The upstream.
    pub upstream: Option<String>,
    /// The client's own name, `User-Agent`.
    pub user_agent: Option<String>,
    /// Begun at this moment or later, in Unix milliseconds.
    pub since: Option<u64>,
    /// Begun before this moment, in Unix milliseconds.
    pub until: Option<u64>,
    /// Any of these, the ids, the client, or the error.
    pub q: Option<String>,
}

/// Filter by the end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// With exactly this status.
    Exactly(u16),
    /// With a status of this hundred.
    Class(u16),
    /// Not yet.
    Pending,
    /// Without a complete response.
    Aborted,
    /// With this verdict.
    Verdict(Verdict),
}

impl StatusFilter {
    /// Reads a filter: `404`, `2xx`, `4xx`, `pending`, `succeeded`, `failed`, `canceled`, `aborted`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pending" => Some(Self::Pending),
            "aborted" => Some(Self::Aborted),
            _ => {
                let verdict = Verdict::ALL.into_iter().find(|it| it.label() == text);
                verdict.map(Self::Verdict).or_else(|| Self::number(text))
            }
        }
    }
}

impl StatusFilter {
    /// Reads a status of three digits, or its hundred.
    fn number(text: &str) -> Option<Self> {
        let is_number = |digits: &str| digits.bytes().all(|octet| octet.is_ascii_digit());
        match text.as_bytes() {
            [hundred @ b'1'..=b'5', b'x', b'x'] => Some(Self::Class(u16::from(hundred - b'0'))),
            [b'1'..=b'9', _, _] if is_number(text) => text.parse().ok().map(Self::Exactly),
            _ => None,
        }
    }
}

/// An invalid filter: the name of the parameter that is too long or out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is too long or out of range")]
pub struct InvalidFilter(pub &'static str);

/// The exchanges of a page.
pub(super) struct FilteredPage {
    pub(super) in_flight: Vec<InFlightExchange>,
    pub(super) done: Vec<Arc<EndedExchange>>,
    pub(super) next_before: Option<u64>,
    pub(super) total: usize,
}

impl Filter {
    /// Checks the bounds of the filter.
    ///
    /// # Errors
    /// If a text has more than 256 characters, or a limit that is not between 1 and 1000.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        for (name, text) in [
            ("method", &self.method),
            ("path", &self.path),
            ("model", &self.model),
            ("session", &self.session),
            ("upstream", &self.upstream),
            ("user_agent", &self.user_agent),
            ("q", &self.q),
        ] {
            if text
                .as_ref()
                .is_some_and(|text| text.chars().count() > LONGEST)
            {
                return Err(InvalidFilter(name));
            }
        }
        match self.limit {
            Some(limit) if limit == 0 || limit > ROWS.1 => Err(InvalidFilter("limit")),
            _ => Ok(()),
        }
    }

    /// Selects the page. Exchanges in flight are on the first one, and take at most half of it unless the
    /// filter selects them alone.
    pub(super) fn page(&self, listed: Listed) -> FilteredPage {
        let limit = self.limit.unwrap_or(ROWS.0).clamp(1, ROWS.1);
        let before = self.before.unwrap_or(u64::MAX);
        let Listed {
            mut in_flight,
            mut done,
        } = listed;
        in_flight.retain(|pending| self.fits_pending(pending));
        done.retain(|done| self.fits(&done.exchange));
        let total = in_flight.len() + done.len();
        if self.status == Some(StatusFilter::Pending) {
            in_flight.retain(|pending| pending.begun.seq < before);
            let is_more = in_flight.len() > limit;
            in_flight.truncate(limit);
            let last = in_flight.last().map(|pending| pending.begun.seq);
            return FilteredPage {
                next_before: last.filter(|_| is_more),
                in_flight,
                done,
                total,
            };
        }
        if self.before.is_some() {
            in_flight.clear();
        }
        done.retain(|done| done.seq() < before);
        done.sort_unstable_by_key(|done| std::cmp::Reverse(done.seq()));
        in_flight.truncate(limit.div_ceil(2));
        let room = limit - in_flight.len();
        let is_more = done.len() > room;
        done.truncate(room);
        // where those in flight leave no room, the next page begins with the newest
        let last = done.last().map_or(u64::MAX >> 12, |done| done.seq());
        FilteredPage {
            next_before: Some(last).filter(|_| is_more),
            in_flight,
            done,
            total,
        }
    }

    fn fits_pending(&self, pending: &InFlightExchange) -> bool {
        let InFlightExchange { begun, progress } = pending;
        let response = progress.response();
        let model = response.and_then(|response| response.model.as_deref());
        let model = model.or_else(|| progress.model().map(|it| &**it));
        let upstream = response.and_then(|response| response.upstream.as_deref());
        let upstream = upstream.or_else(|| progress.upstream().map(AsRef::as_ref));
        let has = |q: &String| {
            let texts = [model, upstream];
            has_begun(begun, q) || texts.into_iter().flatten().any(|text| contains(text, q))
        };
        matches!(self.status, None | Some(StatusFilter::Pending))
            && is_in(self.model.as_deref(), model)
            && is_in(self.upstream.as_deref(), upstream)
            && self.fits_begun(begun)
            && self.q.as_ref().is_none_or(has)
    }

    fn fits(&self, exchange: &Exchange) -> bool {
        let model = exchange
            .usage
            .as_ref()
            .and_then(|usage| usage.model.as_deref());
        let is_status = match self.status {
            None => true,
            Some(StatusFilter::Pending) => false,
            Some(StatusFilter::Class(class)) => {
                exchange.status.is_some_and(|status| status / 100 == class)
            }
            Some(StatusFilter::Exactly(status)) => exchange.status == Some(status),
            Some(StatusFilter::Aborted) => exchange.is_aborted(),
            Some(StatusFilter::Verdict(verdict)) => exchange.verdict() == verdict,
        };
        is_status
            && self.fits_begun(&exchange.begun)
            && is_in(self.model.as_deref(), model)
            && is_in(self.upstream.as_deref(), exchange.upstream.as_deref())
            && self.q.as_ref().is_none_or(|q| has_ended(exchange, q))
    }

    fn fits_begun(&self, begun: &ExchangeStart) -> bool {
        let is_method = |method: &String| method.eq_ignore_ascii_case(&begun.method);
        let at = unix_millis(begun.started);
        self.method.as_ref().is_none_or(is_method)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && is_in(self.user_agent.as_deref(), begun.user_agent.as_deref())
            && is_in(self.path.as_deref(), Some(&begun.path))
            && is_in(self.session.as_deref(), begun.session.as_deref())
    }
}

fn has_begun(begun: &ExchangeStart, q: &str) -> bool {
    let texts = [
        Some(&*begun.id),
        Some(&begun.path),
        begun.session.as_deref(),
        begun.user_agent.as_deref(),
    ];
    texts.into_iter().flatten().any(|text| contains(text, q))
        || begun
            .client
            .is_some_and(|client| contains(&client.to_string(), q))
}

fn has_ended(exchange: &Exchange, q: &str) -> bool {
    let usage = exchange.usage.as_ref();
    let texts = [
        exchange.upstream_request_id.as_deref(),
        exchange.upstream.as_deref(),
        exchange.termination.label.map(Label::text),
        usage.and_then(|usage| usage.model.as_deref()),
        usage.and_then(|usage| usage.error_type.as_deref()),
    ];
    has_begun(&exchange.begun, q) || texts.into_iter().flatten().any(|text| contains(text, q))
}

pub(super) fn is_in(wanted: Option<&str>, text: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| text.is_some_and(|text| contains(text, wanted)))
}

pub(super) fn contains(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    wanted.is_empty()
        || text
            .windows(wanted.len())
            .any(|window| window.eq_ignore_ascii_case(wanted))
}
