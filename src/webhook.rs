//! Webhooks: short texts for operators, posted as JSON to a URL of theirs.
//!
//! Posted by a thread of its own, one after the other, so that nothing waits for a receiver. A receiver that fails
//! is tried again twice ([`crate::poster`]); what does not fit into the bounded queue meanwhile is dropped and counted.

use std::{io, time::Duration};

use serde::Serialize;

use crate::{
    background::{Background, Buffer, Consumer, Entrance, Terms},
    poster::{PostTerms, PostTurn, Poster},
};

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
        let json = ("content-type".to_owned(), "application/json".to_owned());
        let receiver = Receiver(Poster::new(url, vec![json])?);
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
struct Receiver(Poster);

impl Consumer<Posts> for Receiver {
    fn take(&mut self, work: &mut Posts) -> u64 {
        let mut lost = 0;
        for post in &work.0 {
            let outcome = self.0.deliver(post.as_bytes(), &POST_TERMS).map(drop);
            lost += u64::from(outcome.is_err());
            let turn = self.0.turn(outcome.is_ok());
            let host = self.0.host();
            match (turn, outcome) {
                (Some(PostTurn::Recovers), _) => log::info!("[Webhook] {host} takes posts again"),
                (Some(PostTurn::Fails), Err(cause)) => log::warn!(
                    "[Webhook] {host} did not take a post: {cause}; it is dropped after {} attempts; check the URL of the webhook",
                    POST_TERMS.pauses.len(),
                ),
                _ => {}
            }
        }
        lost
    }
}

const POST_TERMS: PostTerms = PostTerms {
    pauses: &[
        Duration::ZERO,
        Duration::from_secs(1),
        Duration::from_secs(5),
    ],
    timeout: Duration::from_secs(10),
    // of the others it understands the post, and does not want it
    may_pass: |status| !(400..500).contains(&status) || matches!(status, 408 | 429),
};

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
}
