//! Paths that generate: an answer that is not streamed begins only when all of it was generated, so that
//! its head may take minutes (docs/contract.md §4.2).
//!
//! They are told by how they end, whatever prefix a gateway puts before them. Only `POST /v1/messages` is
//! edited and metered; that another one passes as it is, is said once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix_web::http::Method;

/// A kind of path that generates, by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GenerationPath(usize);

/// Names of the kinds for the log: the last segments, or the verb of the last one. A path itself may hold a
/// key.
const KINDS: [&str; 7] = [
    "…/messages",
    "…/complete",
    "…/chat/completions",
    "…/responses",
    "…:rawPredict",
    "…:streamRawPredict",
    "…/invoke",
];

static WERE_TOLD: [AtomicBool; KINDS.len()] = [const { AtomicBool::new(false) }; KINDS.len()];

/// The kind of a request that generates.
pub(super) fn kind(method: &Method, path: &[u8]) -> Option<GenerationPath> {
    if *method != Method::POST {
        return None;
    }
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (before, last) = path.split_at(memchr::memrchr(b'/', path)? + 1);
    let kind = match last {
        b"messages" => 0,
        b"complete" => 1,
        b"completions" if before.ends_with(b"/chat/") => 2,
        b"responses" => 3,
        _ if last.ends_with(b":rawPredict") => 4,
        _ if last.ends_with(b":streamRawPredict") => 5,
        _ if last.starts_with(b"invoke") => 6,
        _ => return None,
    };
    Some(GenerationPath(kind))
}

impl GenerationPath {
    /// Logs once per process that requests of this kind are forwarded unmodified.
    pub(super) fn passes_unseen(self) {
        let was_told = &WERE_TOLD[self.0];
        if !was_told.load(Relaxed) && !was_told.swap(true, Relaxed) {
            log::warn!(
                "[Proxy] a request to {} is forwarded as it is: the system prompt is edited and tokens are \
                 counted for POST /v1/messages only; clients of this proxy should use that path",
                KINDS[self.0],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_generate_are_told_by_their_end() {
        for (path, kind) in [
            ("/v1/messages", "…/messages"),
            ("/v1/messages/", "…/messages"),
            ("/api/anthropic/v1/messages", "…/messages"),
            ("/v1/complete", "…/complete"),
            ("/v1/chat/completions", "…/chat/completions"),
            (
                "/openai/deployments/x/chat/completions",
                "…/chat/completions",
            ),
            ("/v1/responses", "…/responses"),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
                "…:rawPredict",
            ),
            (
                "/v1/p/models/claude@20250514:streamRawPredict",
                "…:streamRawPredict",
            ),
            ("/model/anthropic.claude-v1:0/invoke", "…/invoke"),
            (
                "/model/anthropic.claude-v1:0/invoke-with-response-stream",
                "…/invoke",
            ),
        ] {
            let found = super::kind(&Method::POST, path.as_bytes());
            assert_eq!(found.map(|found| KINDS[found.0]), Some(kind), "{path}");
            assert_eq!(super::kind(&Method::GET, path.as_bytes()), None, "{path}");
        }
        for path in [
            "/v1/messages/count_tokens",
            "/v1/messages/batches",
            "/v1/completions",
            "/v1/responses/resp_1",
            "/v1/xmessages",
            "/messages/x",
            "/",
            "",
            "*",
            "/v1/invoices/1",
        ] {
            assert_eq!(super::kind(&Method::POST, path.as_bytes()), None, "{path}");
        }
    }
}
