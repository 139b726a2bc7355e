//! Reading of an SSE stream with the times of its pieces: is it whole, and did something on the way hold it back?

use std::time::Duration;

use serde_json::Value;

/// Findings on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFindings {
    /// Time until the first octet of content.
    pub(super) first: Duration,
    /// Pieces in which it came.
    pub(super) pieces: usize,
    /// Time between the first and the last piece.
    pub(super) spread: Duration,
    /// Longest time between two pieces.
    pub(super) longest_gap: Duration,
    /// Events.
    pub(super) events: usize,
    /// First fault of its events.
    pub(super) fault: Option<String>,
    /// Tokens that were counted: input, output.
    pub(super) tokens: (u64, u64),
}

/// Events that a stream must have before its pace tells something.
const ENOUGH: usize = 4;

/// A stream that comes within this part of the time of its whole was held back.
const HELD_BACK: u32 = 20;

impl StreamFindings {
    /// Reads a stream: its content, and the times and lengths of its pieces.
    pub(super) fn of(content: &[u8], pieces: &[(Duration, usize)]) -> Self {
        let at = |piece: Option<&(Duration, usize)>| piece.map(|piece| piece.0).unwrap_or_default();
        let (first, last) = (at(pieces.first()), at(pieces.last()));
        let gaps = pieces
            .windows(2)
            .map(|pair| pair[1].0.saturating_sub(pair[0].0));
        let (events, fault, tokens) = events(content);
        Self {
            first,
            pieces: pieces.len(),
            spread: last.saturating_sub(first),
            longest_gap: gaps.max().unwrap_or_default(),
            events,
            fault,
            tokens,
        }
    }

    /// Reports whether the events came at once, after all of them had been made.
    pub(super) fn is_buffered(&self) -> bool {
        self.events >= ENOUGH && self.spread < (self.first + self.spread) / HELD_BACK
    }
}

/// Number of events, the first fault, and the tokens of the last counts.
fn events(content: &[u8]) -> (usize, Option<String>, (u64, u64)) {
    let text = String::from_utf8_lossy(content).replace("\r\n", "\n");
    let (mut names, mut fault, mut tokens) = (Vec::new(), None, (0, 0));
    let ends_whole = text.is_empty() || text.ends_with("\n\n");
    for event in text.split("\n\n").filter(|event| !event.trim().is_empty()) {
        let value = |name: &str| {
            let mut lines = event.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let (Some(name), Some(data)) = (value("event"), value("data")) else {
            // a comment is no event
            if !event.lines().all(|line| line.starts_with(':')) {
                fault.get_or_insert_with(|| "an event has no name or no data".to_owned());
            }
            continue;
        };
        let data: Value = serde_json::from_str(data).unwrap_or(Value::Null);
        if data["type"] != name {
            fault
                .get_or_insert_with(|| format!("the data of `{}` is not of its type", known(name)));
        }
        for usage in [&data["message"]["usage"], &data["usage"]] {
            let count = |name: &str, before: u64| usage[name].as_u64().unwrap_or(before);
            tokens = (
                count("input_tokens", tokens.0),
                count("output_tokens", tokens.1),
            );
        }
        if name == "error" {
            let kind = data["error"]["type"].as_str().unwrap_or("unknown");
            fault.get_or_insert_with(|| format!("it has an error of type {}", known(kind)));
        }
        names.push(name.to_owned());
    }
    let fault = fault.or_else(|| order(&names, ends_whole));
    (names.len(), fault, tokens)
}

fn order(names: &[String], ends_whole: bool) -> Option<String> {
    let count = |name: &str| names.iter().filter(|it| *it == name).count();
    if names.is_empty() {
        return Some("it has no events".to_owned());
    }
    if names.first().map(String::as_str) != Some("message_start") {
        return Some("it does not begin with message_start".to_owned());
    }
    if count("content_block_start") != count("content_block_stop") {
        return Some("a content block has no end".to_owned());
    }
    if names.last().map(String::as_str) != Some("message_stop") || !ends_whole {
        return Some("it does not end with message_stop".to_owned());
    }
    None
}

/// A name that the upstream chose, as far as it is one.
fn known(name: &str) -> String {
    let is_of_name = |it: &char| it.is_ascii_alphanumeric() || *it == '_';
    name.chars().filter(is_of_name).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, rest: &str) -> String {
        format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n")
    }

    fn whole() -> String {
        [
            event(
                "message_start",
                ",\"message\":{\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}",
            ),
            event("content_block_start", ""),
            event("ping", ""),
            event("content_block_delta", ""),
            event("content_block_stop", ""),
            event("message_delta", ",\"usage\":{\"output_tokens\":9}"),
            event("message_stop", ""),
        ]
        .concat()
    }

    fn at(pieces: &[u64]) -> Vec<(Duration, usize)> {
        let at = |ms: &u64| (Duration::from_millis(*ms), 10);
        pieces.iter().map(at).collect()
    }

    #[test]
    fn a_stream_that_comes_as_it_is_made_is_told_from_one_that_was_held_back() {
        let text = whole();
        let of = |pieces: &[u64]| StreamFindings::of(text.as_bytes(), &at(pieces));
        let good = of(&[300, 340, 420, 500]);
        assert!(!good.is_buffered());
        assert_eq!(good.longest_gap, Duration::from_millis(80));
        assert_eq!((good.events, good.tokens, &good.fault), (7, (20, 9), &None));
        assert!(of(&[800]).is_buffered());
        assert!(of(&[800, 801, 803]).is_buffered());
        // too few to tell
        let short = event("message_start", "") + &event("message_stop", "");
        assert!(!StreamFindings::of(short.as_bytes(), &at(&[800])).is_buffered());
    }

    #[test]
    fn each_fault_of_events_is_found() {
        let fault = |text: &str| StreamFindings::of(text.as_bytes(), &[]).fault;
        let text = whole();
        assert_eq!(fault(&text), None);
        assert_eq!(fault(&text.replace('\n', "\r\n")), None);
        assert_eq!(fault(&format!(": hello\n\n{text}")), None);
        for (text, expected) in [
            (String::new(), "it has no events"),
            (
                text.replace("message_start", "message_begin"),
                "it does not begin with message_start",
            ),
            (
                text.replace(&event("content_block_stop", ""), ""),
                "a content block has no end",
            ),
            (
                text.replace(&event("message_stop", ""), ""),
                "it does not end with message_stop",
            ),
            (
                text[..text.len() - 1].to_owned(),
                "it does not end with message_stop",
            ),
            (
                text.replace("\"type\":\"ping\"", "\"type\":\"pi"),
                "the data of `ping` is not of its type",
            ),
            (
                text.replace("event: ping\n", ""),
                "an event has no name or no data",
            ),
            (
                event("error", ",\"error\":{\"type\":\"overloaded_error\"}"),
                "it has an error of type overloaded_error",
            ),
        ] {
            assert_eq!(fault(&text).as_deref(), Some(expected), "{text}");
        }
    }
}
