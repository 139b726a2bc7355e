//! A replica of a test: its directory, its verbs, and what it answers a key.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Answering, DEADLINE, Proxy, ProxyBuilder, Upstream, assert_prompt, proxy::Ended,
};

/// The pepper of all replicas.
pub(super) const PEPPER: &str = "the-pepper-of-all-replicas-of-the-tests";

/// A replica: its directory, and the Redis that it shares.
pub(super) struct Replica {
    pub(super) directory: tempfile::TempDir,
    url: String,
}

impl Replica {
    pub(super) fn of(url: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            url: url.to_owned(),
        }
    }

    pub(super) fn builder(&self, upstream: &str) -> ProxyBuilder {
        Proxy::to(upstream)
            .env("DATA_DIR", self.directory.path().display())
            .env("USER", "ann")
            .env("STATE_URL", &self.url)
            .env("REPLICAS", 2)
            .env("ENABLE_DASHBOARD", true)
            .env("METRICS_PUBLIC", true)
            .env("ACCESS_PEPPER", PEPPER)
    }

    pub(super) fn verb(&self, arguments: &[&str]) -> Ended {
        let builder = self.builder("http://127.0.0.1:9");
        let arguments = arguments.iter();
        arguments
            .fold(builder, |it, argument| it.arg(argument))
            .run()
    }

    #[track_caller]
    pub(super) fn says(&self, arguments: &[&str]) -> String {
        let ended = self.verb(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?} {ended:?}");
        ended.stdout
    }

    #[track_caller]
    pub(super) fn key(&self, name: &str) -> String {
        let key = self.says(&["keys", "create", "--name", name, "--quiet"]);
        key.trim().to_owned()
    }
}

/// An upstream that has no models.
pub(super) fn upstream() -> Answering {
    const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"data\":[]}";
    Upstream::answering(|_: &_, _: &_| EMPTY.into())
}

pub(super) fn asks(proxy: &Proxy, key: &str) -> (u16, String) {
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n\r\n");
    let response = proxy.send(request);
    let error = response.head.one("x-proxy-error").unwrap_or_default();
    (response.status(), error.to_owned())
}

/// Waits until a proxy answers a key so: within a second, where the machine has the time.
#[track_caller]
pub(super) fn until(proxy: &Proxy, key: &str, expected: (u16, &str)) {
    let start = Instant::now();
    loop {
        let answer = asks(proxy, key);
        if (answer.0, answer.1.as_str()) == expected {
            return assert_prompt(start, Duration::from_secs(1));
        }
        assert!(start.elapsed() < DEADLINE, "{answer:?}, not {expected:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) const PASSES: (u16, &str) = (200, "");
pub(super) const REVOKED: (u16, &str) = (401, "key_revoked");
pub(super) const UNREACHABLE: (u16, &str) = (429, "limit_state_unreachable");

/// What a proxy answers a message with a key, and a session that clients of one key have each for themselves.
pub(super) fn says_message(proxy: &Proxy, key: &str, session: usize) -> (u16, String) {
    let content = r#"{"model":"claude-sonnet-4-5","max_tokens":128000,"messages":[]}"#;
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n\
         X-Claude-Code-Session-Id: s{session}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{content}",
        content.len()
    );
    let response = proxy.send(request);
    let error = response.head.one("x-proxy-error").unwrap_or_default();
    (response.status(), error.to_owned())
}

/// An answer to a message that used tokens.
pub(super) fn answer_of(input: u64, output: u64) -> Vec<u8> {
    let content = serde_json::json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [], "stop_reason": "end_turn",
        "usage": {"input_tokens": input, "output_tokens": output},
    });
    let content = content.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("{head}{}\r\n\r\n{content}", content.len()).into()
}
