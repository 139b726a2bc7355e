//! Health of prompt caches: finds requests that should have read a prefix from the cache and did not, and
//! names the cause.
//!
//! A request **breaks** the cache if an earlier one of the same session and agent had left a prefix there,
//! its own input has not shrunk, and it reads less than half of that prefix. The cause is found by comparing
//! the digests of both prompts, part by part, in the order in which the cache reads them. Digests live as
//! long as a cache may (an hour), in bounded memory, and never leave it.
//!
//! Exchanges of one agent are expected in the order of their ends. Two that end within the interval of the
//! aggregating thread (20 ms) at two workers may come in another order; then a break may be missed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{session_key::SessionKey, unix_time::unix_millis};
use crate::exchange::{Exchange, PromptDigests, Tokens, shortened};

/// Upper bound of conversations that are followed: of at most 8 KiB each, 16 MiB.
const CONVERSATIONS: usize = 2_000;
/// Conversations of one agent that are followed: its own, and short ones beside it (titles, summaries).
const OF_AN_AGENT: usize = 4;
/// Smallest prefix that upstreams put into a cache, in tokens.
const SMALLEST_PREFIX: u64 = 1024;
/// Lives of cache entries.
const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const LONGEST_MODEL: usize = 128;

/// Cause of a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakCause {
    /// `tools` differ.
    ToolsChanged,
    /// `system` differs.
    SystemChanged,
    /// `thinking` or `tool_choice` differ.
    ParametersChanged,
    /// An earlier message differs.
    MessageChanged,
    /// The conversation goes on with another model.
    ModelChanged,
    /// Another upstream was asked, which has a cache of its own.
    UpstreamChanged,
    /// The entry was not used for longer than it lives.
    TtlLapsed,
    /// Nothing differs that the proxy knows of.
    Unknown,
}

impl BreakCause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ToolsChanged,
        Self::SystemChanged,
        Self::ParametersChanged,
        Self::MessageChanged,
        Self::ModelChanged,
        Self::UpstreamChanged,
        Self::TtlLapsed,
        Self::Unknown,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ToolsChanged => "tools_changed",
            Self::SystemChanged => "system_changed",
            Self::ParametersChanged => "parameters_changed",
            Self::MessageChanged => "message_changed",
            Self::ModelChanged => "model_changed",
            Self::UpstreamChanged => "upstream_changed",
            Self::TtlLapsed => "ttl_lapsed",
            Self::Unknown => "unknown",
        }
    }
}

/// A request that broke the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheBreak {
    /// Begin of the request, in Unix milliseconds.
    pub(super) at: u64,
    /// Its request id.
    pub(super) request: Box<str>,
    pub(super) agent: Option<Box<str>>,
    pub(super) model: Box<str>,
    pub(super) cause: BreakCause,
    /// The number of the message that differs, from 1 on.
    pub(super) message: Option<u64>,
    /// Tokens of the prefix that was there.
    pub(super) expected: u64,
    /// Tokens that were read from it.
    pub(super) read: u64,
    /// Tokens that were written to the cache anew.
    pub(super) written: u64,
}

/// Finding on a request of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CacheFinding {
    /// No prefix was there to be read.
    Unwatched,
    /// It read the prefix, or at least half of it.
    Read,
    /// It broke the cache.
    Broken(CacheBreak),
}

/// The conversations that are followed.
#[derive(Default)]
pub(super) struct CacheHealth {
    agents: HashMap<(SessionKey, Option<Arc<str>>), Vec<Conversation>>,
    conversations: usize,
    /// Breaks since the process began, by cause.
    pub(super) counts: [u64; BreakCause::ALL.len()],
}

/// Entry that a request left in the cache.
struct Conversation {
    model: Box<str>,
    upstream: Option<Arc<str>>,
    /// Time at which the entry was there: that of the response head.
    used: SystemTime,
    /// Life of the entry; none if nothing was written, which leaves the life as it was.
    life: Option<Duration>,
    /// Tokens of the prefix: read and written.
    prefix: u64,
    /// Tokens of the whole input.
    prompt: u64,
    digests: Option<Arc<PromptDigests>>,
}

