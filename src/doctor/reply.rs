//! Judgement of an answer: is it one of Anthropic's API, or of a stranger, and of which kind?

use serde_json::Value;

use crate::wire::{
    head::Fields,
    page::{one_line, origin, title},
};

/// An answer, as far as it was read.
pub struct Reply<'a> {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: &'a Fields,
    /// Its content, or the beginning of it.
    pub content: &'a [u8],
}

/// Kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyKind {
    /// A list of models.
    Models,
    /// An error as the API has it.
    Error,
    Json,
    Html,
    Empty,
    Other,
}

impl Reply<'_> {
    fn kind(&self) -> ReplyKind {
        let content = self.content.trim_ascii();
        if content.is_empty() {
            return ReplyKind::Empty;
        }
        match serde_json::from_slice::<Value>(content) {
            Ok(json) if json["data"].is_array() => return ReplyKind::Models,
            Ok(json) if json["error"]["message"].is_string() => return ReplyKind::Error,
            Ok(_) => return ReplyKind::Json,
            Err(_) => {}
        }
        let is_html = self.media().to_ascii_lowercase().contains("html");
        match is_html || content.starts_with(b"<") {
            true => ReplyKind::Html,
            false => ReplyKind::Other,
        }
    }

    /// True for a list of models.
    pub fn is_listed(&self) -> bool {
        self.kind() == ReplyKind::Models
    }

    /// True for an answer as a server of the API gives it: models, an error in its form, or a refusal of the
    /// credential by a gateway before it.
    pub fn is_of_api(&self) -> bool {
        match (self.status, self.kind()) {
            (200..=299, kind) => kind == ReplyKind::Models,
            (400.., ReplyKind::Error) | (401 | 403, ReplyKind::Empty | ReplyKind::Json) => true,
            _ => false,
        }
    }

    /// True for a page that is none of the API, whatever its status, or for a redirect to one.
    pub(super) fn is_page(&self) -> bool {
        let is_page = self.status < 400 || self.kind() == ReplyKind::Html || self.wants_tls();
        is_page && !self.is_of_api()
    }

    /// True where a server says that its port speaks TLS (nginx, Apache, Go).
    pub fn wants_tls(&self) -> bool {
        let text = String::from_utf8_lossy(self.content).to_ascii_lowercase();
        let says = |words: &&str| text.contains(words);
        self.status == 400 && ["plain http", "http request to an https"].iter().any(says)
    }

    /// The answer in words: its kind and status, its title or its target. Nothing else of it is repeated.
    pub fn told(&self) -> String {
        let status = self.status;
        let more = match self.kind() {
            _ if (300..400).contains(&status) => {
                let target = self.field("location");
                let target =
                    target.and_then(|it| origin(&it).map(|it| format!(" to {}", one_line(&it))));
                format!("a redirect{}", target.unwrap_or_default())
            }
            ReplyKind::Html => match title(self.content) {
                Some(title) => format!("an HTML page titled {title:?}"),
                None => "an HTML page".to_owned(),
            },
            ReplyKind::Empty => "no content".to_owned(),
            ReplyKind::Models | ReplyKind::Error | ReplyKind::Json => {
                "JSON that is none of the API".to_owned()
            }
            ReplyKind::Other => match self.media() {
                media if media.is_empty() => "content that is not JSON".to_owned(),
                media => format!("{media}, which is not JSON"),
            },
        };
        format!("{more} (status {status})")
    }

    fn field(&self, name: &str) -> Option<String> {
        let value = self.fields.value(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The media type, without its parameters.
    fn media(&self) -> String {
        let field = self.field("content-type").unwrap_or_default();
        let media = field.split(';').next().unwrap_or_default().trim();
        one_line(media)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T>(
        status: u16,
        fields: &[(&str, &str)],
        content: &str,
        ask: impl FnOnce(&Reply<'_>) -> T,
    ) -> T {
        let pairs = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        ask(&Reply {
            status,
            fields: &Fields::from_pairs(pairs),
            content: content.as_bytes(),
        })
    }

    #[test]
    fn answers_of_the_api_are_told_from_others() {
        const ERROR: &str = r#"{"type":"error","error":{"type":"not_found_error","message":"m"}}"#;
        for (status, content) in [
            (200, r#"{"data":[]}"#),
            (404, ERROR),
            (401, ""),
            (403, r#"{"detail":"no"}"#),
            (400, r#"{"error":{"message":"of a gateway"}}"#),
        ] {
            let fields = [("content-type", "application/json")];
            let is_of_api = of(status, &fields, content, |it| it.is_of_api());
            assert!(is_of_api, "{status} {content}");
        }
        let page = "<!doctype html><html><head><TITLE lang=en> Sign\n in\u{1b}[1m </TITLE>";
        for (status, media, content, told, is_page) in [
            (
                200,
                "text/html",
                page,
                "an HTML page titled \"Sign in[1m\" (status 200)",
                true,
            ),
            (403, "", "<p>blocked", "an HTML page (status 403)", true),
            (401, "text/html", "no", "an HTML page (status 401)", true),
            (
                200,
                "application/json",
                ERROR,
                "JSON that is none of the API (status 200)",
                true,
            ),
            (
                404,
                "application/json",
                r#"{"detail":"Not Found"}"#,
                "JSON that is none of the API (status 404)",
                false,
            ),
            (
                404,
                "text/plain; charset=utf-8",
                "404 page",
                "text/plain, which is not JSON (status 404)",
                false,
            ),
            (200, "text/plain", " ", "no content (status 200)", true),
        ] {
            let fields = [("content-type", media)];
            assert!(!of(status, &fields, content, |it| it.is_of_api()));
            assert_eq!(of(status, &fields, content, |it| it.is_page()), is_page);
            assert_eq!(of(status, &fields, content, |it| it.told()), told);
        }
        let moved = |to| of(302, &[("location", to)], page, |it| it.told());
        assert_eq!(moved("/login"), "a redirect (status 302)");
        assert_eq!(
            moved("https://sso.test/login?token=canary"),
            "a redirect to https://sso.test (status 302)"
        );
    }

    #[test]
    fn servers_that_speak_tls_say_so_in_three_ways() {
        for content in [
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Client sent an HTTP request to an HTTPS server.\n",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
        ] {
            assert!(of(400, &[], content, |it| it.wants_tls()), "{content}");
        }
        assert!(!of(400, &[], "bad request", |it| it.wants_tls()));
    }
}
