//! Warnings of prompt caches that break too often: a post for a cause whose share of the requests reaches the
//! rate (`CACHE_BREAK_WEBHOOK`, `CACHE_BREAK_RATE`).
//!
//! Watched are requests that should read a prefix from the cache, over the last ten minutes. A cause that was
//! told is told again once its share had fallen below half of the rate, or after an hour, and at most once in
//! ten minutes. Posts have counts, names of models and the link to the page: no content, no key, no session.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    io,
    sync::Arc,
    time::SystemTime,
};

use serde::Serialize;

use super::{
    cache_health::{BreakCause, CacheBreak, CacheFinding},
    ring::Ring,
    session_key::SessionKey,
    unix_time::unix_millis,
};
use crate::{
    config::{CacheWarningSettings, Prices},
    exchange::{Exchange, Tokens},
    webhook::{Post, Webhook, plain_name},
};

const MINUTE: u64 = 60;
/// Minutes of requests that a share is of.
const WINDOW: u64 = 10;
/// Smallest number of watched requests that has a share: a break among fewer is no rate.
const FEWEST: u64 = 20;
/// Seconds after which a cause that lasts is told again.
const REPEATED: u64 = 60 * MINUTE;
/// Upper bound of sessions of a cause and minute that are told apart.
const SESSIONS: usize = 1000;
/// Upper bound of models of a cause and minute that are counted.
const MODELS: usize = 8;

/// Sources of warnings: the settings, and the rest of the process.
pub struct CacheWarningSources {
    /// Receiver and rate.
    pub settings: CacheWarningSettings,
    /// URL of the page of sessions, if it has one.
    pub page: Option<String>,
    /// The prices in effect.
    pub prices: Box<dyn Fn() -> Arc<Prices> + Send>,
}

/// Counts of the last minutes, and the causes that were told.
pub(super) struct CacheWarnings {
    minutes: Ring<MinuteCounts>,
    /// By cause.
    told: [Option<Told>; BreakCause::ALL.len()],
    /// Percent of the watched requests.
    rate: u64,
    page: Option<String>,
    prices: Box<dyn Fn() -> Arc<Prices> + Send>,
    hasher: RandomState,
    webhook: Webhook,
}

/// A cause that was told.
#[derive(Clone, Copy)]
struct Told {
    /// Time of the post, in Unix seconds.
    at: u64,
    /// True until the share has fallen below half of the rate.
    lasts: bool,
}

#[derive(Default)]
struct MinuteCounts {
    watched: u64,
    causes: [BreakCounts; BreakCause::ALL.len()],
}

/// Counts of the breaks of a cause.
#[derive(Default)]
struct BreakCounts {
    breaks: u64,
    /// Digests of the sessions.
    sessions: HashSet<u64>,
    models: BTreeMap<Box<str>, u64>,
    tokens: u64,
    /// Billionths of a US dollar.
    cost: u64,
    /// True if a model has no price.
    is_floor: bool,
}