impl CacheHealth {
    /// Compares an exchange of a session with those before it, and remembers what it left in the cache.
    pub(super) fn judge(&mut self, session: &SessionKey, exchange: &Exchange) -> CacheFinding {
        let usage = exchange.usage.as_ref();
        let usage = usage.filter(|it| it.tokens.prompt() > 0);
        let Some((usage, model)) = usage.and_then(|it| Some((it, it.model.as_deref()?))) else {
            return CacheFinding::Unwatched;
        };
        let tokens = &usage.tokens;
        let model = shortened(model, LONGEST_MODEL);
        let id = (session.clone(), exchange.begun.agent.clone());
        let known = self.agents.entry(id).or_default();
        let digests = exchange.prompt.as_ref();
        let before = predecessor(known, model, digests);
        let found = before
            .map(|at| &known[at])
            .filter(|it| it.is_due(exchange, tokens));
        let found = found.map_or(CacheFinding::Unwatched, |before| {
            if tokens.cache_read >= before.prefix / 2 {
                return CacheFinding::Read;
            }
            let Some((cause, message)) = cause(before, model, exchange) else {
                return CacheFinding::Unwatched;
            };
            self.counts[cause as usize] += 1;
            CacheFinding::Broken(CacheBreak {
                at: unix_millis(exchange.begun.started),
                request: shortened(&exchange.begun.id, LONGEST_MODEL).into(),
                agent: exchange.begun.agent.as_deref().map(Into::into),
                model: model.into(),
                cause,
                message,
                expected: before.prefix,
                read: tokens.cache_read,
                written: tokens.cache_write_5m.saturating_add(tokens.cache_write_1h),
            })
        });
        let count = known.len();
        remember(known, before, Conversation::of(exchange, model, tokens));
        self.conversations = self.conversations + known.len() - count;
        if self.conversations > CONVERSATIONS {
            self.forget();
        }
        found
    }

    /// Forgets the half that was not used for longest.
    fn forget(&mut self) {
        let all = self.agents.values().flatten();
        let mut used: Vec<SystemTime> = all.map(|it| it.used).collect();
        let middle = used.len() / 2;
        let (_, until, _) = used.select_nth_unstable(middle);
        let until = *until;
        for known in self.agents.values_mut() {
            known.retain(|it| it.used > until);
        }
        self.agents.retain(|_, known| !known.is_empty());
        self.conversations = self.agents.values().map(Vec::len).sum();
    }
}

impl Conversation {
    /// The entry of an exchange; none if it neither read from the cache nor wrote to it.
    fn of(exchange: &Exchange, model: &str, tokens: &Tokens) -> Option<Self> {
        let written = tokens.cache_write_5m.saturating_add(tokens.cache_write_1h);
        let prefix = tokens.cache_read.saturating_add(written);
        let head = exchange.timings.head.unwrap_or(exchange.timings.total);
        (prefix > 0).then(|| Self {
            model: model.into(),
            upstream: exchange.upstream.clone(),
            used: exchange.begun.started + head.min(HOUR),
            life: match (tokens.cache_write_1h, tokens.cache_write_5m) {
                (0, 0) => None,
                (0, _) => Some(FIVE_MINUTES),
                (_, _) => Some(HOUR),
            },
            prefix,
            prompt: tokens.prompt(),
            digests: exchange.prompt.clone(),
        })
    }

    /// True if a request that goes on with it should read the prefix.
    fn is_due(&self, exchange: &Exchange, tokens: &Tokens) -> bool {
        // while an earlier request is not answered, there is nothing in the cache to be read
        exchange.begun.started >= self.used
            && tokens.prompt() >= self.prompt
            && self.prefix >= SMALLEST_PREFIX
    }
}

impl CacheFinding {
    /// The break, if the request broke the cache.
    pub(super) fn into_break(self) -> Option<CacheBreak> {
        match self {
            Self::Broken(broken) => Some(broken),
            Self::Unwatched | Self::Read => None,
        }
    }
}

