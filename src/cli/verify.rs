//! `verify`: the digests of an exchange's content before and after the running proxy.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{
    client::{ApiAnswer, segment},
    desk::{Reach, VerbError, finish, print_json},
    output::say,
};

#[derive(Debug, Clone, Args)]
pub(super) struct Verify {
    /// The exchange: its id in the log and on the page Requests, or the request-id that the client got
    #[arg(long, value_name = "ID")]
    exchange: String,
    #[command(flatten)]
    pub(super) reach: Reach,
}

pub(super) fn run(asked: &Verify) -> ExitCode {
    finish(done(asked))
}

/// Exit 0 if the octets are the same, 1 if they differ or are not known to be the same.
fn done(asked: &Verify) -> Result<ExitCode, VerbError> {
    let (server, _) = asked.reach.running()?;
    let id = &asked.exchange;
    let path = format!("/requests/{}", segment(id));
    let ApiAnswer { status, content } = server.ask("GET", &path, None, None)?;
    let refused = |message: String| Err(VerbError::Refused { status, message });
    match status {
        200 => {}
        404 => {
            return refused(format!(
                "{id} is not among the exchanges that the server still lists: the page Requests shows them"
            ));
        }
        _ => {
            let message = content["detail"]
                .as_str()
                .unwrap_or("the server gives no reason");
            return refused(message.to_owned());
        }
    }
    let verified = &content["verified"];
    if verified.is_null() {
        let overview = || server.ask("GET", "/overview", None, None).ok();
        let started = || overview().and_then(|answer| answer.content["started_at"].as_u64());
        let state = match content["state"].as_str() {
            Some("done") => without_digests(content["at"].as_u64(), started()),
            _ => "has not ended: ask again when it has",
        };
        return refused(format!("{id} {state}"));
    }
    if asked.reach.json {
        print_json(verified);
    } else {
        let mut text = String::new();
        for direction in ["request", "response"] {
            text += &lines(direction, &verified[direction]);
        }
        say(text.as_bytes());
    }
    Ok(match verified["result"].as_str() {
        Some("same") => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Reason for which an exchange that began at `at` has no digests, with the start of the server.
fn without_digests(at: Option<u64>, started: Option<u64>) -> &'static str {
    match (at, started) {
        (Some(at), Some(started)) if at >= started => {
            "was not verified: set VERIFY to all, sample:SHARE or session:ID before it begins"
        }
        (Some(_), Some(_)) => {
            "began before the server's last start: digests are kept in memory, and end with the server's run"
        }
        _ => {
            "has no digests: it was not verified (set VERIFY to all, sample:SHARE or session:ID before it begins), or \
             the server was started again since, which ends them"
        }
    }
}

/// The lines of one direction.
fn lines(direction: &str, content: &Value) -> String {
    let Some(result) = content["result"].as_str() else {
        return format!("{direction}: nothing to compare\n");
    };
    let edit = &content["edit"];
    let outside = match edit.is_null() {
        true => String::new(),
        false => format!(
            " outside of the edit ({} octets at {} became {})",
            edit["replaced"], edit["at"], edit["inserted"]
        ),
    };
    let mut text = format!("{direction}: {result}{outside}\n");
    for side in ["received", "sent"] {
        let digest = &content[side];
        text += &format!(
            "  {side:8} {:>12} octets  sha256 {}\n",
            digest["octets"].to_string(),
            digest["sha256"].as_str().unwrap_or_default()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digests_of_an_earlier_run_are_gone() {
        assert!(without_digests(Some(9), Some(10)).contains("end with the server's run"));
        assert!(without_digests(Some(10), Some(10)).starts_with("was not verified"));
        for (at, started) in [(None, Some(1)), (Some(1), None)] {
            assert!(without_digests(at, started).contains("started again since"));
        }
    }

    #[test]
    fn both_digests_are_shown_beside_each_other() {
        let digest = |octets: u64| json!({"octets": octets, "sha256": "ab".repeat(32)});
        let content = json!({"result": "same", "received": digest(100), "sent": digest(112),
            "edit": {"at": 7, "replaced": 8, "inserted": 20}});
        let hash = "ab".repeat(32);
        assert_eq!(
            lines("request", &content),
            format!(
                "request: same outside of the edit (8 octets at 7 became 20)\n  \
                 received          100 octets  sha256 {hash}\n  sent              112 octets  sha256 {hash}\n"
            )
        );
        assert_eq!(
            lines("response", &Value::Null),
            "response: nothing to compare\n"
        );
    }
}