/// Facts of a warning.
#[derive(Debug, Serialize)]
struct CacheBreakFacts {
    cause: &'static str,
    /// The share that the breaks have of the requests, in percent.
    percent: f64,
    /// The rate that was reached (`CACHE_BREAK_RATE`).
    threshold: u64,
    breaks: u64,
    /// Requests that should have read a prefix from the cache.
    requests: u64,
    window_seconds: u64,
    sessions: usize,
    /// The model with the most breaks.
    model: Box<str>,
    /// Breaks by model.
    models: BTreeMap<Box<str>, u64>,
    /// Tokens of prefixes that were not read from the cache.
    extra_tokens: u64,
    /// Estimated cost of that, beyond the cost of reading them.
    extra_cost_usd: f64,
    /// True if a model has no price: the cost is higher.
    extra_cost_is_floor: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl CacheWarnings {
    /// Starts the thread that posts.
    pub(super) fn start(sources: CacheWarningSources) -> io::Result<Self> {
        Ok(Self {
            minutes: Ring::new(MINUTE, WINDOW as usize),
            told: Default::default(),
            rate: sources.settings.rate.into(),
            page: sources.page,
            prices: sources.prices,
            hasher: RandomState::new(),
            webhook: Webhook::start(sources.settings.webhook.expose())?,
        })
    }

    /// Counts a request of a session, and posts what it gives reason to.
    pub(super) fn count(
        &mut self,
        session: &SessionKey,
        exchange: &Exchange,
        found: &CacheFinding,
        ended: SystemTime,
    ) {
        if let Some(post) = self.look(session, exchange, found, unix_millis(ended) / 1000) {
            self.webhook.send(&post);
        }
    }

    fn look(
        &mut self,
        session: &SessionKey,
        exchange: &Exchange,
        found: &CacheFinding,
        now: u64,
    ) -> Option<Post<CacheBreakFacts>> {
        let broken = match found {
            CacheFinding::Unwatched => return None,
            CacheFinding::Read => None,
            CacheFinding::Broken(broken) => Some(broken),
        };
        let minute = self.minutes.at(now, now)?;
        minute.watched += 1;
        if let Some(broken) = broken {
            let extra = extra_cost(&(self.prices)(), exchange, broken);
            let session = self.hasher.hash_one(session);
            minute.causes[broken.cause as usize].add(session, broken, extra);
        }
        self.calm(now);
        self.due(broken?.cause, now)
    }

    /// Notes the causes whose share has fallen below half of the rate.
    fn calm(&mut self, now: u64) {
        for cause in BreakCause::ALL {
            if self.told[cause as usize].is_some_and(|told| told.lasts) {
                let (breaks, watched) = self.share(cause, now);
                if breaks * 200 < self.rate * watched
                    && let Some(told) = &mut self.told[cause as usize]
                {
                    told.lasts = false;
                }
            }
        }
    }

    /// The post that a cause gives reason to, if it is time to tell of it.
    fn due(&mut self, cause: BreakCause, now: u64) -> Option<Post<CacheBreakFacts>> {
        let (breaks, watched) = self.share(cause, now);
        let is_told = self.told[cause as usize].is_some_and(|told| {
            let quiet = if told.lasts {
                REPEATED
            } else {
                WINDOW * MINUTE
            };
            // the clock may have been set back
            now.checked_sub(told.at).is_some_and(|since| since < quiet)
        });
        if watched < FEWEST || breaks * 100 < self.rate * watched || is_told {
            return None;
        }
        self.told[cause as usize] = Some(Told {
            at: now,
            lasts: true,
        });
        let mut counts = BreakCounts::default();
        for minute in self.window(now) {
            counts.merge(&minute.causes[cause as usize]);
        }
        Some(self.post(cause, counts, watched))
    }

    /// Breaks of a cause, and watched requests.
    fn share(&self, cause: BreakCause, now: u64) -> (u64, u64) {
        self.window(now).fold((0, 0), |(breaks, watched), minute| {
            let counts = &minute.causes[cause as usize];
            (breaks + counts.breaks, watched + minute.watched)
        })
    }

    fn window(&self, now: u64) -> impl Iterator<Item = &MinuteCounts> {
        let last = now / MINUTE;
        (last.saturating_sub(WINDOW - 1)..=last).filter_map(|minute| self.minutes.bucket(minute))
    }

    fn post(&self, cause: BreakCause, counts: BreakCounts, requests: u64) -> Post<CacheBreakFacts> {
        let percent = counts.breaks as f64 * 100.0 / requests as f64;
        let most = counts.models.iter().max_by_key(|(_, breaks)| **breaks);
        let model = most.map(|(model, _)| model.clone()).unwrap_or_default();
        let url = self.page.clone();
        let facts = CacheBreakFacts {
            cause: cause.label(),
            percent: (percent * 10.0).round() / 10.0,
            threshold: self.rate,
            breaks: counts.breaks,
            requests,
            window_seconds: WINDOW * MINUTE,
            sessions: counts.sessions.len(),
            model,
            models: counts.models,
            extra_tokens: counts.tokens,
            extra_cost_usd: counts.cost as f64 / 1e9,
            extra_cost_is_floor: counts.is_floor,
            url,
        };
        Post {
            text: facts.text(),
            event: "cache_breaks",
            facts,
        }
    }
}

impl CacheBreakFacts {
    fn text(&self) -> String {
        let others = self.models.len().saturating_sub(1);
        let others = match others {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let url = self.url.as_deref().map(|url| format!(" {url}"));
        format!(
            "Prompt cache: {:.0}% of requests broke it in the last {} minutes ({} of {}, in {} sessions; cause: {}; \
             model: {}{others}). About {} tokens were not read from the cache, which cost about ${:.2} more.{}",
            self.percent,
            WINDOW,
            self.breaks,
            self.requests,
            self.sessions,
            self.cause,
            plain_name(&self.model),
            self.extra_tokens,
            self.extra_cost_usd,
            url.unwrap_or_default(),
        )
    }
}

impl BreakCounts {
    /// Adds a break; none as its cost: the model has no price.
    fn add(&mut self, session: u64, broken: &CacheBreak, cost: Option<u64>) {
        self.breaks += 1;
        if self.sessions.len() < SESSIONS {
            self.sessions.insert(session);
        }
        if self.models.len() < MODELS || self.models.contains_key(&broken.model) {
            *self.models.entry(broken.model.clone()).or_default() += 1;
        }
        self.tokens = self.tokens.saturating_add(missed(broken));
        self.cost = self.cost.saturating_add(cost.unwrap_or_default());
        self.is_floor |= cost.is_none();
    }

