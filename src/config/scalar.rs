//! One word to one value: flags, choices, counts, ports, filters; and how a bad word complains.
//!
//! Parsers here know neither the variable nor its origin; `parse` adds both.

use std::{borrow::Cow, net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, thread};

use log::LevelFilter;

use super::options::{AccessMode, AlertForm, EditTarget, ForwardedFields};
use crate::{logging::LogFormat, secret::Secret, state::RedisSettings};

/// The problem of a value, without the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidValue {
    pub(super) problem: Cow<'static, str>,
    pub(super) hint: Option<String>,
}

impl InvalidValue {
    pub(super) fn because(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

pub(super) fn flag(text: &str) -> Result<bool, InvalidValue> {
    let words = [
        ("true", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("off", false),
    ];
    choice(text, &words)
}

pub(super) fn edit_target(text: &str) -> Result<EditTarget, InvalidValue> {
    choice(
        text,
        &[("prompt", EditTarget::Prompt), ("first", EditTarget::First)],
    )
}

pub(super) fn forwarded_fields(text: &str) -> Result<ForwardedFields, InvalidValue> {
    choice(
        text,
        &[
            ("append", ForwardedFields::Append),
            ("off", ForwardedFields::Off),
            ("drop", ForwardedFields::Drop),
        ],
    )
}

pub(super) fn access(text: &str) -> Result<AccessMode, InvalidValue> {
    choice(
        text,
        &[
            ("off", AccessMode::Off),
            ("optional", AccessMode::Optional),
            ("required", AccessMode::Required),
        ],
    )
}

/// A short text that clients may read, in one line.
pub(super) fn contact(text: &str) -> Result<String, InvalidValue> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::because("has a control character"));
    }
    if text.chars().count() > LONGEST_CONTACT {
        return Err(InvalidValue::because("is longer than 60 characters")
            .hint("name a channel or an address, for example #claude"));
    }
    Ok(text.to_owned())
}

/// Characters of a contact, of the 200 of an answer.
const LONGEST_CONTACT: usize = 60;

/// The URL of a webhook. It is a secret: it is all that a sender needs.
pub(super) fn webhook(text: &str) -> Result<Secret, InvalidValue> {
    let text = text.trim();
    let is_url = text.parse::<actix_web::http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
    });
    match is_url {
        true => Ok(Secret::new(text)),
        false => Err(InvalidValue::because("is no URL with http:// or https://")),
    }
}

/// A share that can be reached: `20` or `20%`.
pub(super) fn percent(text: &str) -> Result<u8, InvalidValue> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text);
    match count(number)?.get().try_into() {
        Ok(percent @ ..=100) => Ok(percent),
        _ => Err(InvalidValue::because("is above 100")),
    }
}

/// Form of the posts of alerts.
pub(super) fn alert_form(text: &str) -> Result<AlertForm, InvalidValue> {
    choice(
        text,
        &[("json", AlertForm::Json), ("slack", AlertForm::Slack)],
    )
}

/// US dollars, as billionths: `100`, `$12.50`.
pub(super) fn dollars(text: &str) -> Result<u64, InvalidValue> {
    let text = text.trim();
    let number = text.strip_prefix('$').unwrap_or(text);
    let is_number = number.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    match number.parse::<f64>() {
        Ok(dollars) if is_number && dollars > MOST_DOLLARS => {
            Err(InvalidValue::because("is above a million"))
        }
        Ok(dollars) if is_number && dollars > 0.0 => Ok((dollars * 1e9).round() as u64),
        _ => {
            Err(InvalidValue::because("is not an amount above 0").hint("for example 100 or 12.50"))
        }
    }
}

/// An hour that costs more is a slip of the finger.
const MOST_DOLLARS: f64 = 1e6;

/// Any text.
pub(super) fn text(text: &str) -> Result<String, InvalidValue> {
    Ok(text.to_owned())
}

