//! `ALLOWED_ORIGINS` to [`AllowedOrigins`] (RFC 6454 §6.1).

use super::scalar::InvalidValue;

/// Origins of web pages that may use the operator's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// Every page may (`*`).
    pub any: bool,
    /// As browsers write them.
    origins: Vec<Box<str>>,
}

impl AllowedOrigins {
    /// Accepts the value of an `Origin` field if it is in the list.
    pub fn allow(&self, origin: &str) -> bool {
        self.any || self.origins.iter().any(|known| **known == *origin)
    }

    /// Accepts the value of a `Host` field if an origin in the list has it.
    pub fn allow_host(&self, host: &str) -> bool {
        let is_it = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        };
        self.any || self.origins.iter().any(|origin| is_it(origin))
    }
}

pub(super) fn parse(text: &str) -> Result<AllowedOrigins, InvalidValue> {
    let mut allowed = AllowedOrigins::default();
    for entry in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match entry {
            "*" => allowed.any = true,
            "null" => allowed.origins.push(entry.into()),
            _ => allowed.origins.push(origin(entry)?.into()),
        }
    }
    Ok(allowed)
}

fn origin(text: &str) -> Result<String, InvalidValue> {
    let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err(InvalidValue::because("has an entry without a scheme")
            .hint("write it as browsers do, for example https://app.example"));
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet));
    let is_authority = !authority.is_empty()
        && authority
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !b"/?#@\\".contains(&octet));
    if !is_scheme || !is_authority {
        return Err(InvalidValue::because(
            "has an entry that is no origin: it is scheme://host or scheme://host:port",
        )
        .hint("leave out path, query and user, for example https://app.example"));
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        let allowed =
            parse("https://App.example:443/, http://localhost:3000,null,app://obsidian.md")
                .unwrap();
        for (origin, expected) in [
            ("https://app.example", true),
            ("http://app.example", false),
            ("https://app.example:8443", false),
            ("https://app.example.evil.test", false),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("null", true),
            ("app://obsidian.md", true),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(allowed.allow(origin), expected, "{origin}");
        }
        assert!(allowed.allow_host("APP.example") && !allowed.allow_host("other.example"));
        assert_eq!(parse(" , "), Ok(AllowedOrigins::default()));
        let any = parse("*").unwrap();
        assert!(any.allow("https://any.example") && any.allow_host("any.example"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "app.example",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a?b",
            "https://a b",
            "://a",
            "https://*.example/x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
