//! The upstreams of a configuration: `API_BASE_URL`, `API_BASE_URLS`, `UPSTREAM_API_KEYS` and
//! `UPSTREAM_HTTP_VERSION` to [`Endpoint`]s, and `FAILOVER_STATUS` to [`Statuses`].
//!
//! An error names the entry by its position in the list and never repeats it: a URL may hold a
//! password, and a key is one.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use actix_web::http::header::{self, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::{
    route::OutboundRoute,
    scalar::{self, InvalidValue},
    upstream::{self, Upstream},
};
use crate::secret::shape;

/// One upstream, the road to it, and what is said to it.
///
/// Two are equal if requests take the same road to the same place with the same credential; what they are
/// called does not count, since it depends on what else is in the list.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Display name: the URL; the second upstream with the same URL is `URL #2`.
    pub name: Arc<str>,
    /// Address of the upstream.
    pub upstream: Upstream,
    /// The road to it.
    pub route: OutboundRoute,
    /// The version that is spoken there (`UPSTREAM_HTTP_VERSION`).
    pub http: HttpVersion,
    /// Credential that replaces the client's (`UPSTREAM_API_KEYS`).
    pub credential: Option<Credential>,
}

impl Endpoint {
    /// Reports whether requests get a credential of the operator's there: its own, or one in the path of its URL.
    pub fn has_credential(&self) -> bool {
        self.credential.is_some() || shape::hidden(&self.upstream.prefix).next().is_some()
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            name: _,
            upstream,
            route,
            http,
            credential,
        } = self;
        *upstream == other.upstream
            && *route == other.route
            && *http == other.http
            && *credential == other.credential
    }
}

impl Eq for Endpoint {}

/// The HTTP version towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http11,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    Http2,
    /// The version that ALPN negotiates; HTTP/1.1 without TLS.
    Auto,
}

/// The credential of an upstream: the one field of its kind that leaves.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `x-api-key` or `authorization`.
    pub name: HeaderName,
    /// The secret.
    pub value: HeaderValue,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, {} octets)", self.name, self.value.len())
    }
}

/// A text that is no credential. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a key nor `Bearer` and a token")]
pub struct InvalidCredential;

/// As an entry of `UPSTREAM_API_KEYS`: a key for `x-api-key`, or `Bearer` and a token.
impl FromStr for Credential {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let credential = credential(text.trim());
        credential.ok().flatten().ok_or(InvalidCredential)
    }
}

/// A set of status codes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses(SmallVec<[(u16, u16); 8]>);

impl Statuses {
    /// A set of these.
    #[cfg(test)]
    pub(crate) fn of(statuses: &[u16]) -> Self {
        Self(statuses.iter().map(|&status| (status, status)).collect())
    }

    /// Reports membership of a status code.
    pub fn contains(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// The URLs of a list, the preferred one first.
pub(super) fn urls(text: &str) -> Result<Vec<Upstream>, InvalidValue> {
    text.split(',')
        .enumerate()
        .map(|(at, entry)| upstream::parse(entry).map_err(|bad| of_entry(at, bad)))
        .collect()
}

/// Display names for the entries of a list.
pub(super) fn names(upstreams: &[Upstream]) -> Vec<Arc<str>> {
    let named = |(at, upstream): (usize, &Upstream)| {
        let before = upstreams[..at].iter();
        // as they are shown: what is hidden tells nothing apart
        let shown = upstream.to_string();
        match before.filter(|other| other.to_string() == shown).count() {
            0 => upstream.to_string().into(),
            same => format!("{upstream} #{}", same + 1).into(),
        }
    };
    upstreams.iter().enumerate().map(named).collect()
}

/// One credential or none for each entry of a list.
pub(super) fn credentials(text: &str) -> Result<Vec<Option<Credential>>, InvalidValue> {
    text.split(',')
        .enumerate()
        .map(|(at, entry)| credential(entry.trim()).map_err(|bad| of_entry(at, bad)))
        .collect()
}

fn credential(text: &str) -> Result<Option<Credential>, InvalidValue> {
    if text.is_empty() {
        return Ok(None);
    }
    let bearer = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (name, token) = match bearer {
        Some((_, token)) => (header::AUTHORIZATION, token.trim()),
        None => (HeaderName::from_static("x-api-key"), text),
    };
    let is_bare_scheme = token.is_empty() || token.eq_ignore_ascii_case("bearer");
    if is_bare_scheme || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(InvalidValue::because(
            "is neither a key nor `Bearer` and a token: it has white space or other characters \
             that no key has",
        ));
    }
    let value = match bearer {
        Some(_) => HeaderValue::try_from(format!("Bearer {token}")),
        None => HeaderValue::try_from(token),
    };
    let mut value = value.map_err(|_| InvalidValue::because("cannot stand in a header field"))?;
    value.set_sensitive(true);
    Ok(Some(Credential { name, value }))
}

pub(super) fn http_version(text: &str) -> Result<HttpVersion, InvalidValue> {
    scalar::choice(
        text,
        &[
            ("1.1", HttpVersion::Http11),
            ("2", HttpVersion::Http2),
            ("auto", HttpVersion::Auto),
        ],
    )
}

/// Codes and ranges, or `none`.
pub(super) fn statuses(text: &str) -> Result<Statuses, InvalidValue> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(Statuses::default());
    }
    text.split(',')
        .enumerate()
        .map(|(at, entry)| range(entry.trim()).map_err(|bad| of_entry(at, bad)))
        .collect::<Result<_, _>>()
        .map(Statuses)
}