/// The path of a file or directory.
pub(super) fn path(text: &str) -> Result<PathBuf, InvalidValue> {
    Ok(PathBuf::from(text))
}

/// A prompt; white space alone is none, and the upstream would refuse it.
pub(super) fn prompt(text: &str) -> Result<String, InvalidValue> {
    match text.trim().is_empty() {
        true => Err(InvalidValue::because(
            "is white space alone, which the upstream refuses as a prompt",
        )
        .hint("write the text, or leave it empty to edit nothing")),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, InvalidValue> {
    choice(
        text,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    )
}

pub(super) fn port(text: &str) -> Result<u16, InvalidValue> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidValue::because("is not a port"));
    }
    text.parse()
        .map_err(|_| InvalidValue::because("is above 65535"))
}

/// A Redis that replicas share.
pub(super) fn state_url(text: &str) -> Result<RedisSettings, InvalidValue> {
    RedisSettings::parse(text).map_err(|error| {
        InvalidValue::because(error.to_string()).hint(
            "use redis://host:6379, redis-sentinel://host:26379,host:26379/primary or \
             redis-cluster://host:6379,host:6379; rediss for TLS",
        )
    })
}

/// First part of names that replicas share.
pub(super) fn state_prefix(text: &str) -> Result<String, InvalidValue> {
    let text = text.trim();
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    match (1..=32).contains(&text.len()) && text.bytes().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => Err(InvalidValue::because(
            "is not 1 to 32 letters, digits, - and _",
        )),
    }
}

/// A key that must be hard to guess.
pub(super) fn key(text: &str) -> Result<Secret, InvalidValue> {
    random(text, SHORTEST_KEY)
}

/// The secret of the digests of keys.
pub(super) fn pepper(text: &str) -> Result<Secret, InvalidValue> {
    random(text, SHORTEST_PEPPER)
}

/// A text that must be hard to guess, of this length at least.
fn random(text: &str, shortest: usize) -> Result<Secret, InvalidValue> {
    if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(InvalidValue::because("has white space or is not ASCII"));
    }
    if text.len() < shortest {
        return Err(
            InvalidValue::because(format!("is shorter than {shortest} bytes"))
                .hint("make one with `openssl rand -hex 24`"),
        );
    }
    Ok(Secret::new(text))
}

/// As many bytes as a digest has.
const SHORTEST_PEPPER: usize = 32;

/// 16 hex digits are 64 bits: with rate-limited attempts, guessing is hopeless.
const SHORTEST_KEY: usize = 16;

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, InvalidValue> {
    text.trim().parse().map_err(|_| {
        InvalidValue::because("is not an address with a port").hint("for example 127.0.0.1:8089")
    })
}

pub(super) fn count(text: &str) -> Result<NonZeroUsize, InvalidValue> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidValue::because("is not a whole number"));
    }
    let number: usize = text
        .parse()
        .map_err(|_| InvalidValue::because("is too large"))?;
    NonZeroUsize::new(number).ok_or_else(|| InvalidValue::because("is less than 1"))
}

/// Worker threads: a number, or `auto` for the cores this process may use.
pub(super) fn workers(text: &str) -> Result<NonZeroUsize, InvalidValue> {
    if text.trim().eq_ignore_ascii_case("auto") {
        return Ok(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    }
    let workers = count(text)?;
    if workers.get() > MOST_WORKERS {
        return Err(InvalidValue::because(format!("is above {MOST_WORKERS}")));
    }
    Ok(workers)
}

/// A filter as `env_logger` takes it: `info`, `anthropic_proxy=debug,warn`.
pub(super) fn log_filter(text: &str) -> Result<String, InvalidValue> {
    let directives = text
        .split_once('/')
        .map_or(text, |(directives, _)| directives);
    for directive in directives.split(',') {
        let Some((_, level)) = directive.split_once('=') else {
            continue;
        };
        let level = level.trim();
        if !level.is_empty() && LevelFilter::from_str(level).is_err() {
            return Err(InvalidValue::because(
                "has a level that is none of off, error, warn, info, debug, trace",
            ));
        }
    }
    Ok(text.to_owned())
}

/// The name among `names` that `text` was probably meant to be.
pub(super) fn nearest<'n>(
    text: &str,
    names: impl IntoIterator<Item = &'n str>,
    at_least: f64,
) -> Option<&'n str> {
    let text = text.to_ascii_lowercase();
    let mut best = None;
    for name in names {
        let score = strsim::normalized_damerau_levenshtein(&text, &name.to_ascii_lowercase());
        if score >= at_least && best.is_none_or(|(_, other)| score > other) {
            best = Some((name, score));
        }
    }
    best.map(|(name, _)| name)
}

