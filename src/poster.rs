//! Posts to a URL of the operator over HTTP: a receiver of alerts or of telemetry. From a thread that may wait.
//!
//! A receiver that is busy or away is tried again, as the sender's terms say. The URL and the fields may hold a
//! secret (Slack's do): no log line shows more than the host.

use std::{io, thread, time::Duration};

/// Sender of requests to one URL.
pub struct Poster {
    agent: ureq::Agent,
    url: Box<str>,
    host: Box<str>,
    fields: Vec<(String, String)>,
    is_failing: bool,
}

/// Terms of a post.
#[derive(Debug, Clone, Copy)]
pub struct PostTerms {
    /// Pauses before the attempts, one for each.
    pub pauses: &'static [Duration],
    /// Longest attempt, from the name's resolution to the end of the answer.
    pub timeout: Duration,
    /// Tells of a status that is no success if another attempt may succeed.
    pub may_pass: fn(u16) -> bool,
}

/// Change of a receiver that the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostTurn {
    /// It took posts, and took this one not.
    Fails,
    /// It takes posts again.
    Recovers,
}

/// Answer of a receiver that took a post.
pub struct PostAnswer(ureq::http::Response<ureq::Body>);

impl Poster {
    /// A sender to a URL. Each request has these fields.
    ///
    /// # Errors
    /// If the URL is none of HTTP.
    pub fn new(url: &str, fields: Vec<(String, String)>) -> io::Result<Self> {
        let Some(host) = host(url) else {
            let message = "expected a URL that begins with https:// or http://";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("anthropic-proxy/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: config.into(),
            host: host.into(),
            url: url.into(),
            fields,
            is_failing: false,
        })
    }

    /// The host of the URL, which may be shown.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Posts until the receiver takes it, or the attempts are used up.
    ///
    /// # Errors
    /// The cause of the last attempt, without the URL.
    pub fn deliver(&self, content: &[u8], terms: &PostTerms) -> Result<PostAnswer, String> {
        let mut cause = "there was no attempt".to_owned();
        for pause in terms.pauses {
            thread::sleep(*pause);
            cause = match self.post(content, terms.timeout) {
                Ok(response) => match response.status().as_u16() {
                    200..300 => return Ok(PostAnswer(response)),
                    status if (terms.may_pass)(status) => format!("status {status}"),
                    status => return Err(format!("status {status}")),
                },
                // these name the URL
                Err(ureq::Error::BadUri(_)) => "invalid URL".to_owned(),
                Err(cause) => cause.to_string(),
            };
        }
        Err(cause)
    }

    fn post(
        &self,
        content: &[u8],
        timeout: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = self.agent.post(&*self.url);
        for (name, value) in &self.fields {
            request = request.header(&**name, &**value);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        request.send(content)
    }

    /// Notes that a post was taken or not, and gives the change that the log tells.
    pub fn turn(&mut self, is_taken: bool) -> Option<PostTurn> {
        let was_failing = std::mem::replace(&mut self.is_failing, !is_taken);
        match (was_failing, is_taken) {
            (false, false) => Some(PostTurn::Fails),
            (true, true) => Some(PostTurn::Recovers),
            _ => None,
        }
    }
}

impl PostAnswer {
    /// Its content; empty where it is large, or does not come in time.
    pub fn content(self) -> Vec<u8> {
        let body = self.0.into_body();
        let read = body.into_with_config().limit(LARGEST_ANSWER).read_to_vec();
        read.unwrap_or_default()
    }
}

/// Octets of an answer that are read.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// The host of a URL of HTTP, and its port.
fn host(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_of_http_is_refused_and_only_the_host_is_shown() {
        for url in [
            "",
            "ftp://a",
            "https://",
            "hooks.slack.com/services/x",
            "https:///x",
        ] {
            assert!(Poster::new(url, Vec::new()).is_err(), "{url}");
        }
        for (url, shown) in [
            (
                "https://u:p@hooks.example:8443/services/x",
                "hooks.example:8443",
            ),
            ("http://[::1]?x", "[::1]"),
            ("http://otel.test", "otel.test"),
        ] {
            assert_eq!(Poster::new(url, Vec::new()).unwrap().host(), shown);
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let mut poster = Poster::new("http://a.test", Vec::new()).unwrap();
        let turns = [true, false, false, true, true].map(|is_taken| poster.turn(is_taken));
        let expected = [
            None,
            Some(PostTurn::Fails),
            None,
            Some(PostTurn::Recovers),
            None,
        ];
        assert_eq!(turns, expected);
    }
}