    fn merge(&mut self, other: &Self) {
        self.breaks += other.breaks;
        self.sessions.extend(&other.sessions);
        for (model, breaks) in &other.models {
            *self.models.entry(model.clone()).or_default() += breaks;
        }
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost = self.cost.saturating_add(other.cost);
        self.is_floor |= other.is_floor;
    }
}

/// Tokens that a request should have read from the cache and did not.
fn missed(broken: &CacheBreak) -> u64 {
    broken.expected.saturating_sub(broken.read)
}

/// Billionths of a US dollar that a request cost beyond what it would have with the prefix read; none where
/// its model has no price.
fn extra_cost(prices: &Prices, exchange: &Exchange, broken: &CacheBreak) -> Option<u64> {
    let usage = exchange.usage.as_ref()?;
    let cost = |tokens: &Tokens| prices.cost_of(&broken.model, tokens, &usage.terms);
    let mut hoped = usage.tokens;
    let mut left = missed(broken);
    // what was written anew first: that is where a prefix goes that was not found
    for kind in [
        &mut hoped.cache_write_1h,
        &mut hoped.cache_write_5m,
        &mut hoped.input,
    ] {
        let moved = left.min(*kind);
        *kind -= moved;
        left -= moved;
        hoped.cache_read = hoped.cache_read.saturating_add(moved);
    }
    Some(cost(&usage.tokens)?.saturating_sub(cost(&hoped)?))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        exchange::{ExchangeStart, Route, Termination, TerminationPhase, TerminationSource, Usage},
        secret::Secret,
    };

    const START: u64 = 1_795_435_200;

    fn warnings(rate: u8) -> CacheWarnings {
        let settings = CacheWarningSettings {
            webhook: Secret::new("http://127.0.0.1:9"),
            rate,
        };
        let prices = Arc::new(Prices::built_in());
        CacheWarnings::start(CacheWarningSources {
            settings,
            page: Some("http://127.0.0.1:8088/admin/sessions".to_owned()),
            prices: Box::new(move || Arc::clone(&prices)),
        })
        .unwrap()
    }

    fn exchange(model: &str, tokens: Tokens) -> Exchange {
        let begun = ExchangeStart {
            seq: 0,
            id: "req_1".into(),
            started: UNIX_EPOCH,
            client: None,
            version: "1.1",
            method: "POST".into(),
            path: "/v1/messages".into(),
            route: Route::Messages,
            session: Some("s".into()),
            user_agent: None,
            agent: None,
            parent_agent: None,
            owner: None,
        };
        let ended = Termination {
            source: TerminationSource::Complete,
            phase: TerminationPhase::Response,
            label: None,
        };
        let mut exchange = Exchange::new(begun, ended);
        exchange.usage = Some(Usage {
            model: Some(model.into()),
            tokens,
            ..Usage::default()
        });
        exchange
    }

    /// Looks at requests of sessions that take turns: breaks of a cause, or none. Gives those that were told.
    fn told(
        warnings: &mut CacheWarnings,
        second: u64,
        found: &[Option<BreakCause>],
    ) -> Vec<Post<CacheBreakFacts>> {
        let tokens = Tokens {
            input: 1000,
            cache_write_5m: 20_000,
            ..Tokens::default()
        };
        let exchange = exchange("claude-sonnet-4-5", tokens);
        let all = found.iter().enumerate();
        all.filter_map(|(at, cause)| {
            let session = SessionKey {
                session: format!("secret-session-{}", at % 7).into(),
                key: "secret-key".into(),
            };
            let found = cause.map_or(CacheFinding::Read, |cause| {
                CacheFinding::Broken(CacheBreak {
                    at: 0,
                    request: "req_1".into(),
                    agent: None,
                    model: "claude-sonnet-4-5".into(),
                    cause,
                    message: None,
                    expected: 20_500,
                    read: 0,
                    written: 20_000,
                })
            });
            warnings.look(&session, &exchange, &found, START + second)
        })
        .collect()
    }

    const TOOLS: Option<BreakCause> = Some(BreakCause::ToolsChanged);
    const LAPSED: Option<BreakCause> = Some(BreakCause::TtlLapsed);