pub(super) fn choice<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, InvalidValue> {
    let text = text.trim();
    for (word, value) in words {
        if text.eq_ignore_ascii_case(word) {
            return Ok(*value);
        }
    }
    let bad = InvalidValue::because("is not one of the words");
    Err(
        match nearest(text, words.iter().map(|(word, _)| *word), 0.5) {
            Some(word) => bad.hint(format!("did you mean `{word}`?")),
            None => bad,
        },
    )
}

/// Threads beyond this are a slip of the finger, not a machine.
const MOST_WORKERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        for text in ["true", "TRUE", "1", "yes", "Yes", "on", " true "] {
            assert_eq!(flag(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "no", "OFF"] {
            assert_eq!(flag(text), Ok(false), "{text}");
        }
        assert_eq!(
            flag("ture").unwrap_err().hint.unwrap(),
            "did you mean `true`?"
        );
        assert_eq!(flag("2").unwrap_err().hint, None);
        assert!(flag("enabled").is_err());
    }

    #[test]
    fn choices_are_read() {
        assert_eq!(edit_target("Prompt"), Ok(EditTarget::Prompt));
        assert_eq!(edit_target("first"), Ok(EditTarget::First));
        assert!(edit_target("last").is_err());
        assert_eq!(forwarded_fields("Drop"), Ok(ForwardedFields::Drop));
        assert!(forwarded_fields("remove").is_err());
        assert!(prompt(" \n\t").is_err() && prompt(" a ") == Ok(" a ".to_owned()));
        assert_eq!(log_format("JSON"), Ok(LogFormat::Json));
        assert_eq!(
            log_format("jsno").unwrap_err().hint.unwrap(),
            "did you mean `json`?"
        );
    }

    #[test]
    fn ports_and_counts_are_read() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        for text in ["", "65536", "-1", "+1", "80a", "0x50"] {
            assert!(port(text).is_err(), "{text}");
        }
        for text in ["20", "20%", " 20 % "] {
            assert_eq!(percent(text), Ok(20), "{text}");
        }
        assert_eq!((percent("1"), percent("100%")), (Ok(1), Ok(100)));
        for text in ["", "%", "0", "101", "300", "-5", "2.5", "20%%"] {
            assert!(percent(text).is_err(), "{text}");
        }
        for (text, billionths) in [
            ("100", 100_000_000_000),
            (" $12.50 ", 12_500_000_000),
            (".5", 500_000_000),
        ] {
            assert_eq!(dollars(text), Ok(billionths), "{text}");
        }
        for text in ["", "$", "0", "-1", "1e3", "inf", "5€", "1000001", "1,5"] {
            assert!(dollars(text).is_err(), "{text}");
        }
        assert_eq!(count("25000").unwrap().get(), 25_000);
        for text in ["", "0", "-1", "1.5", "99999999999999999999"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(workers("auto").unwrap().get() >= 1);
        assert_eq!(workers("3").unwrap().get(), 3);
        assert!(workers("5000").is_err());
    }

    #[test]
    fn log_filters_are_checked() {
        for text in [
            "info",
            "anthropic_proxy=debug",
            "warn,anthropic_proxy::upstream=TRACE",
            "a=",
        ] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        assert!(log_filter("anthropic_proxy=loud").is_err());
    }
}
