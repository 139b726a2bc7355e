//! Detection of an `overloaded_error` in the first event of a stream of server-sent events.
//!
//! Anthropic reports overload either by status 529 or, once it has answered 200, by an
//! `overloaded_error` as the first event. Where another upstream could take the request, both are
//! reasons to retry, as long as nothing of the answer went to the client.
//!
//! Every byte is judged as it arrives: a stream that does not begin as an error does is released
//! with its first bytes. The bytes that were read stay the beginning of the body, unchanged. A
//! content-coded stream is not read: the API does not encode its streams, and a decoder would have
//! to hold content back.

use std::time::Duration;

use crate::wire::head::ResponseHead;

/// The status with the same meaning: the first event counts where `FAILOVER_STATUS` has this one.
pub const OVERLOADED: u16 = 529;
/// Time that the head of a stream waits for its first bytes. The API sends both at once; a relay
/// that sends its head earlier delays only the head, and at most for this time.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of a first event that are read. An error of the API has about 130.
pub(super) const LIMIT: usize = 4 * 1024;

/// The kind of a stream's first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstEvent {
    /// An `overloaded_error`.
    Overloaded,
    /// Anything else, or not known yet.
    Other,
}

/// Tells if the body of an answer is a stream that may begin with an `overloaded_error`.
pub fn is_event_stream(head: &ResponseHead) -> bool {
    let is_coded = |coding: &[u8]| !coding.eq_ignore_ascii_case(b"identity");
    head.status == 200
        && head.fields.value("content-type").is_some_and(|value| {
            let end = memchr::memchr(b';', value).unwrap_or(value.len());
            value[..end]
                .trim_ascii()
                .eq_ignore_ascii_case(b"text/event-stream")
        })
        && !head.fields.value("content-encoding").is_some_and(is_coded)
}

/// The first event of a stream with this beginning, as soon as it can be told; a whole stream
/// always can.
pub(super) fn judge(beginning: &[u8], is_whole: bool) -> Option<FirstEvent> {
    let is_long = beginning.len() >= LIMIT;
    match begins_as_error(beginning) {
        Some(false) => return Some(FirstEvent::Other),
        Some(true) => {}
        None if is_whole || is_long => return Some(FirstEvent::Other),
        None => return None,
    }
    let beginning = beginning.strip_prefix(BOM).unwrap_or(beginning);
    match end_of_event(beginning) {
        Some(end) => Some(kind(&beginning[..end])),
        None if is_whole => Some(kind(beginning)),
        None => is_long.then_some(FirstEvent::Other),
    }
}

/// Tells if it begins with `event: error`, or with data that begin as an error does; `None` while
/// both are possible.
fn begins_as_error(beginning: &[u8]) -> Option<bool> {
    let mut rest = Beginning(beginning);
    if rest.0.first() == BOM.first() && !rest.literal(BOM)? {
        return Some(false);
    }
    match rest.0.first()? {
        b'e' => {
            if !rest.literal(b"event:")? {
                return Some(false);
            }
            rest.space()?;
            if !rest.literal(b"error")? {
                return Some(false);
            }
            Some(matches!(rest.0.first()?, b'\r' | b'\n'))
        }
        b'd' => {
            if !rest.literal(b"data:")? {
                return Some(false);
            }
            rest.blanks()?;
            if !rest.literal(b"{")? {
                return Some(false);
            }
            rest.blanks()?;
            if !rest.literal(b"\"")? {
                return Some(false);
            }
            if rest.0.first()? == &b'e' {
                return rest.literal(b"error\"");
            }
            if !rest.literal(b"type\"")? {
                return Some(false);
            }
            rest.blanks()?;
            if !rest.literal(b":")? {
                return Some(false);
            }
            rest.blanks()?;
            rest.literal(b"\"error\"")
        }
        _ => Some(false),
    }
}

/// The part of a beginning that was not compared yet.
struct Beginning<'a>(&'a [u8]);

impl Beginning<'_> {
    /// Takes these bytes, if it goes on with them; `None` where it ends inside of them.
    fn literal(&mut self, expected: &[u8]) -> Option<bool> {
        if let Some(rest) = self.0.strip_prefix(expected) {
            self.0 = rest;
            return Some(true);
        }
        (!expected.starts_with(self.0)).then_some(false)
    }

    /// Takes the one space that may follow a field name; `None` at the end.
    fn space(&mut self) -> Option<()> {
        self.0.first()?;
        self.0 = self.0.strip_prefix(b" ").unwrap_or(self.0);
        Some(())
    }

    /// Takes blanks; `None` at the end.
    fn blanks(&mut self) -> Option<()> {
        let blanks = self
            .0
            .iter()
            .take_while(|octet| matches!(octet, b' ' | b'\t'));
        self.0 = &self.0[blanks.count()..];
        self.0.first().map(|_| ())
    }
}

