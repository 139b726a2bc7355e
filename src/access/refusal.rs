//! Refusals: status, type, label, fields, and one sentence of at most 200 characters.

use std::net::IpAddr;

use super::{
    notice::SpendNotice,
    pattern::Pattern,
    period::{Calendar, say_utc},
    record::Period,
};
use crate::label::Label;

/// A request that may not pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// The sentence for the person: subject, limit, amount, end, contact.
    pub text: String,
    /// Seconds for `retry-after`.
    pub retry_after: Option<u64>,
    /// True for `x-should-retry: false`: clients would try again by themselves, and in vain.
    pub forbids_retry: bool,
    /// The budget, whose fields the response carries.
    pub notice: Option<SpendNotice>,
}

/// Kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The request shows no key.
    NoKey,
    /// The key is mistyped.
    MistypedKey,
    /// The request shows two keys that differ.
    ContradictoryKeys,
    /// The id is unknown, or the secret wrong.
    UnknownKey,
    /// The key was revoked.
    RevokedKey,
    /// The key has expired, or the secret after a rotation.
    ExpiredKey,
    /// The client's address is in none of the key's networks.
    Source,
    /// The key may not use the model.
    Model,
    /// The key may not use the path.
    Path,
    /// The variable of the key's credential for the upstream is not set.
    UpstreamCredential,
    /// A budget is spent.
    Spend,
    /// The rest of a budget is held for requests that run.
    SpendReserved,
    /// Requests a minute.
    Requests,
    /// Tokens of input a minute.
    InputTokens,
    /// Tokens of output a minute.
    OutputTokens,
    /// Exchanges at once: no slot became free in time, or the queue is full.
    AtOnce,
    /// The shared state of a limit is unreachable, and the limit is `closed` then.
    StateUnreachable,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NoKey,
        Self::MistypedKey,
        Self::ContradictoryKeys,
        Self::UnknownKey,
        Self::RevokedKey,
        Self::ExpiredKey,
        Self::Source,
        Self::Model,
        Self::Path,
        Self::UpstreamCredential,
        Self::Spend,
        Self::SpendReserved,
        Self::Requests,
        Self::InputTokens,
        Self::OutputTokens,
        Self::AtOnce,
        Self::StateUnreachable,
    ];

    /// The status, Anthropic's `error.type`, and the label (`x-proxy-error`).
    pub fn answer(self) -> (u16, &'static str, Label) {
        const AUTHENTICATION: &str = "authentication_error";
        const BILLING: &str = "billing_error";
        const RATE: &str = "rate_limit_error";
        match self {
            Self::NoKey => (401, AUTHENTICATION, Label::KeyMissing),
            Self::MistypedKey => (401, AUTHENTICATION, Label::KeyMistyped),
            Self::ContradictoryKeys => (401, AUTHENTICATION, Label::KeysContradictory),
            Self::UnknownKey => (401, AUTHENTICATION, Label::KeyUnknown),
            Self::RevokedKey => (401, AUTHENTICATION, Label::KeyRevoked),
            Self::ExpiredKey => (401, AUTHENTICATION, Label::KeyExpired),
            Self::Source => (403, "permission_error", Label::SourceNotAllowed),
            Self::Model => (400, "invalid_request_error", Label::ModelNotAllowed),
            Self::Path => (501, "not_supported", Label::PathNotAllowed),
            Self::UpstreamCredential => (403, "permission_error", Label::UpstreamKeyMissing),
            Self::Spend => (429, BILLING, Label::SpendLimit),
            Self::SpendReserved => (429, RATE, Label::SpendReserved),
            Self::Requests => (429, RATE, Label::RequestLimit),
            Self::InputTokens => (429, RATE, Label::InputTokenLimit),
            Self::OutputTokens => (429, RATE, Label::OutputTokenLimit),
            Self::AtOnce => (429, RATE, Label::TooManyAtOnce),
            Self::StateUnreachable => (429, BILLING, Label::LimitStateUnreachable),
        }
    }

    /// True if clients would try again by themselves, and in vain.
    fn forbids_retry(self) -> bool {
        match self {
            Self::NoKey
            | Self::MistypedKey
            | Self::ContradictoryKeys
            | Self::UnknownKey
            | Self::RevokedKey
            | Self::ExpiredKey
            | Self::Path
            | Self::Spend
            | Self::StateUnreachable => true,
            // clients do not try again after a 400 or 403
            Self::Source | Self::Model | Self::UpstreamCredential => false,
            Self::SpendReserved
            | Self::Requests
            | Self::InputTokens
            | Self::OutputTokens
            | Self::AtOnce => false,
        }
    }
}

