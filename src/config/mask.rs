//! Values as they may be shown: a secret by its length only, a URL without user, query and keys.

use percent_encoding::percent_decode_str;

use super::env::{Redaction, Section, Variable};
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

/// The parts of a valid value that [`shown`] leaves out.
pub(super) fn hidden(variable: &Variable, value: &str) -> Vec<String> {
    match variable.shown {
        Redaction::Plainly => Vec::new(),
        Redaction::AsLength => {
            // entries of a list, which may have a scheme, and the whole
            let entries = value.split(',').map(str::trim);
            let bare = entries.map(|entry| match entry.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
                _ => entry,
            });
            let is_list = variable.section != Section::SystemPrompt;
            let keys = bare.filter(|it| is_list && it.len() >= SHORTEST_HIDDEN);
            let mut hidden: Vec<String> = keys.map(str::to_owned).collect();
            hidden.extend(logins(value));
            hidden.push(value.to_owned());
            hidden
        }
        Redaction::WithoutUserinfo | Redaction::Urls => value
            .split(',')
            .flat_map(|url| {
                let query = url
                    .split_once(['?', '#'])
                    .map(|(_, query)| query.to_owned());
                let path = url.split_once("://").map_or(url, |(_, rest)| rest);
                let path = path.split_once('/').map_or("", |(_, path)| path);
                let keys = shape::hidden(path).map(str::to_owned);
                let mut hidden = logins(url);
                hidden.extend(query.into_iter().chain(keys));
                hidden
            })
            .collect(),
    }
}

/// Password of a URL, as it is and decoded, and user and password together.
fn logins(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let Some((login, _)) = rest.rsplit_once('@') else {
        return Vec::new();
    };
    let password = login.split_once(':').map_or("", |(_, password)| password);
    let decoded = percent_decode_str(password)
        .decode_utf8_lossy()
        .into_owned();
    vec![login.to_owned(), password.to_owned(), decoded]
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
/// A shorter entry is a word like any other: `off`, `none`.
const SHORTEST_HIDDEN: usize = 8;

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
    fn hidden_parts_are_those_that_are_not_shown() {
        let of = |name: &str, value: &str| hidden(variable(name).unwrap(), value);
        assert!(of("PORT", "8088").is_empty());
        let keys = of("UPSTREAM_API_KEYS", "sk-canary-1, Bearer canary-two,");
        for key in ["sk-canary-1", "canary-two"] {
            assert!(keys.iter().any(|it| it == key), "{keys:?}");
        }
        let proxy = of("HTTPS_PROXY", "http://u:p%40ss@h:1");
        assert!(proxy.iter().any(|it| it == "p@ss"), "{proxy:?}");
        let url = of("API_BASE_URL", "https://h/k9x2abc7/v1");
        assert!(url.iter().any(|it| it == "k9x2abc7"), "{url:?}");
        let state = of("STATE_URL", "redis://u:canary-p@h:1/0");
        assert!(state.iter().any(|it| it == "canary-p"), "{state:?}");
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