    #[test]
    fn a_cause_is_told_once_its_share_reaches_the_rate() {
        let mut warnings = warnings(20);
        // too few for a share
        assert!(told(&mut warnings, 0, &[TOOLS; 19]).is_empty());
        assert_eq!(told(&mut warnings, 1, &[TOOLS]).len(), 1);
        // each cause has a share of its own
        assert!(told(&mut warnings, 2, &[LAPSED; 4]).is_empty());
        let lapsed = told(&mut warnings, 3, &[LAPSED; 4]);
        assert_eq!(lapsed[0].facts.cause, "ttl_lapsed");
        assert_eq!((lapsed[0].facts.breaks, lapsed[0].facts.requests), (5, 25));
        // below the rate
        let mut warnings = super::tests::warnings(20);
        let mixed = [None, None, None, None, None, TOOLS];
        assert!((0..50).all(|at| told(&mut warnings, at, &mixed).is_empty()));
    }

    #[test]
    fn a_cause_that_lasts_or_flaps_is_told_again_after_a_while_alone() {
        let mut warnings = warnings(20);
        let mut at = |second, found: &[_]| told(&mut warnings, second, found).len();
        assert_eq!(at(0, &[TOOLS; 20]), 1);
        // it lasts: again after an hour
        let lasting: usize = (1..60).map(|minute| at(minute * 60, &[TOOLS; 5])).sum();
        assert_eq!(lasting, 0);
        assert_eq!(at(3600, &[TOOLS; 5]), 1);
        // around the rate, but never below half of it: 12 % and 29 % for ten minutes each
        for minute in 61..110 {
            let more: &[_] = if minute % 20 < 10 {
                &[None; 2]
            } else {
                &[TOOLS; 1]
            };
            assert_eq!(at(minute * 60, &[TOOLS, None, None, None, None, None]), 0);
            assert_eq!(at(minute * 60, more), 0, "{minute}");
        }
        // it fell below half, and comes again
        assert_eq!(at(111 * 60, &[None; 1000]), 0);
        assert_eq!(at(112 * 60, &[TOOLS; 300]), 1);
        // and once more, within ten minutes
        assert_eq!(at(113 * 60, &[None; 9000]), 0);
        assert_eq!(at(114 * 60, &[TOOLS; 9000]), 0);
        assert_eq!(at(122 * 60, &[TOOLS]), 1);
        // of the last ten minutes alone
        assert_eq!(at(300 * 60, &[TOOLS; 19]), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut warnings = warnings(20);
        assert_eq!(told(&mut warnings, 100_000, &[TOOLS; 20]).len(), 1);
        assert_eq!(told(&mut warnings, 100, &[TOOLS; 20]).len(), 1);
    }

    #[test]
    fn a_post_has_counts_and_costs_and_neither_session_nor_key() {
        let mut warnings = warnings(50);
        let posts = told(&mut warnings, 0, &[TOOLS; 20]);
        let post = serde_json::to_value(&posts[0]).unwrap();
        // 20,000 written for 3.75 dollars a million and 500 read as input for 3, instead of read for 0.3
        let cost = 1.407;
        assert_eq!(
            post,
            serde_json::json!({
                "text": "Prompt cache: 100% of requests broke it in the last 10 minutes (20 of 20, in 7 sessions; \
                         cause: tools_changed; model: claude-sonnet-4-5). About 410000 tokens were not read from \
                         the cache, which cost about $1.41 more. http://127.0.0.1:8088/admin/sessions",
                "event": "cache_breaks", "cause": "tools_changed", "percent": 100.0, "threshold": 50,
                "breaks": 20, "requests": 20, "window_seconds": 600, "sessions": 7,
                "model": "claude-sonnet-4-5", "models": {"claude-sonnet-4-5": 20},
                "extra_tokens": 410_000, "extra_cost_usd": cost, "extra_cost_is_floor": false,
                "url": "http://127.0.0.1:8088/admin/sessions",
            })
        );
    }

    #[test]
    fn what_is_kept_of_a_minute_is_bounded() {
        let mut warnings = warnings(1);
        for number in 0..3 * SESSIONS as u64 {
            let session = SessionKey {
                session: number.to_string().into(),
                key: "".into(),
            };
            let found = CacheFinding::Broken(CacheBreak {
                at: 0,
                request: "".into(),
                agent: None,
                model: format!("<!channel> m{}", number % 100).into(),
                cause: BreakCause::Unknown,
                message: None,
                expected: 5000,
                read: 0,
                written: 0,
            });
            let exchange = exchange("m", Tokens::default());
            if let Some(post) = warnings.look(&session, &exchange, &found, START) {
                assert!(post.facts.extra_cost_is_floor);
                assert!(!post.text.contains(['<', '!']), "{}", post.text);
            }
        }
        let minute = warnings.window(START).next().unwrap();
        let counts = &minute.causes[BreakCause::Unknown as usize];
        assert_eq!(counts.breaks, 3 * SESSIONS as u64);
        assert_eq!(
            (counts.sessions.len(), counts.models.len()),
            (SESSIONS, MODELS)
        );
    }
}