/// The conversation that a request goes on with: that with the most messages in common, of the same model
/// first, and of these the last one.
fn predecessor(
    known: &[Conversation],
    model: &str,
    digests: Option<&Arc<PromptDigests>>,
) -> Option<usize> {
    let all = known.iter().enumerate();
    let best = all.max_by_key(|(_, it)| {
        let common = match (&it.digests, digests) {
            (Some(before), Some(now)) => now.common(before),
            _ => 0,
        };
        (common, *it.model == *model, it.used)
    });
    best.map(|(at, _)| at)
}

/// The cause of a break, and the message that differs; none where it is another conversation.
fn cause(
    before: &Conversation,
    model: &str,
    exchange: &Exchange,
) -> Option<(BreakCause, Option<u64>)> {
    let elapsed = exchange.begun.started.duration_since(before.used).ok()?;
    let pair = before.digests.as_ref().zip(exchange.prompt.as_ref());
    let pair = pair.map(|(before, now)| (before.as_ref(), now.as_ref(), now.common(before)));
    if let Some((before, now, 0)) = pair
        && before.tools != now.tools
        && before.system != now.system
    {
        // another conversation
        return None;
    }
    if *before.model != *model {
        // without a message in common it is another conversation, such as that of a title
        let (_, _, common) = pair?;
        return (common > 0).then_some((BreakCause::ModelChanged, None));
    }
    if elapsed > before.life.unwrap_or(FIVE_MINUTES) {
        return Some((BreakCause::TtlLapsed, None));
    }
    let differs = pair.and_then(|(before, now, common)| {
        if before.tools != now.tools {
            Some((BreakCause::ToolsChanged, None))
        } else if before.system != now.system {
            Some((BreakCause::SystemChanged, None))
        } else if before.parameters != now.parameters {
            Some((BreakCause::ParametersChanged, None))
        } else {
            let is_within = common < before.messages.len().min(now.messages.len());
            is_within.then_some((BreakCause::MessageChanged, Some(common as u64 + 1)))
        }
    });
    Some(differs.unwrap_or(if before.upstream != exchange.upstream {
        (BreakCause::UpstreamChanged, None)
    } else {
        (BreakCause::Unknown, None)
    }))
}

