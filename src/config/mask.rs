//! Values as they may be shown: a secret by its length only, a URL without user, query and keys.

use super::env::{Redaction, Variable};
use crate::secret::shape;

/// A valid value as it may be shown.
pub(super) fn shown(variable: &Variable, value: &str) -> String {
    match variable.shown {
        Redaction::Plainly => value.to_owned(),
        Redaction::WithoutUserinfo => without_userinfo(value),
        Redaction::Urls => {
            let urls: Vec<String> = value.split(',').map(without_userinfo).collect();
            urls.join(",")
        }
        Redaction::AsLength => length(value),
    }
}

/// An invalid value as it may be shown: it may be a secret that went to the wrong variable.
pub(super) fn found(variable: &Variable, value: &str) -> String {
    let shown = shown(variable, value);
    let looks_secret = shown.contains("sk-") || shown.len() > LONGEST_FOUND;
    if looks_secret {
        return length(value);
    }
    match variable.shown {
        Redaction::AsLength => shown,
        Redaction::Plainly | Redaction::WithoutUserinfo | Redaction::Urls => {
            format!("`{}`", shown.escape_debug())
        }
    }
}

pub(super) fn length(value: &str) -> String {
    match value.len() {
        1 => "(1 octet)".to_owned(),
        n => format!("({n} octets)"),
    }
}

/// A URL whose user, password, query and fragment are stars.
fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    let mut out = String::new();
    if let Some(scheme) = scheme {
        out.push_str(scheme);
        out.push_str("://");
    }
    // The last `@`, wherever it stands: a password may contain `/`, `?`, `#` and `@` unescaped.
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => {
            out.push_str("***@");
            rest
        }
        None => rest,
    };
    match rest.find(['?', '#']) {
        Some(at) => {
            out.push_str(&without_keys(&rest[..at]));
            out.push_str(&rest[at..=at]);
            out.push_str("***");
        }
        None => out.push_str(&without_keys(rest)),
    }
    out
}

/// The rest of a URL with stars for what may be a key in its path.
fn without_keys(rest: &str) -> String {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{authority}{}", shape::prefix(path))
}

/// Longer than any value that a person types; keys and tokens are longer.
const LONGEST_FOUND: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::variable;

    #[test]
    fn secrets_are_told_by_length() {
        let prompt = variable("SYSTEM_PROMPT_REPLACEMENT").unwrap();
        assert_eq!(shown(prompt, "You are…"), "(10 octets)");
        let port = variable("PORT").unwrap();
        assert_eq!(found(port, "80a"), "`80a`");
        assert_eq!(found(port, "8\n0"), "`8\\n0`");
        assert_eq!(found(port, "sk-ant-api03-canary"), "(19 octets)");
        assert_eq!(found(port, &"x".repeat(61)), "(61 octets)");
    }

    #[test]
    fn urls_lose_userinfo_and_query() {
        let url = variable("API_BASE_URL").unwrap();
        for (value, expected) in [
            ("https://a.example/p", "https://a.example/p"),
            ("https://u:p@a.example/p", "https://***@a.example/p"),
            ("https://u:p@w@a.example", "https://***@a.example"),
            ("https://u:p/w@a.example", "https://***@a.example"),
            ("https://u:p?w#@a.example", "https://***@a.example"),
            ("u:p@a.example", "***@a.example"),
            ("https://a.example/?key=1", "https://a.example/?***"),
            ("https://a.example/#key", "https://a.example/#***"),
            ("https://a.example/k9x2/v1", "https://a.example/***/v1"),
            ("https://a.example/k9x2?a", "https://a.example/***?***"),
        ] {
            assert_eq!(shown(url, value), expected, "{value}");
        }
    }
}