impl Refusal {
    /// A refusal with a sentence, and the person or place to ask.
    pub(super) fn new(kind: RefusalKind, sentence: &str, contact: Option<&str>) -> Self {
        Self {
            kind,
            text: within_bounds(sentence, contact),
            retry_after: None,
            forbids_retry: kind.forbids_retry(),
            notice: None,
        }
    }

    /// Adds the seconds until the request can pass. A client that sleeps for more than a minute looks
    /// stuck, so it is told not to.
    pub(super) fn until(self, seconds: u64) -> Self {
        let seconds = seconds.max(1);
        Self {
            retry_after: Some(seconds),
            forbids_retry: self.forbids_retry || seconds > LONGEST_RETRY,
            ..self
        }
    }

    /// Adds the state of a budget.
    pub(super) fn with_notice(self, notice: SpendNotice) -> Self {
        Self {
            notice: Some(notice),
            ..self
        }
    }
}

/// The sentence of a key that is not valid, as far as it needs to know no key.
pub(super) fn invalid_key(kind: RefusalKind) -> &'static str {
    match kind {
        // Claude Code hides a text with the name of the field for keys
        RefusalKind::NoKey => {
            "This proxy needs a key of its own, which begins with ap_: set ANTHROPIC_AUTH_TOKEN to it, or send \
             Authorization: Bearer."
        }
        RefusalKind::MistypedKey => {
            "The key is mistyped or cut off: copy it anew. It begins with ap_ and has 52 characters."
        }
        RefusalKind::ContradictoryKeys => {
            "The request shows two different keys of this proxy: send one of them, in one field."
        }
        _ => "The key is not valid here.",
    }
}

/// The sentence of a key before the store has told which keys there are.
pub(super) const UNKNOWN_YET: &str =
    "Keys cannot be checked now: the shared store of this proxy has not answered yet.";

/// The sentence of a budget that is spent.
pub(super) fn spent(
    who: &str,
    amount: u64,
    calendar: &Calendar,
    end: Option<i64>,
    models: Option<&Pattern>,
) -> String {
    let resets = end.map(|end| format!(". Resets {}", calendar.say(end)));
    let resets = resets.unwrap_or_default();
    let budget = budget(amount, calendar.period(), models);
    format!("Spend limit reached: {who}, {budget}{resets}.")
}

/// The sentence of a budget whose rest is held.
pub(super) fn reserved(
    who: &str,
    amount: u64,
    period: Period,
    models: Option<&Pattern>,
    seconds: u64,
) -> String {
    let budget = budget(amount, period, models);
    format!(
        "Spend limit: {who}, {budget}; the rest is reserved for requests that run. Try again in {seconds} s."
    )
}

/// The sentence of a rate.
pub(super) fn rate(
    who: &str,
    amount: u64,
    counted: &str,
    models: Option<&Pattern>,
    seconds: u64,
) -> String {
    let of = of_models(models);
    format!("Rate limit reached: {who}, {amount} {counted} a minute{of}. Try again in {seconds} s.")
}

/// The sentence of slots.
pub(super) fn at_once(who: &str, amount: u64, models: Option<&Pattern>) -> String {
    let of = of_models(models);
    format!("Too many requests at once: {who}, {amount} at once{of}. Try again shortly.")
}

/// The sentence of a limit whose shared state is unreachable.
pub(super) fn unreachable(who: &str, what: &str, models: Option<&Pattern>) -> String {
    let of = of_models(models);
    format!("The {what} of {who}{of} cannot be checked: the proxy's shared state is unreachable.")
}

/// The sentence of a model.
pub(super) fn model(who: &str, model: Option<&str>, allowed: &[Pattern]) -> String {
    let model = model.map_or("A request without a model".to_owned(), |model| {
        format!("Model {}", shortened(model, 48))
    });
    let allowed: Vec<&str> = allowed.iter().map(Pattern::as_str).collect();
    let allowed = allowed.join(", ");
    format!(
        "{model} is not allowed for {who}, which may use {}.",
        shortened(&allowed, 70)
    )
}

/// The sentence of a source.
pub(super) fn source(who: &str, client: Option<IpAddr>) -> String {
    match client {
        Some(client) => {
            format!("The address {client} is in no network that {who} may be used from.")
        }
        None => {
            format!("A client without an address may not use {who}, which is bound to networks.")
        }
    }
}

/// The sentence of a path.
pub(super) fn path(who: &str, method: &str, path: &str) -> String {
    let (method, path) = (shortened(method, 10), shortened(path, 60));
    format!("{method} {path} may not be used with {who}: its cost is not metered.")
}

/// The sentence of an expired key.
pub(super) fn expired(who: &str, at: i64) -> String {
    format!("The secret of {who} expired on {}.", say_utc(at))
}

