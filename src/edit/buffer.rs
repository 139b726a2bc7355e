//! Bounded buffer of a request body that is to be edited.
//!
//! A [`BodyBuffer`] takes the chunks of a request body as they arrive and scans each at once, unless the caller
//! reads them anyway and brings a [`Scan`]; when the body has ended, [`BodyBuffer::finish`] splices the edit in. Until then nothing may leave, since a body
//! that turns out not to be JSON must go out as it came. The caller bounds the number of bytes and of
//! buffers: it reads [`BodyBuffer::len`] and may call [`BodyBuffer::release`] at any time.

use bytes::Bytes;

use super::{
    outcome::Outcome,
    parts::BodyParts,
    scanner::{Scan, ScanResult, Scanner},
    system,
};
use crate::{
    config::{EditMode, EditTarget},
    metering::RequestDetails,
    wire::chunks::ChunkBuffer,
};

/// Buffer of a body until its end.
pub struct BodyBuffer {
    mode: EditMode,
    target: EditTarget,
    scanner: Scanning,
    content: ChunkBuffer,
}

/// Place where the body is scanned.
enum Scanning {
    /// Here, as it comes.
    Here(Scanner),
    /// By the caller, who brings the scan at the end.
    Elsewhere,
    /// The scan has ended. None if the body is not one JSON text.
    Done(Option<ScanResult>),
}

impl Scanning {
    fn finish(self) -> Option<ScanResult> {
        match self {
            Self::Here(scanner) => scanner.finish(),
            Self::Done(found) => found,
            Self::Elsewhere => None,
        }
    }
}

impl BodyBuffer {
    /// Makes an empty buffer.
    pub fn new(mode: EditMode, target: EditTarget) -> Self {
        Self {
            mode,
            target,
            scanner: Scanning::Here(Scanner::new()),
            content: ChunkBuffer::default(),
        }
    }

    /// Makes an empty buffer of a body that the caller scans.
    pub fn unscanned(mode: EditMode, target: EditTarget) -> Self {
        Self {
            mode,
            target,
            scanner: Scanning::Elsewhere,
            content: ChunkBuffer::default(),
        }
    }

    /// Takes the scan of the whole body, which has ended. None if it is not one JSON text.
    pub fn scanned(&mut self, scan: Option<Scan>) {
        self.scanner = Scanning::Done(scan.map(Scan::found));
    }

    /// Takes and scans the next chunk of the body.
    pub fn push(&mut self, chunk: Bytes) {
        if let Scanning::Here(scanner) = &mut self.scanner {
            scanner.scan(&chunk);
        }
        self.content.push(chunk);
    }

    /// Number of bytes held.
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// Reports whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Details of the request, as far as the body came: `model`, `stream` and `max_tokens` at its
    /// top level. The last of duplicates counts. None where the caller scans.
    pub fn asked(&self) -> Option<RequestDetails> {
        match &self.scanner {
            Scanning::Here(scanner) => Some(scanner.asked().clone()),
            Scanning::Elsewhere | Scanning::Done(_) => None,
        }
    }

    /// Gives all bytes back, untouched: the body is too large, or the edit is no longer wanted.
    pub fn release(self) -> BodyParts {
        self.content.finish()
    }

    /// Edits the body as [`BodyBuffer::finish`] does, and gives it as it was, too.
    pub fn finish_both(self, replacement: &Bytes) -> (BodyParts, Outcome, BodyParts) {
        let held = self.content.finish();
        let found = self.scanner.finish();
        let (body, outcome) =
            system::edit(held.clone(), found, self.mode, self.target, replacement);
        (body, outcome, held)
    }

    /// Edits the body, which has ended. `replacement` is a JSON string, quotes included.
    pub fn finish(self, replacement: &Bytes) -> (BodyParts, Outcome) {
        system::edit(
            self.content.finish(),
            self.scanner.finish(),
            self.mode,
            self.target,
            replacement,
        )
    }
}

