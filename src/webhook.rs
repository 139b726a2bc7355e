//! Webhooks: short texts for operators, posted as JSON to a URL of theirs.
//!
//! Posted by a thread of its own, one after the other, so that nothing waits for a receiver. A receiver that fails
//! is tried again twice; what does not fit into the bounded queue meanwhile is dropped and counted. The receiver's
//! URL may hold a secret (Slack's do): no log line shows more of it than its host.

use std::{io, thread, time::Duration};

use serde::Serialize;

use crate::background::{Background, Buffer, Consumer, Entrance, Terms};

/// Sender of one receiver. Its drop waits for posts under way, for a while.
pub struct Webhook {
    entrance: Entrance<Posts>,
    _background: Background<Posts>,
}

/// Post: what Slack and its likes show, and the facts for programs.
#[derive(Debug, Serialize)]
pub struct Post<F> {
    /// One sentence.
    pub text: String,
    /// Kind of the event.
    pub event: &'static str,
    /// Facts of the event.
    #[serde(flatten)]
    pub facts: F,
}

impl Webhook {
    /// Starts the thread of a receiver.
    ///
    /// # Errors
    /// If the URL is none of HTTP, or the system refuses the thread.
    pub fn start(url: &str) -> io::Result<Self> {
        let Some(host) = host(url) else {
            let message = "expected a URL that begins with https:// or http://";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LONGEST_POST))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("anthropic-proxy/", env!("CARGO_PKG_VERSION")))
            .build();
        let receiver = Receiver {
            agent: config.into(),
            host: host.to_owned(),
            url: url.into(),
            is_failing: false,
        };
        let background = Background::start("webhook", TERMS, receiver)?;
        Ok(Self {
            entrance: background.handle().entrance(),
            _background: background,
        })
    }

    /// Hands a post over. False if the queue is full.
    pub fn send(&self, post: &impl Serialize) -> bool {
        let Ok(content) = serde_json::to_string(post) else {
            // texts and numbers cannot fail
            return false;
        };
        self.entrance.add(|posts, most| {
            let fits = posts.0.len() < most;
            if fits {
                posts.0.push(content);
            }
            fits
        })
    }
}

/// A name that peers chose, without characters that mean something to those who show the text.
pub fn plain_name(name: &str) -> String {
    let is_plain = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@');
    name.chars().filter(is_plain).collect()
}

/// The host of a URL of HTTP, which may be shown.
fn host(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some(host)
}

/// Posts that wait.
#[derive(Default)]
struct Posts(Vec<String>);

impl Buffer for Posts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn reset(&mut self) {
        self.0.clear();
    }
}

/// The receiver, as the thread knows it.
struct Receiver {
    agent: ureq::Agent,
    host: String,
    url: Box<str>,
    is_failing: bool,
}

impl Consumer<Posts> for Receiver {
    fn take(&mut self, work: &mut Posts) -> u64 {
        let mut lost = 0;
        for post in &work.0 {
            match self.deliver(post) {
                Ok(()) if self.is_failing => {
                    self.is_failing = false;
                    log::info!("[Webhook] {} takes posts again", self.host);
                }
                Ok(()) => {}
                Err(cause) => {
                    lost += 1;
                    if !self.is_failing {
                        self.is_failing = true;
                        log::warn!(
                            "[Webhook] {} did not take a post: {cause}; it is dropped after {} attempts; check the URL of the webhook",
                            self.host,
                            PAUSES.len(),
                        );
                    }
                }
            }
        }
        lost
    }
}

impl Receiver {
    /// Posts until the receiver takes it, or the attempts are used up.
    fn deliver(&self, post: &str) -> Result<(), String> {
        let mut outcome = Ok(());
        for pause in PAUSES {
            thread::sleep(pause);
            outcome = match self.post(post) {
                Ok(200..300) => return Ok(()),
                // it understands the post and does not want it
                Ok(status @ 400..500) if !matches!(status, 408 | 429) => {
                    return Err(format!("status {status}"));
                }
                Ok(status) => Err(format!("status {status}")),
                Err(cause) => Err(cause),
            };
        }
        outcome
    }

    fn post(&self, content: &str) -> Result<u16, String> {
        let request = self.agent.post(&*self.url);
        let response = request.content_type("application/json").send(content);
        match response {
            Ok(response) => Ok(response.status().as_u16()),
            // these name the URL
            Err(ureq::Error::BadUri(_)) => Err("invalid URL".to_owned()),
            Err(cause) => Err(cause.to_string()),
        }
    }
}

/// Pauses before the attempts.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Longest attempt, from the name's resolution to the response.
const LONGEST_POST: Duration = Duration::from_secs(10);

const TERMS: Terms = Terms {
    most: 1000,
    interval: Duration::from_millis(100),
    patience: Duration::from_secs(2),
};

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[derive(Serialize)]
    struct Facts {
        percent: u8,
    }

    fn post(percent: u8) -> Post<Facts> {
        Post {
            text: "Team core has used 80% of $500.".to_owned(),
            event: "spend",
            facts: Facts { percent },
        }
    }

    /// Reads one request and answers it.
    fn answer(stream: TcpStream, status: &str) -> (String, String) {
        let mut stream = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
            head += &line;
            head.push('\n');
        }
        let mut content = vec![0; length];
        stream.read_exact(&mut content).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        (head, String::from_utf8(content).unwrap())
    }

    #[test]
    fn a_post_is_tried_again_until_it_is_taken_and_not_when_it_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/services/secret", listener.local_addr().unwrap());
        let webhook = Webhook::start(&url).unwrap();
        for percent in [80, 95, 100] {
            assert!(webhook.send(&post(percent)));
        }
        let mut seen = Vec::new();
        for status in ["503 Busy", "204 No Content", "400 Bad Request", "200 OK"] {
            let (head, content) = answer(listener.accept().unwrap().0, status);
            assert!(
                head.starts_with("post /services/secret http/1.1\n"),
                "{head}"
            );
            assert!(
                head.contains("\ncontent-type: application/json\n"),
                "{head}"
            );
            let content: serde_json::Value = serde_json::from_str(&content).unwrap();
            assert_eq!(content["event"], "spend");
            assert_eq!(content["text"], "Team core has used 80% of $500.");
            seen.push(content["percent"].as_u64().unwrap());
        }
        assert_eq!(seen, [80, 80, 95, 100]);
    }

    #[test]
    fn a_url_that_is_none_of_http_is_refused_and_only_the_host_is_shown() {
        for url in [
            "",
            "ftp://a",
            "https://",
            "hooks.slack.com/services/x",
            "https:///x",
        ] {
            assert!(Webhook::start(url).is_err(), "{url}");
        }
        assert_eq!(
            host("https://u:p@hooks.example:8443/services/x"),
            Some("hooks.example:8443")
        );
        assert_eq!(host("http://[::1]?x"), Some("[::1]"));
    }
}
