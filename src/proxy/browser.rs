//! Requests that a browser makes to load what it then runs: documents, frames, scripts, workers.
//!
//! On a port that serves the dashboard the upstream's answer to one of them would run on the dashboard's
//! origin: it could read what the dashboard reads, and a service worker could take the key at the next
//! login. API clients send none of the fields that are looked at here.

use crate::wire::head::Fields;

/// Tells whether the answer to a request would be run by a browser.
///
/// Fetch metadata says so (`Sec-Fetch-Dest`, `Service-Worker`). A browser sends it to trustworthy origins
/// only, and old ones never do, so a navigation without it is told by what all browsers send with one.
pub(super) fn runs_the_answer(fields: &Fields) -> bool {
    let (mut has_destination, mut is_browser, mut navigates) = (false, false, false);
    for field in fields.iter() {
        match field.name.len() {
            14 if field.is("sec-fetch-dest") => {
                has_destination = true;
                if !is_passive(field.value) {
                    return true;
                }
            }
            14 if field.is("service-worker") => return true,
            10 if field.is("user-agent") => is_browser = field.value.starts_with(b"Mozilla/"),
            25 if field.is("upgrade-insecure-requests") => navigates = true,
            6 if field.is("accept") => {
                let mut types = field.value.split(|octet| b",;".contains(octet));
                navigates |= types.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/html"));
            }
            _ => {}
        }
    }
    !has_destination && is_browser && navigates
}

/// Tells whether a destination (Fetch Standard, "destination") only takes data. An unknown one may run it.
fn is_passive(destination: &[u8]) -> bool {
    PASSIVE
        .iter()
        .any(|known| destination.eq_ignore_ascii_case(known))
}

/// `empty` is that of `fetch()`, `XMLHttpRequest`, `EventSource` and `WebSocket`.
const PASSIVE: [&[u8]; 9] = [
    b"empty", b"audio", b"font", b"image", b"json", b"report", b"text", b"track", b"video",
];

/// The page that a browser shows instead.
pub(super) fn page(message: &str, request_id: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>403 – anthropic-proxy</title>\n<h1>403: not forwarded</h1>\n<p>{message}</p>\n\
         <p><a href=\"/admin\" rel=\"noreferrer\">Dashboard</a> · {request_id}</p>\n</html>\n"
    )
}

/// Fields of that page: it runs nothing, and stands in no frame.
pub(super) const PAGE_FIELDS: [(&str, &str); 5] = [
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> bool {
        let pairs = fields.iter();
        runs_the_answer(&Fields::from_pairs(
            pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        ))
    }

    #[test]
    fn what_a_browser_would_run_is_told_from_data() {
        for destination in [
            "document",
            "Document",
            "iframe",
            "frame",
            "fencedframe",
            "embed",
            "object",
            "script",
            "worker",
            "sharedworker",
            "serviceworker",
            "audioworklet",
            "paintworklet",
            "xslt",
            "style",
            "manifest",
            "speculationrules",
            "document;x",
            "empty, document",
            "",
            "of-the-future",
        ] {
            assert!(of(&[("Sec-Fetch-Dest", destination)]), "{destination}");
        }
        for destination in ["empty", "Empty", "image", "font", "json"] {
            assert!(!of(&[("sec-fetch-dest", destination)]), "{destination}");
        }
        assert!(of(&[
            ("sec-fetch-dest", "empty"),
            ("sec-fetch-dest", "script")
        ]));
        assert!(of(&[
            ("sec-fetch-dest", "empty"),
            ("Service-Worker", "script")
        ]));
    }

    #[test]
    fn a_navigation_without_fetch_metadata_is_told_by_what_browsers_send() {
        let firefox = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:1) Gecko");
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let insecure = ("upgrade-insecure-requests", "1");
        for (fields, expected) in [
            (&[firefox, html][..], true),
            (&[html, firefox], true),
            (&[firefox, ("accept", "*/*"), insecure], true),
            (&[firefox, ("accept", "*/*")], false),
            (&[firefox, html, ("sec-fetch-dest", "empty")], false),
            // Java's HttpURLConnection
            (
                &[
                    ("user-agent", "Java/17.0.1"),
                    ("accept", "text/html, image/gif, */*; q=.2"),
                ],
                false,
            ),
            (&[("user-agent", "curl/8.5.0"), html], false),
            (&[], false),
        ] {
            assert_eq!(of(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_page_says_why_and_which() {
        let page = page("Because.", "req_1");
        assert!(page.contains("<p>Because.</p>") && page.contains("req_1"));
    }
}
