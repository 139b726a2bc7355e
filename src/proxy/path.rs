//! The path of a request as it is shown and logged: without what looks like a key, and without the
//! request's credentials.

use crate::{
    secret::{Secrets, names_credential, shape},
    wire::head::RequestHead,
};

/// The path without the query, octets that are no printable ASCII escaped.
pub(super) fn shown(head: &RequestHead) -> Box<str> {
    let path = head.path();
    let text = match std::str::from_utf8(path) {
        Ok(text)
            if path
                .iter()
                .all(|octet| matches!(octet, b'!'..=b'[' | b']'..=b'~')) =>
        {
            if is_known(text) {
                return text.into();
            }
            text.to_owned()
        }
        _ => path.escape_ascii().to_string(),
    };
    let masked = shape::path(&text);
    // a path is seldom as long as a key
    let may_repeat = head.fields.iter().any(|field| {
        // of several in one, some may be
        let is_compound = field.value.contains(&b' ')
            && !field.value.starts_with(SCHEME.as_bytes())
            || field.is("cookie");
        (is_compound || field.value.len() <= path.len() + SCHEME.len())
            && names_credential(field.name)
    });
    if may_repeat {
        return credentials(head).hide(&masked).into();
    }
    masked.into()
}

/// The credentials that a request carries.
pub(super) fn credentials(head: &RequestHead) -> Secrets {
    let mut secrets = Secrets::default();
    let mut has_cookies = false;
    for field in head.fields.iter() {
        if field.is("cookie") {
            has_cookies = true;
        } else if secrets.len() < MOST {
            secrets.add_field(field.name, field.value);
        }
    }
    // they come last: they must not crowd out a key
    if has_cookies {
        for field in head.fields.iter().filter(|field| field.is("cookie")) {
            if secrets.len() < MOST {
                secrets.add_field(field.name, field.value);
            }
        }
    }
    let (path, query) = head.target.split_at(head.path().len());
    if let [b'?', query @ ..] = query {
        secrets.add_query(&String::from_utf8_lossy(query));
    }
    match std::str::from_utf8(path) {
        Ok(path) if is_known(path) => {}
        _ => secrets.add_path(&String::from_utf8_lossy(path)),
    }
    secrets
}

/// Paths that hold no key, for certain.
fn is_known(path: &str) -> bool {
    matches!(
        path,
        "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models" | "/api/hello" | "/"
    )
}

/// Credentials of one request after which no further field is looked at. Clients send one or two; each is
/// looked for in all that is shown.
const MOST: usize = 64;

/// Scheme before most credentials.
const SCHEME: &str = "Bearer ";