impl std::fmt::Debug for BodyBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyBuffer")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Strategy, prop, prop::sample::select, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;
    use crate::{
        metering::RequestInspector,
        wire::chunks::{SMALL, TAIL},
    };

    fn hold(chunks: &[&[u8]]) -> BodyBuffer {
        let mut hold = BodyBuffer::new(EditMode::Replace, EditTarget::Prompt);
        for chunk in chunks {
            hold.push(Bytes::copy_from_slice(chunk));
        }
        hold
    }

    #[test]
    fn the_edit_is_made_at_the_end() {
        let replacement = Bytes::from_static(b"\"new\"");
        let (body, outcome) =
            hold(&[b"{\"system\":[{\"te", b"xt\":\"ol", b"d\"}]}"]).finish(&replacement);
        assert_eq!(body.concat(), b"{\"system\":[{\"text\":\"new\"}]}");
        assert_eq!(outcome, Outcome::Replaced { span: 19..24 });
        let (body, outcome) =
            hold(&[b"{\"system\":[{\"text\":\"old\"}]", b"x"]).finish(&replacement);
        assert_eq!(body.concat(), b"{\"system\":[{\"text\":\"old\"}]x");
        assert_eq!(outcome.label().text(), "not_json");
    }

    #[test]
    fn large_chunks_are_neither_copied_nor_joined() {
        let head = Bytes::from(format!("{{\"a\":\"{}", "x".repeat(SMALL)));
        let tail = Bytes::from(format!(
            "{}\",\"system\":[{{\"text\":\"old\"}}]}}",
            "y".repeat(SMALL)
        ));
        let mut hold = BodyBuffer::new(EditMode::Replace, EditTarget::Prompt);
        hold.push(head.clone());
        hold.push(tail.clone());
        assert_eq!(hold.len(), (head.len() + tail.len()) as u64);
        let replacement = Bytes::from_static(b"\"new\"");
        let (body, _) = hold.finish(&replacement);
        let [first, second, third, fourth] = &body[..] else {
            panic!("{} parts", body.len())
        };
        assert_eq!(first.as_ptr(), head.as_ptr());
        assert_eq!(second.as_ptr(), tail.as_ptr());
        assert_eq!(third.as_ptr(), replacement.as_ptr());
        assert_eq!(fourth.as_ref(), b"}]}");
    }

    #[test]
    fn single_octets_cost_a_single_octet_each() {
        let octets = vec![b'['; 200_000];
        let mut hold = hold(&octets.chunks(1).collect::<Vec<_>>());
        assert!(hold.content.parts() <= octets.len() / TAIL + 1);
        hold.push(Bytes::from(vec![b'{'; SMALL]));
        hold.push(Bytes::from_static(b"}"));
        let expected = [&octets[..], &[b'{'; SMALL], b"}"].concat();
        assert_eq!(hold.len(), expected.len() as u64);
        assert_eq!(hold.release().concat(), expected);
    }

    /// A member of a request, of those that matter and others, spelt in more ways than one.
    fn member() -> impl Strategy<Value = String> {
        let names = [
            "model",
            "stream",
            "max_tokens",
            "mod\\u0065l",
            "max\\u005ftokens",
            "system",
            "a",
        ];
        let values = [
            "true",
            "false",
            "null",
            "0",
            "32000",
            "-1",
            "1.5",
            "18446744073709551616",
            "\"claude-x\"",
            "\"cl\\u0061ude\\\\\"",
            "\"a\\nb\"",
            "{\"model\":\"no\",\"stream\":false,\"max_tokens\":9}",
            "[{\"max_tokens\":8}]",
            "[]",
            "{}",
        ];
        let long = (0..1_000_usize).prop_map(|len| format!("\"{}\"", "m".repeat(len)));
        let value = prop_oneof![8 => select(values.to_vec()).prop_map(str::to_owned), 1 => long];
        let space = select(vec!["", " ", "\n\t"]);
        (select(names.to_vec()), value, space)
            .prop_map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}"))
    }

    /// What serde_json says that a request asks for.
    fn truth(body: &str) -> RequestDetails {
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        // an empty name is none
        let is_name =
            |model: &&str| (1..=128).contains(&model.len()) && !model.chars().any(char::is_control);
        RequestDetails {
            model: value["model"].as_str().filter(is_name).map(Into::into),
            is_stream: value["stream"].as_bool(),
            max_tokens: value["max_tokens"].as_u64(),
        }
    }

    proptest! {
        #[test]
        fn what_a_held_body_asks_for_is_what_others_read_in_it(
            members in prop::collection::vec(member(), 0..8),
            sizes in prop::collection::vec(1usize..5_000, 1..6),
        ) {
            let body = format!("{{{}}}", members.join(","));
            let mut hold = BodyBuffer::new(EditMode::Replace, EditTarget::Prompt);
            let mut rest = body.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*size));
                hold.push(Bytes::copy_from_slice(chunk));
                rest = after;
            }
            let asked = hold.asked().unwrap();
            prop_assert_eq!(&asked, &truth(&body), "{}", body);
            // a look ends where it has all three: without duplicates that makes no difference
            let mut look = RequestInspector::new();
            look.push(body.as_bytes());
            look.end();
            let names = |name: &str| body.matches(name).count();
            let nested = names("{\"model\":\"no\"");
            let is_once = ["model", "mod\\u0065l"].map(names).iter().sum::<usize>() - nested <= 1
                && names("\"stream\"") - nested <= 1;
            if is_once {
                prop_assert_eq!(look.finish(), asked, "{}", body);
            }
        }
    }

    #[test]
    fn a_body_that_has_not_ended_says_what_it_said_so_far() {
        let hold = hold(&[
            b"{\"model\":\"m\",\"stream\":true,",
            b"\"max_tok",
            b"ens\":3",
        ]);
        let asked = hold.asked().unwrap();
        assert_eq!(
            (asked.model.as_deref(), asked.is_stream),
            (Some("m"), Some(true))
        );
        assert_eq!(asked.max_tokens, None);
        assert_eq!(
            BodyBuffer::new(EditMode::Replace, EditTarget::Prompt)
                .asked()
                .unwrap(),
            RequestDetails::default()
        );
    }

    #[test]
    fn debug_shows_no_octet() {
        assert_eq!(
            format!("{:?}", hold(&[b"\"secret\""])),
            "BodyBuffer { len: 8, .. }"
        );
    }
}