/// The position of the empty line that ends an event.
fn end_of_event(octets: &[u8]) -> Option<usize> {
    let ends: [&[u8]; 3] = [b"\n\n", b"\n\r\n", b"\r\r"];
    let ends = ends.map(|end| memchr::memmem::find(octets, end));
    ends.into_iter().flatten().min()
}

/// The kind of an event whose data are complete.
fn kind(event: &[u8]) -> FirstEvent {
    let mut data = Vec::with_capacity(event.len());
    for line in event.split(|octet| matches!(octet, b'\r' | b'\n')) {
        if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }
    let data: Option<serde_json::Value> = serde_json::from_slice(&data).ok();
    match data.is_some_and(|data| data["error"]["type"] == "overloaded_error") {
        true => FirstEvent::Overloaded,
        false => FirstEvent::Other,
    }
}

/// The byte order mark that a stream may begin with, and that is skipped.
const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"details\":null,\
                         \"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

    /// The verdict, and after how many bytes it is known; `None` if not before the end.
    fn told(stream: &[u8]) -> (Option<usize>, FirstEvent) {
        let known = (0..=stream.len()).find_map(|at| Some((at, judge(&stream[..at], false)?)));
        match known {
            Some((at, verdict)) => {
                // what was told once stays so
                for more in at..=stream.len() {
                    assert_eq!(judge(&stream[..more], false), Some(verdict), "{more}");
                }
                (Some(at), verdict)
            }
            None => (None, judge(stream, true).unwrap()),
        }
    }

    #[test]
    fn an_overloaded_error_is_told_at_the_end_of_its_event() {
        let bare = ERROR.replace("event: error\n", "");
        let crlf = ERROR.replace('\n', "\r\n");
        let spaced =
            "data: { \"type\" : \"error\",\ndata: \"error\":{\"type\":\"overloaded_error\"}}\n\n";
        let turned = "data:{\"error\":{\"type\":\"overloaded_error\"}}\r\r";
        let marked = format!("\u{feff}{ERROR}");
        for stream in [ERROR, &bare, &crlf, spaced, turned, &marked] {
            let (at, verdict) = told(stream.as_bytes());
            assert_eq!(verdict, FirstEvent::Overloaded, "{stream}");
            assert!(at.unwrap() >= stream.len() - 1, "{stream}");
            // what follows changes nothing
            let more = format!("{stream}event: message_start\n\n");
            assert_eq!(told(more.as_bytes()), (at, verdict), "{stream}");
        }
        // relays end a stream without the empty line
        let (at, verdict) = told(ERROR.trim_end().as_bytes());
        assert_eq!((at, verdict), (None, FirstEvent::Overloaded));
    }

    #[test]
    fn anything_else_passes_with_its_first_octets() {
        for (stream, octets) in [
            (
                "event: message_start\ndata: {\"type\":\"message_start\"}\n\n",
                8,
            ),
            ("event: ping\n", 8),
            ("event: errors\n", 13),
            ("event:err0r\n", 10),
            (": comment\n\n", 1),
            ("\n", 1),
            ("id: 1\n", 1),
            ("data: [DONE]\n\n", 7),
            ("data: {\"type\":\"message_start\"", 16),
            ("data: {\"id\":1}", 9),
            ("data: {\"typ\":1}", 12),
            ("\u{feff}: comment\n", 4),
            ("\u{fe00}", 2),
        ] {
            let (at, verdict) = told(stream.as_bytes());
            assert_eq!((at, verdict), (Some(octets), FirstEvent::Other), "{stream}");
        }
    }

    #[test]
    fn another_error_or_one_without_an_end_passes() {
        let other = ERROR.replace("overloaded_error", "api_error");
        assert_eq!(told(other.as_bytes()).1, FirstEvent::Other);
        assert_eq!(told(b"event: error\ndata: {\n\n").1, FirstEvent::Other);
        assert_eq!(told(b"event: error\n\n").1, FirstEvent::Other);
        assert_eq!(told(b"").1, FirstEvent::Other);
        let endless = format!("event: error\ndata: {}", "x".repeat(LIMIT + 64));
        assert_eq!(told(endless.as_bytes()), (Some(LIMIT), FirstEvent::Other));
        let blanks = " ".repeat(LIMIT + 64);
        for stream in [
            format!("data:{blanks}"),
            format!("data: {{{blanks}"),
            format!("data: {{\"type\"{blanks}"),
            format!("\u{feff}{endless}"),
        ] {
            let (at, verdict) = told(stream.as_bytes());
            assert_eq!((at, verdict), (Some(LIMIT), FirstEvent::Other));
        }
    }
}
