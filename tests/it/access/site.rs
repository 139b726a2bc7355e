//! A data directory with keys, made by the program's own verbs, and requests that show them.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answering, Proxy, ProxyBuilder, Upstream, proxy::Ended};

/// A data directory.
pub(crate) struct Site(TempDir);

/// Something with a URL.
pub(crate) trait Url {
    fn url(&self) -> String;
}

impl Url for Answering {
    fn url(&self) -> String {
        Self::url(self)
    }
}

impl Url for Upstream {
    fn url(&self) -> String {
        Self::url(self)
    }
}

/// The credential that the upstream is given.
pub(crate) const UPSTREAM_KEY: &str = "sk-ant-of-the-operator";

impl Site {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let begun = ProxyBuilder::new().env("DATA_DIR", self.path().display());
        arguments
            .iter()
            .fold(begun, |begun, argument| begun.arg(argument))
            .run()
    }

    /// Runs a verb that succeeds. Gives its output.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    }

    /// Makes a key. Gives its text.
    #[track_caller]
    pub(crate) fn key(&self, arguments: &[&str]) -> String {
        let verb = [&["keys", "create", "--quiet"], arguments].concat();
        let key = self.done(&verb).trim().to_owned();
        assert!(key.starts_with("ap_"), "{key}");
        key
    }

    /// A proxy that gives the operator's credential to this upstream.
    pub(crate) fn proxy(&self, upstream: &impl Url) -> ProxyBuilder {
        Proxy::to(upstream.url())
            .env("DATA_DIR", self.path().display())
            .env("UPSTREAM_API_KEYS", UPSTREAM_KEY)
    }

    /// True if the store has spends of a server that has not ended in good order.
    pub(crate) fn has_open_spends(&self) -> bool {
        let store = rusqlite::Connection::open(self.path().join("state.sqlite")).unwrap();
        store.busy_timeout(crate::support::DEADLINE).unwrap();
        let open = "SELECT COUNT(*) FROM spend WHERE boot <> '' AND upto > 0";
        let count: i64 = store.query_row(open, (), |row| row.get(0)).unwrap();
        count > 0
    }

    /// A proxy without a credential of its own.
    pub(crate) fn bare_proxy(&self, upstream: &impl Url) -> ProxyBuilder {
        Proxy::to(upstream.url()).env("DATA_DIR", self.path().display())
    }
}

/// The id of a key.
pub(crate) fn id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

/// A request with a key in `x-api-key`.
pub(crate) fn keyed(key: &str, method: &str, path: &str, fields: &str, body: &str) -> String {
    shown(&format!("x-api-key: {key}\r\n{fields}"), method, path, body)
}

/// A request with these fields.
pub(crate) fn shown(fields: &str, method: &str, path: &str, body: &str) -> String {
    let length = match body {
        "" => String::new(),
        body => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: proxy.test\r\n{fields}{length}\r\n{body}")
}

/// A request for a message.
pub(crate) fn message(key: &str, model: &str) -> String {
    let body = json!({"model": model, "max_tokens": 1024, "messages": []}).to_string();
    keyed(key, "POST", "/v1/messages", "", &body)
}

/// The same key with another secret, whose checksum is right.
pub(crate) fn wrong(key: &str) -> String {
    let (content, _) = key.split_at(key.len() - CHECKSUM);
    let (rest, last) = content.split_at(content.len() - 1);
    let content = format!("{rest}{}", if last == "a" { "b" } else { "a" });
    let mut checksum = u64::from(crc32(content.as_bytes()));
    let mut digits = vec![b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        let at = usize::try_from(checksum % 62).unwrap();
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[at];
        checksum /= 62;
    }
    content + &String::from_utf8(digits).unwrap()
}

/// CRC-32 as ISO 3309 has it.
fn crc32(octets: &[u8]) -> u32 {
    let sum = octets.iter().fold(u32::MAX, |sum, octet| {
        (0..8).fold(sum ^ u32::from(*octet), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    !sum
}

const CHECKSUM: usize = 6;

/// An answer with this usage.
pub(crate) fn answer(model: &str, input: u64, output: u64) -> String {
    let usage = json!({"input_tokens": input, "output_tokens": output});
    let content = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [], "stop_reason": "end_turn", "usage": usage});
    json_answer(&content, "")
}

/// A response with this content and these further fields.
pub(crate) fn json_answer(content: &Value, fields: &str) -> String {
    let content = content.to_string();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

/// The metrics, as they are written.
#[track_caller]
pub(crate) fn metrics(proxy: &Proxy) -> String {
    let answer = proxy.send(crate::support::get("/metrics"));
    String::from_utf8(answer.content().to_vec()).unwrap()
}