fn budget(amount: u64, period: Period, models: Option<&Pattern>) -> String {
    let period = match period {
        Period::Day => "a day",
        Period::Week => "a week",
        Period::Month => "a month",
        Period::Total => "in total",
    };
    format!("{} {period}{}", dollars(amount), of_models(models))
}

fn of_models(models: Option<&Pattern>) -> String {
    models.map_or(String::new(), |models| {
        format!(" for {}", shortened(models.as_str(), 40))
    })
}

/// An amount of money: `$500`, `$2.50`, `$0.000125`.
pub(super) fn dollars(billionths: u64) -> String {
    let (whole, part) = (billionths / BILLION, billionths % BILLION);
    if part == 0 {
        return format!("${whole}");
    }
    let decimals = format!("{part:09}");
    let end = decimals.trim_end_matches('0').len().max(2);
    format!("${whole}.{}", &decimals[..end])
}

/// At most a number of characters, the last one of them `…` if there were more.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some(_) => text.chars().take(longest - 1).chain(['…']).collect(),
    }
}

/// A sentence and its contact, in at most 200 characters.
fn within_bounds(sentence: &str, contact: Option<&str>) -> String {
    let contact = contact.map(|contact| format!(" Ask {}.", shortened(contact, LONGEST_CONTACT)));
    let contact = contact.unwrap_or_default();
    let room = LONGEST_TEXT - contact.chars().count();
    format!("{}{contact}", shortened(sentence, room))
}

/// Characters of a text.
const LONGEST_TEXT: usize = 200;

/// Characters of a contact.
const LONGEST_CONTACT: usize = 60;

/// Seconds that clients wait for by themselves.
const LONGEST_RETRY: u64 = 60;

/// Billionths of a dollar.
const BILLION: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_as_people_write_it() {
        for (billionths, text) in [
            (0, "$0"),
            (500 * BILLION, "$500"),
            (2_500_000_000, "$2.50"),
            (125_000, "$0.000125"),
            (1, "$0.000000001"),
        ] {
            assert_eq!(dollars(billionths), text);
        }
    }

    #[test]
    fn a_spend_limit_says_who_what_until_when_and_whom_to_ask() {
        let calendar = Calendar::new(Period::Month, Some("Europe/Berlin")).unwrap();
        let end = calendar.span(1_795_000_000).end;
        let text = spent("team core", 500 * BILLION, &calendar, Some(end), None);
        let refusal = Refusal::new(RefusalKind::Spend, &text, Some("in #claude"));
        assert_eq!(
            refusal.text,
            "Spend limit reached: team core, $500 a month. Resets 1 Dec 00:00 Europe/Berlin. Ask in #claude."
        );
        assert!(refusal.forbids_retry);
    }

    #[test]
    fn texts_have_at_most_200_characters_and_keep_their_contact() {
        let long = "ä".repeat(128);
        let models: Pattern = "m".repeat(128).parse().unwrap();
        let zone = Calendar::new(Period::Month, Some("America/Argentina/ComodRivadavia")).unwrap();
        for text in [
            spent(&long, u64::MAX, &zone, Some(0), Some(&models)),
            reserved(&long, u64::MAX, Period::Total, Some(&models), 5),
            rate(&long, u64::MAX, "tokens of output", Some(&models), u64::MAX),
            at_once(&long, u64::MAX, Some(&models)),
            unreachable(&long, "limit of requests at once", Some(&models)),
            model(&long, Some(&long), &[models.clone(), models.clone()]),
            source(&long, Some([0xffff_u16; 8].into())),
            path(&long, &long, &long),
            expired(&long, i64::MAX),
        ] {
            let refusal = Refusal::new(RefusalKind::Spend, &text, Some(&long));
            assert!(refusal.text.chars().count() <= 200, "{}", refusal.text);
            assert!(refusal.text.ends_with("ä…."), "{}", refusal.text);
        }
    }

    #[test]
    fn waits_of_more_than_a_minute_are_not_for_clients() {
        let refusal = |kind, seconds| Refusal::new(kind, "", None).until(seconds);
        assert!(!refusal(RefusalKind::Requests, 60).forbids_retry);
        assert!(refusal(RefusalKind::Requests, 61).forbids_retry);
        assert!(refusal(RefusalKind::Spend, 5).forbids_retry);
        assert_eq!(refusal(RefusalKind::AtOnce, 0).retry_after, Some(1));
    }

    #[test]
    fn each_kind_has_a_label_of_its_own() {
        let labels = RefusalKind::ALL.map(|kind| kind.answer().2);
        for (at, label) in labels.iter().enumerate() {
            assert!(!labels[..at].contains(label), "{label}");
        }
    }
}