/// Puts a conversation in the place of the one that it goes on with, or beside it.
fn remember(known: &mut Vec<Conversation>, before: Option<usize>, now: Option<Conversation>) {
    let Some(mut now) = now else { return };
    let place = before.and_then(|at| known.get_mut(at)).filter(|before| {
        let is_one = match (&before.digests, &now.digests) {
            (Some(before), Some(now)) => before.common(now) > 0,
            // one that is much shorter stands beside it
            _ => now.prompt >= before.prompt / 2,
        };
        is_one && before.model == now.model
    });
    match place {
        Some(before) => {
            if now.used >= before.used {
                now.life = now.life.or(before.life);
                *before = now;
            }
        }
        None => {
            if known.len() >= OF_AN_AGENT
                && let Some((oldest, _)) = known.iter().enumerate().min_by_key(|(_, it)| it.used)
            {
                known.swap_remove(oldest);
            }
            known.push(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::exchange::{
        ExchangeStart, Route, Termination, TerminationPhase, TerminationSource, Usage,
    };

    /// A request at a second: input, read, written; digests of tools, system and messages.
    struct Asked {
        at: u64,
        model: &'static str,
        upstream: &'static str,
        tokens: [u64; 3],
        is_hour: bool,
        digests: Option<(u64, u64, Vec<u64>)>,
    }

    const FIRST: Asked = Asked {
        at: 0,
        model: "opus",
        upstream: "a",
        tokens: [10, 0, 20_000],
        is_hour: false,
        digests: None,
    };

    fn exchange(asked: &Asked, agent: Option<&str>) -> Exchange {
        let begun = ExchangeStart {
            seq: 0,
            id: format!("req_{}", asked.at).into(),
            started: UNIX_EPOCH + Duration::from_secs(1_000_000 + asked.at),
            client: None,
            version: "1.1",
            method: "POST".into(),
            path: "/v1/messages".into(),
            route: Route::Messages,
            session: Some("s".into()),
            user_agent: None,
            agent: agent.map(Into::into),
            parent_agent: None,
            owner: None,
        };
        let ended = Termination {
            source: TerminationSource::Complete,
            phase: TerminationPhase::Response,
            label: None,
        };
        let mut exchange = Exchange::new(begun, ended);
        exchange.upstream = Some(asked.upstream.into());
        exchange.timings.head = Some(Duration::from_secs(2));
        let [input, read, written] = asked.tokens;
        let mut tokens = Tokens {
            input,
            cache_read: read,
            ..Tokens::default()
        };
        if asked.is_hour {
            tokens.cache_write_1h = written;
        } else {
            tokens.cache_write_5m = written;
        }
        exchange.usage = Some(Usage {
            model: Some(asked.model.into()),
            tokens,
            ..Usage::default()
        });
        exchange.prompt = asked.digests.as_ref().map(|(tools, system, messages)| {
            Arc::new(PromptDigests {
                tools: Some(*tools),
                system: Some(*system),
                parameters: None,
                messages: messages.clone(),
            })
        });
        exchange
    }

    /// The breaks of requests that follow each other.
    fn breaks(asked: &[Asked]) -> Vec<Option<(BreakCause, Option<u64>)>> {
        let mut health = CacheHealth::default();
        asked
            .iter()
            .map(|it| judged(&mut health, it, None))
            .collect()
    }

    fn judged(
        health: &mut CacheHealth,
        asked: &Asked,
        agent: Option<&str>,
    ) -> Option<(BreakCause, Option<u64>)> {
        let exchange = exchange(asked, agent);
        let session = SessionKey::of(&exchange).unwrap();
        let broken = health.judge(&session, &exchange).into_break()?;
        assert_eq!((broken.expected, broken.read), (20_000, asked.tokens[1]));
        Some((broken.cause, broken.message))
    }

    fn digests(tools: u64, system: u64, messages: &[u64]) -> Option<(u64, u64, Vec<u64>)> {
        Some((tools, system, messages.to_vec()))
    }

    #[test]
    fn a_prefix_that_is_read_is_no_break() {
        let read = |at, tokens| Asked {
            at,
            tokens,
            ..FIRST
        };
        for second in [
            [10, 20_000, 500],
            // half of it is enough
            [10, 10_000, 11_000],
            // a conversation that was summarised is another one
            [10, 0, 12_000],
        ] {
            assert_eq!(
                breaks(&[FIRST, read(10, second)]),
                [None, None],
                "{second:?}"
            );
        }
        // too little to be cached
        let little = Asked {
            tokens: [10, 0, 900],
            ..FIRST
        };
        assert_eq!(breaks(&[little, read(10, [10, 0, 1200])]), [None, None]);
        // while the first request is not answered
        assert_eq!(breaks(&[FIRST, read(1, [10, 0, 20_000])]), [None, None]);
    }

    #[test]
    fn causes_are_found_in_the_order_in_which_a_cache_reads() {
        let first = || Asked {
            digests: digests(1, 2, &[3, 4, 5]),
            ..FIRST
        };
        let second = |digests| Asked {
            at: 60,
            tokens: [10, 0, 21_000],
            digests,
            ..FIRST
        };
        for (found, expected) in [
            (digests(9, 2, &[3, 9]), (BreakCause::ToolsChanged, None)),
            (digests(1, 9, &[3, 9]), (BreakCause::SystemChanged, None)),
            (
                digests(1, 2, &[3, 9, 5, 6]),
                (BreakCause::MessageChanged, Some(2)),
            ),
            (
                digests(1, 2, &[9, 4, 5, 6]),
                (BreakCause::MessageChanged, Some(1)),
            ),
            (digests(1, 2, &[3, 4, 5, 6]), (BreakCause::Unknown, None)),
            (None, (BreakCause::Unknown, None)),
        ] {
            assert_eq!(
                breaks(&[first(), second(found.clone())]),
                [None, Some(expected)],
                "{found:?}"
            );
        }
        // all of it differs: another conversation
        assert_eq!(
            breaks(&[first(), second(digests(8, 8, &[8, 8]))]),
            [None, None]
        );
    }

    #[test]
    fn another_model_and_another_upstream_are_causes() {
        let first = || Asked {
            digests: digests(1, 2, &[3, 4]),
            ..FIRST
        };
        let second = |model, upstream, messages: &[u64]| Asked {
            at: 60,
            model,
            upstream,
            tokens: [10, 0, 21_000],
            digests: digests(1, 2, messages),
            ..FIRST
        };
        assert_eq!(
            breaks(&[first(), second("haiku", "a", &[3, 4, 5])]),
            [None, Some((BreakCause::ModelChanged, None))]
        );
        assert_eq!(breaks(&[first(), second("haiku", "a", &[9])]), [None, None]);
        assert_eq!(
            breaks(&[first(), second("opus", "b", &[3, 4, 5])]),
            [None, Some((BreakCause::UpstreamChanged, None))]
        );
    }

    #[test]
    fn an_entry_lives_as_long_as_it_was_written_for() {
        let later = |at| Asked {
            at,
            tokens: [10, 0, 21_000],
            ..FIRST
        };
        let lapsed = Some((BreakCause::TtlLapsed, None));
        let unknown = Some((BreakCause::Unknown, None));
        assert_eq!(breaks(&[FIRST, later(302)]), [None, unknown]);
        assert_eq!(breaks(&[FIRST, later(303)]), [None, lapsed]);
        let hour = || Asked {
            is_hour: true,
            ..FIRST
        };
        assert_eq!(breaks(&[hour(), later(3602)]), [None, unknown]);
        assert_eq!(breaks(&[hour(), later(3603)]), [None, lapsed]);
        // reading begins the life anew, and leaves it as long
        let read = Asked {
            at: 3000,
            tokens: [10, 20_000, 0],
            ..FIRST
        };
        assert_eq!(breaks(&[hour(), read, later(6000)]), [None, None, unknown]);
    }

    #[test]
    fn agents_have_conversations_of_their_own_and_these_are_bounded() {
        let mut health = CacheHealth::default();
        let first = || Asked {
            digests: digests(1, 2, &[3]),
            ..FIRST
        };
        assert_eq!(judged(&mut health, &first(), None), None);
        assert_eq!(
            judged(&mut health, &Asked { at: 9, ..first() }, Some("a")),
            None
        );
        let broken = Asked {
            at: 20,
            digests: digests(1, 9, &[3, 4]),
            ..FIRST
        };
        assert_eq!(
            judged(&mut health, &broken, Some("a")),
            Some((BreakCause::SystemChanged, None))
        );
        for agent in 0..2 * CONVERSATIONS {
            judged(
                &mut health,
                &Asked {
                    at: 30 + agent as u64,
                    ..first()
                },
                Some(&agent.to_string()),
            );
            assert!(health.conversations <= CONVERSATIONS);
        }
        let held: usize = health.agents.values().map(Vec::len).sum();
        assert_eq!(held, health.conversations);
        assert!(held >= CONVERSATIONS / 2, "{held}");
        assert_eq!(health.counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn a_title_beside_the_conversation_hides_no_break() {
        let first = || Asked {
            digests: digests(1, 2, &[3, 4]),
            ..FIRST
        };
        let title = Asked {
            at: 10,
            tokens: [300, 0, 0],
            digests: digests(7, 8, &[9]),
            ..FIRST
        };
        let broken = Asked {
            at: 60,
            tokens: [10, 0, 21_000],
            digests: digests(6, 2, &[3, 4, 5]),
            ..FIRST
        };
        assert_eq!(
            breaks(&[first(), title, broken]),
            [None, None, Some((BreakCause::ToolsChanged, None))]
        );
    }
}
