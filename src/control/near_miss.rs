//! Requests that miss a path of the plane by little and carry its key or its session: they would take both
//! to the upstream.
//!
//! Such a path is compared as careless parsers and typists read it. A key is compared as often as it may be
//! tried, so that nothing can be found out here that a login would not tell.

use std::{borrow::Cow, net::IpAddr};

use smallvec::SmallVec;

use super::{
    identity::bearer,
    paths::{METRICS, ROOT},
    problem::Problem,
    state::AdminState,
};
use crate::wire::{cookie, head::RequestHead};

/// A path of which the first part is compared.
const LONGEST: usize = 1024;

impl AdminState {
    /// Refuses a request that was meant for the plane; `None` for one that may be forwarded.
    pub(super) fn refuses_near_miss(
        &self,
        head: &RequestHead,
        client: Option<IpAddr>,
    ) -> Option<Problem> {
        if !is_near(head.path()) {
            return None;
        }
        let cookies = head.fields.iter().filter(|field| field.is("cookie"));
        if cookies
            .map(|it| cookie::sessions(it.value).count())
            .sum::<usize>()
            > 0
        {
            return Some(Problem::NotFound);
        }
        let keys = self.keys();
        let shown = head.fields.iter().filter_map(|field| {
            if field.is("authorization") {
                return Some(bearer(field.value).unwrap_or(field.value));
            }
            field.is("x-api-key").then_some(field.value)
        });
        for token in shown {
            match self.near_misses.count(client) {
                // it could be the key
                Err(wait) => return Some(Problem::TooManyAttempts(wait.as_secs() + 1)),
                Ok(()) if keys.iter().any(|(_, key)| key.is(token)) => {
                    return Some(Problem::NotFound);
                }
                Ok(()) => {}
            }
        }
        None
    }
}

/// Tells whether a path is one of the admin plane's, or would be for a parser that folds case, undoes
/// escapes, merges slashes or resolves dots, or is one typing error away from it.
fn is_near(path: &[u8]) -> bool {
    let path = &path[..path.len().min(LONGEST)];
    // escaped twice is escaped
    let path = decoded(path);
    let path = decoded(&path);
    let mut parts = SmallVec::<[&[u8]; 16]>::new();
    for part in path.split(|octet| b"/\\".contains(octet)) {
        let part = part.split(|&octet| octet == b';').next();
        match part.unwrap_or_default().trim_ascii() {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let Some(first) = parts.first() else {
        return false;
    };
    // most paths end here
    if !(4..=8).contains(&first.len()) {
        return false;
    }
    let first = String::from_utf8_lossy(first).to_ascii_lowercase();
    [ROOT, METRICS].iter().any(|own| {
        let own = own.trim_start_matches('/');
        strsim::osa_distance(&first, own) <= 1
    })
}

/// A path with its escapes undone (RFC 3986 §2.1).
fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return path.into();
    }
    percent_encoding::percent_decode(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_told_from_other_paths() {
        for path in [
            "/admin",
            "/ADMIN",
            "//admin",
            "/%61dmin",
            "/%2561dmin/api/v1/config",
            "/./admin/x",
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/\\admin",
            "/admin;x=1/api",
            "/admin%20",
            "/amdin",
            "/admi",
            "/admins",
            "/metrics",
            "/Metrics/",
            "/metric",
        ] {
            assert!(is_near(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "*",
            "",
            "/v1/messages",
            "/v1/admin",
            "/administrator",
            "/metadata",
            "/%",
            "/%zz",
            "/..",
            "/v1/organizations/admin",
        ] {
            assert!(!is_near(path.as_bytes()), "{path}");
        }
        is_near(&vec![b'%'; 70_000]);
        is_near(&"/..".repeat(20_000).into_bytes());
    }
}
