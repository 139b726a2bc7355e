//! `statusline`: one line for the `statusLine` command of Claude Code: cost of the session, its cache hits,
//! the budget that is left, trouble of the upstreams.
//!
//! Claude Code runs it after each message and gives facts of the session on standard input. It must never be in
//! the way: whatever is wrong, it prints nothing and succeeds, and at its deadline it ends. So all that may
//! wait (standard input, name resolution, the server) is done on a thread that is not waited for.

use std::{
    io::{IsTerminal as _, Read},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use self::facts::SessionFacts;
use super::{
    client::{API, ApiAnswer, ApiClient, segment},
    desk::ADMIN_KEY,
    output,
};
use crate::access::is_ours;

mod facts;
mod line;

#[derive(Debug, Clone, Args)]
pub(super) struct Statusline {
    /// Longest time for all of it, as 50ms or 1s
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = time)]
    timeout: Duration,
    /// Ask the server at this URL, with the dashboard's key in ANTHROPIC_PROXY_ADMIN_KEY
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Ask the server of this machine that has this directory (DATA_DIR)
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
}

/// Prints the line, or nothing.
pub(super) fn run(asked: Statusline) -> ExitCode {
    // the rest is for the start of the process and its end: 20 of 50 ms on a busy machine
    let deadline = Instant::now() + asked.timeout * 3 / 5;
    if std::io::stdin().is_terminal() {
        output::remark(
            "statusline is run by Claude Code, which gives it JSON on standard input (settings.json: \"statusLine\"); it \
             asks --server URL, the proxy of ANTHROPIC_BASE_URL with a key of the proxy, or the server of --data-dir \
             PATH (DATA_DIR)",
        );
        return ExitCode::SUCCESS;
    }
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let (done, made) = mpsc::channel();
    let work = move || {
        let line = input().and_then(|input| {
            let facts = asked.ask(&input, deadline)?;
            line::line(&input, &facts, !is_plain)
        });
        let _ = done.send(line);
    };
    let begun = std::thread::Builder::new().spawn(work);
    let left = deadline.saturating_duration_since(Instant::now());
    if begun.is_ok()
        && let Ok(Some(mut line)) = made.recv_timeout(left)
    {
        line.push('\n');
        // a reader that went away is no fault of ours
        let _ = output::say(line.as_bytes());
    }
    ExitCode::SUCCESS
}

/// The JSON on standard input.
fn input() -> Option<Value> {
    let mut text = Vec::new();
    let mut input = std::io::stdin().lock().take(LARGEST_INPUT);
    input.read_to_end(&mut text).ok()?;
    let input: Value = serde_json::from_slice(&text).ok()?;
    input.is_object().then_some(input)
}

/// Bytes of the input; Claude Code sends about 2 KB.
const LARGEST_INPUT: u64 = 1 << 20;

impl Statusline {
    /// Asks the proxy: with the client's own key, else as an operator by the server's URL or its socket.
    fn ask(&self, input: &Value, deadline: Instant) -> Option<SessionFacts> {
        let session = input["session_id"].as_str().filter(|id| !id.is_empty());
        if let Some(url) = &self.server {
            let key = variable(ADMIN_KEY)?;
            return of_operator(&ApiClient::of_url(url, key).ok()?, session, deadline);
        }
        if let (Some(url), Some(key)) = (variable("ANTHROPIC_BASE_URL"), own_key()) {
            let path = match session {
                Some(session) => format!("{OWN_SESSION}?id={}", segment(session)),
                None => OWN_SESSION.to_owned(),
            };
            let client = ApiClient::of_url(&url, key).ok()?;
            return SessionFacts::of_key(&get(&client, &path, deadline)?);
        }
        let data_dir = variable("DATA_DIR").map(PathBuf::from);
        let data_dir = self.data_dir.clone().or(data_dir)?;
        of_operator(&local(&data_dir)?, session, deadline)
    }
}

/// The path at which a key reads its own session.
const OWN_SESSION: &str = "/api/proxy/session";

/// A variable that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The client's key, if it is one of the proxy. No other credential is sent: it is not meant for these paths.
fn own_key() -> Option<String> {
    let fields = variable("ANTHROPIC_CUSTOM_HEADERS").unwrap_or_default();
    let of_fields = fields.lines().filter_map(|line| line.split_once(':'));
    let of_fields = of_fields.map(|(_, value)| value.to_owned());
    let named = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"].map(variable);
    let values = named.into_iter().flatten().chain(of_fields);
    let keys = values.filter_map(|value| value.split_whitespace().last().map(str::to_owned));
    keys.into_iter().find(|key| is_ours(key.as_bytes()))
}

#[cfg(unix)]
fn local(data_dir: &std::path::Path) -> Option<ApiClient> {
    ApiClient::of_socket(&data_dir.join(crate::server::ADMIN_SOCKET)).ok()?
}

#[cfg(not(unix))]
fn local(_: &std::path::Path) -> Option<ApiClient> {
    None
}

/// Facts as the API tells operators: of the session, of the limits of its key, of the upstreams.
fn of_operator(
    client: &ApiClient,
    session: Option<&str>,
    deadline: Instant,
) -> Option<SessionFacts> {
    let upstreams = get(client, &format!("{API}/upstreams"), deadline)?;
    let session = session.and_then(|id| {
        let path = format!("{API}/sessions/{}", segment(id));
        client.send("GET", &path, None, None, left(deadline)).ok()
    });
    // an unknown one has had no request yet
    let session = session.and_then(|ApiAnswer { status, content }| match status {
        200 => Some(content),
        404 => Some(serde_json::json!({"requests": 0})),
        _ => None,
    });
    let key = session.as_ref().and_then(|session| session["key"].as_str());
    let limits = key.and_then(|key| get(client, &format!("{API}/limits/key:{key}"), deadline));
    Some(SessionFacts::of_operator(
        session.as_ref(),
        limits.as_ref(),
        &upstreams,
    ))
}

fn get(client: &ApiClient, path: &str, deadline: Instant) -> Option<Value> {
    let answer = client.send("GET", path, None, None, left(deadline)).ok()?;
    (answer.status == 200).then_some(answer.content)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A time as `50ms`, `1s` or `0.5`, which is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.trim().parse::<f64>().map(|number| number * scale);
    match seconds {
        Ok(seconds) if (0.001..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a time from 1ms to 60s, as 50ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded() {
        for (text, millis) in [("50ms", 50), ("1s", 1000), ("0.5", 500), ("60s", 60_000)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "-1s", "61s", "1m", "NaN", "inf"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
