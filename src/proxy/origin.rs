//! Requests that a web page of another site makes, which must not use a credential of the operator.
//!
//! A page can make a browser send them, even where it may not read the answer. Whose page it is, the browser
//! says: in fetch metadata, in `Origin`, and in `Host` where a foreign name was rebound to this machine.

use crate::{
    config::AllowedOrigins,
    wire::{
        head::{RequestHead, Transport},
        origin,
    },
};

/// Tells whether a foreign page makes this request.
///
/// `is_loopback` says that only this machine is listened to, so that every name is known that it has.
pub(super) fn is_foreign(head: &RequestHead, allowed: &AllowedOrigins, is_loopback: bool) -> bool {
    let (mut site, mut from, mut host, mut is_browser) = (None, None, None, false);
    let (mut has_language, mut has_mode) = (false, false);
    for field in head.fields.iter() {
        match field.name.len() {
            4 if field.is("host") => host = text(field.value),
            6 if field.is("origin") => from = only(from, field.value),
            10 if field.is("user-agent") => is_browser |= field.value.starts_with(b"Mozilla/"),
            14 if field.is("sec-fetch-mode") => has_mode = true,
            15 if field.is("accept-language") => has_language = true,
            14 if field.is("sec-fetch-site") => site = only(site, field.value),
            _ => {}
        }
    }
    if from.map_or(allowed.any, |from| allowed.allow(from)) {
        return false;
    }
    let host = host.unwrap_or_default();
    match site {
        // a browser says so of trustworthy origins alone, and no name is rebound to one
        Some("same-origin") => false,
        None | Some("none") => {
            let is_tls = head.transport == Transport::Tls;
            let is_other = from.is_some_and(|from| !origin::is_same(from, host, is_tls));
            // a script may choose its User-Agent, but drops no Accept-Language; Node's fetch sends that
            // one with a Sec-Fetch-Mode, which browsers leave out here and no script can set
            is_browser |= from.is_some() || (has_language && !has_mode);
            let is_rebound = is_loopback
                && is_browser
                && site.is_none()
                && !origin::is_loopback_host(host)
                && !allowed.allow_host(host);
            is_other || is_rebound
        }
        Some(_) => true,
    }
}

/// The value of a field that comes once; one that cannot be read, or comes twice, is empty.
fn only<'a>(before: Option<&str>, value: &'a [u8]) -> Option<&'a str> {
    Some(match before {
        None => text(value).unwrap_or_default(),
        Some(_) => "",
    })
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use actix_web::http::Method;

    use super::*;
    use crate::wire::{
        body::Framing,
        head::{Fields, Version},
    };

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let pairs = fields.iter();
        RequestHead {
            method: Method::POST,
            target: "/v1/messages".into(),
            version: Version::Http11,
            transport: Transport::Clear,
            fields: Fields::from_pairs(
                pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            ),
            framing: Framing::None,
            expects_continue: false,
            upgrade: None,
            notes: Rc::default(),
        }
    }

    const LANGUAGE: (&str, &str) = ("accept-language", "*");
    const CHROME: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11) Chrome/140");

    #[test]
    fn foreign_pages_are_told_from_everything_else() {
        let none = AllowedOrigins::default();
        let ours = ("host", "localhost:8088");
        let rebound = ("host", "evil.test:8088");
        // what is sent; foreign where only this machine is listened to; and where the network is
        for (fields, on_loopback, elsewhere) in [
            (&[ours][..], false, false),
            (&[("host", "proxy.example")], false, false),
            (&[ours, CHROME], false, false),
            // a script of a rebound page that chose its agent, and Node's fetch
            (&[rebound, ("user-agent", "x"), LANGUAGE], true, false),
            (
                &[
                    rebound,
                    ("user-agent", "node"),
                    LANGUAGE,
                    ("sec-fetch-mode", "cors"),
                ],
                false,
                false,
            ),
            (
                &[ours, CHROME, ("origin", "http://localhost:8088")],
                false,
                false,
            ),
            (&[ours, ("origin", "http://localhost:3000")], true, true),
            (&[ours, ("origin", "http://evil.test")], true, true),
            (&[ours, ("origin", "null")], true, true),
            (&[ours, ("origin", "")], true, true),
            (
                &[
                    ours,
                    ("origin", "http://localhost:8088"),
                    ("origin", "http://localhost:8088"),
                ],
                true,
                true,
            ),
            (&[ours, ("sec-fetch-site", "cross-site")], true, true),
            (&[ours, ("sec-fetch-site", "same-site")], true, true),
            (&[ours, ("sec-fetch-site", "x")], true, true),
            (&[ours, ("sec-fetch-site", "none")], false, false),
            (&[ours, ("sec-fetch-site", "same-origin")], false, false),
            (
                &[
                    ours,
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "none"),
                ],
                true,
                true,
            ),
            // behind a proxy that says another host, the browser vouches
            (
                &[
                    ours,
                    ("origin", "https://proxy.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                false,
                false,
            ),
            (&[rebound, CHROME], true, false),
            (
                &[rebound, CHROME, ("origin", "http://evil.test:8088")],
                true,
                false,
            ),
            (&[rebound, CHROME, ("sec-fetch-site", "none")], false, false),
            (&[CHROME], true, false),
        ] {
            let head = head(fields);
            assert_eq!(is_foreign(&head, &none, true), on_loopback, "{fields:?}");
            assert_eq!(is_foreign(&head, &none, false), elsewhere, "{fields:?}");
        }
    }
}