fn range(text: &str) -> Result<(u16, u16), InvalidValue> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| {
        text.trim()
            .parse()
            .ok()
            .filter(|code| FAILURES.contains(code))
            .ok_or_else(|| InvalidValue::because("is not a status code from 400 to 599"))
    };
    let (first, last) = (code(first)?, code(last)?);
    if first > last {
        return Err(InvalidValue::because(
            "is a range that ends before it begins",
        ));
    }
    Ok((first, last))
}

fn of_entry(at: usize, bad: InvalidValue) -> InvalidValue {
    InvalidValue {
        problem: format!("is wrong in entry {}, which {}", at + 1, bad.problem).into(),
        hint: bad.hint,
    }
}

/// Statuses that may count as failures; other responses are always delivered.
const FAILURES: RangeInclusive<u16> = 400..=599;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order() {
        let urls = urls("https://a.example, http://b.example:8080/p ,https://a.example").unwrap();
        let shown: Vec<String> = urls.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "https://a.example",
                "http://b.example:8080/p",
                "https://a.example"
            ]
        );
    }

    #[test]
    fn a_bad_entry_is_named_by_its_place_and_not_repeated() {
        for (text, problem) in [
            (
                "https://a,ftp://canary",
                "is wrong in entry 2, which has a scheme that is neither http nor https",
            ),
            (
                "https://a,,https://b",
                "is wrong in entry 2, which has no scheme",
            ),
            (
                "https://u:canary@a",
                "is wrong in entry 1, which contains a user or password",
            ),
        ] {
            assert_eq!(urls(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn credentials_say_their_field() {
        let found = credentials("sk-one, Bearer two ,,bearer  three").unwrap();
        let shown: Vec<Option<(&str, &str)>> = found
            .iter()
            .map(|credential| {
                credential
                    .as_ref()
                    .map(|c| (c.name.as_str(), c.value.to_str().unwrap()))
            })
            .collect();
        assert_eq!(
            shown,
            [
                Some(("x-api-key", "sk-one")),
                Some(("authorization", "Bearer two")),
                None,
                Some(("authorization", "Bearer three")),
            ]
        );
        assert!(!format!("{found:?}").contains("sk-"), "{found:?}");
        for text in ["sk one", "Bearer", "Bearer a b", "sk-\u{e9}"] {
            assert!(credentials(text).is_err(), "{text}");
        }
    }

    #[test]
    fn statuses_are_codes_and_ranges() {
        let set = statuses("502, 520-524,529").unwrap();
        for (status, expected) in [
            (502, true),
            (503, false),
            (520, true),
            (522, true),
            (524, true),
            (525, false),
            (529, true),
        ] {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        assert_eq!(statuses("None").unwrap(), Statuses::default());
        for text in ["", "200", "600", "524-520", "5xx", "502-"] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }
}
