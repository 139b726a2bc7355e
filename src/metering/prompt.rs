//! Digests of a request's prompt, part by part, as its body passes.
//!
//! A prompt cache reads `tools`, `system` and `messages` in this order, and what it has ends where two
//! prompts begin to differ. A [`PromptDigester`] tells where that is without keeping content: it hashes
//! names and values of each part as the tokenizer shows them, with SHA-256, of which 8 octets are kept.
//!
//! Two spellings of one prompt have one digest: white space is not hashed, neither is `cache_control`,
//! which clients move from turn to turn; a message whose content is a text is that of one block with this
//! text; and a block of `system` with a client's billing header, which the cache ignores, is left out.

use std::{mem, ops::ControlFlow};

use ring::digest::{Context, SHA256};

use crate::{
    exchange::PromptDigests,
    json::tokenizer::{Tokenizer, Visitor},
};

/// Incremental digests of one request.
#[derive(Debug)]
pub struct PromptDigester {
    tokenizer: Tokenizer,
    state: PromptState,
}

/// Position in the request, and what was found.
#[derive(Debug)]
struct PromptState {
    /// Containers that are open.
    depth: u64,
    /// Name of the member whose value comes next.
    name: Name,
    /// The part that is being read.
    part: Part,
    hash: Hash,
    /// Hash of the blocks of `system`, while one of them is being read.
    blocks: Option<Hash>,
    /// True if the block of `system` that is being read is left out.
    is_left_out: bool,
    /// True while a text is read that stands for a list of one block.
    is_text: bool,
    /// Depth of a container that is not hashed.
    skipped: Option<u64>,
    /// Offset in the text from which a value that is being passed is not hashed yet.
    open: Option<u64>,
    /// Offset of the chunk in the text.
    base: u64,
    /// Parameters are hashed in the order of their names here.
    parameters: [Option<u64>; 2],
    found: PromptDigests,
}

/// The state with the chunk that is being read.
struct ChunkVisitor<'a> {
    chunk: &'a [u8],
    state: &'a mut PromptState,
}

/// Names that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Name {
    #[default]
    Other,
    Part(Part),
    /// `content`
    Content,
    /// `cache_control`
    CacheControl,
}

/// Part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    None,
    Tools,
    System,
    Messages,
    Thinking,
    ToolChoice,
}

impl Default for PromptDigester {
    fn default() -> Self {
        Self::new()
    }
}

impl PromptDigester {
    /// Makes digests before the first byte.
    pub fn new() -> Self {
        Self {
            tokenizer: Tokenizer::new(),
            state: PromptState {
                depth: 0,
                name: Name::Other,
                part: Part::None,
                hash: Hash::default(),
                blocks: None,
                is_left_out: false,
                is_text: false,
                skipped: None,
                open: None,
                base: 0,
                parameters: [None; 2],
                found: PromptDigests::default(),
            },
        }
    }

    /// Reads the next bytes of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.tokenizer.is_invalid() {
            return;
        }
        let state = &mut self.state;
        self.tokenizer
            .push(chunk, &mut ChunkVisitor { chunk, state });
        let state = &mut self.state;
        let end = state.base + chunk.len() as u64;
        if let Some(from) = state.open {
            state.hash.add(since(chunk, from, state.base));
            state.open = Some(end);
        }
        state.base = end;
    }

    /// Digests of the body, which has ended; none if it is not one JSON text.
    pub fn finish(self) -> Option<PromptDigests> {
        let PromptState {
            parameters,
            mut found,
            ..
        } = self.state;
        if parameters != [None; 2] {
            let mut hash = Hash::default();
            for parameter in parameters {
                hash.add(&parameter.unwrap_or_default().to_be_bytes());
            }
            found.parameters = Some(hash.finish());
        }
        self.tokenizer.is_complete().then_some(found)
    }
}

impl Visitor for ChunkVisitor<'_> {
    const DEEPEST: u64 = DEEPEST;

    #[inline]
    fn reads_names(&self, depth: u64) -> bool {
        depth == ROOT || (self.state.part != Part::None && self.state.skipped.is_none())
    }

    #[inline]
    fn name(&mut self, spelling: &[u8], _escapes: bool) {
        let state = &mut *self.state;
        if state.depth == ROOT {
            state.name = Name::Part(match spelling {
                b"tools" => Part::Tools,
                b"system" => Part::System,
                b"messages" => Part::Messages,
                b"thinking" => Part::Thinking,
                b"tool_choice" => Part::ToolChoice,
                _ => Part::None,
            });
            return;
        }
        if spelling == b"cache_control" {
            state.name = Name::CacheControl;
            return;
        }
        let is_content = state.part == Part::Messages && state.depth == MEMBERS;
        if is_content && spelling == b"content" {
            state.name = Name::Content;
        }
        state.hash.add(NAME);
        state.hash.add(spelling);
    }

    #[inline]
    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool> {
        let state = &mut *self.state;
        let is_container = matches!(first, b'{' | b'[');
        if is_container {
            state.depth = depth + 1;
        }
        let name = mem::take(&mut state.name);
        if depth == ROOT {
            state.part = match name {
                Name::Part(part) => part,
                Name::Other | Name::Content | Name::CacheControl => Part::None,
            };
            state.hash.reset();
            if state.part == Part::Messages {
                // the last of duplicates counts
                state.found.messages.clear();
            }
        }
        if state.part == Part::None || state.skipped.is_some() {
            return ControlFlow::Continue(false);
        }
        if name == Name::CacheControl {
            state.skipped = is_container.then_some(depth);
            return ControlFlow::Continue(false);
        }
        if depth == ELEMENTS {
            match state.part {
                Part::Messages => state.hash.reset(),
                Part::System => state.begin_block(),
                Part::None | Part::Tools | Part::Thinking | Part::ToolChoice => {}
            }
        }
        if is_container {
            state.hash.add(&[first]);
            return ControlFlow::Continue(false);
        }
        let is_system = state.part == Part::System && depth == ROOT;
        state.is_text = first == b'"' && (name == Name::Content || is_system);
        if state.is_text {
            state.hash.add(LIST);
            if is_system {
                state.begin_block();
            }
            state.hash.add(TEXT_BLOCK);
        } else {
            state.hash.add(VALUE);
        }
        state.open = Some(at);
        ControlFlow::Continue(true)
    }

    #[inline]
    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()> {
        let state = &mut *self.state;
        if let Some(from) = state.open.take() {
            let rest = since(self.chunk, from, state.base);
            let until = usize::try_from(end.saturating_sub(from.max(state.base)));
            let until = until.unwrap_or(usize::MAX).min(rest.len());
            state.hash.add(rest.get(..until).unwrap_or_default());
        }
        if state.part == Part::System && state.depth == MEMBERS && spelling.starts_with(BILLING) {
            state.is_left_out = true;
        }
        if mem::take(&mut state.is_text) {
            state.hash.add(CLOSED);
            match state.part {
                Part::System => state.ended(ELEMENTS),
                _ => state.hash.add(CLOSED),
            }
        }
        state.ended(state.depth);
        ControlFlow::Continue(())
    }

    #[inline]
    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        let state = &mut *self.state;
        state.depth = depth;
        match state.skipped {
            Some(skipped) if skipped == depth => state.skipped = None,
            Some(_) => {}
            None if state.part != Part::None => {
                // the list of messages, or of blocks, is no part of theirs
                let is_list = depth == ROOT && matches!(state.part, Part::System | Part::Messages);
                if !is_list {
                    state.hash.add(CLOSED);
                }
                state.ended(depth);
            }
            None => {}
        }
        ControlFlow::Continue(())
    }
}

impl PromptState {
    /// A block of `system` begins.
    fn begin_block(&mut self) {
        self.blocks = Some(mem::take(&mut self.hash));
    }

    /// A value that was at this depth has ended.
    fn ended(&mut self, depth: u64) {
        match (depth, self.part) {
            (ELEMENTS, Part::Messages) => {
                let digest = self.hash.finish();
                self.found.add_message(digest);
            }
            (ELEMENTS, Part::System) => {
                let Some(mut blocks) = self.blocks.take() else {
                    return;
                };
                let digest = self.hash.finish();
                if !mem::take(&mut self.is_left_out) {
                    blocks.add(&digest.to_be_bytes());
                }
                self.hash = blocks;
            }
            (ROOT, part) => {
                let digest = self.hash.finish();
                match part {
                    Part::Tools => self.found.tools = Some(digest),
                    Part::System => self.found.system = Some(digest),
                    Part::Thinking => self.parameters[0] = Some(digest),
                    Part::ToolChoice => self.parameters[1] = Some(digest),
                    Part::Messages | Part::None => {}
                }
                self.part = Part::None;
            }
            _ => {}
        }
    }
}

/// The bytes of a chunk from an offset in the text on; the chunk begins at `base`.
fn since(chunk: &[u8], from: u64, base: u64) -> &[u8] {
    let at = usize::try_from(from.saturating_sub(base)).unwrap_or(usize::MAX);
    chunk.get(at..).unwrap_or_default()
}

/// SHA-256 of pieces, of which short ones are gathered.
#[derive(Default)]
struct Hash {
    context: Option<Context>,
    short: Vec<u8>,
}

impl Hash {
    #[inline]
    fn add(&mut self, piece: &[u8]) {
        if piece.len() > SHORT {
            self.flush();
            if let Some(context) = &mut self.context {
                context.update(piece);
            }
            return;
        }
        if self.short.len() + piece.len() > GATHERED {
            self.flush();
        }
        self.short.extend_from_slice(piece);
    }

    fn flush(&mut self) {
        let context = self.context.get_or_insert_with(|| Context::new(&SHA256));
        context.update(&self.short);
        self.short.clear();
    }

    fn reset(&mut self) {
        self.context = None;
        self.short.clear();
    }

    /// The first 8 octets of the digest; the hash begins anew.
    fn finish(&mut self) -> u64 {
        self.flush();
        let digest = self.context.take().map(Context::finish);
        let first = digest.as_ref().and_then(|it| it.as_ref().first_chunk());
        first.copied().map_or(0, u64::from_be_bytes)
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // what is gathered is content
        f.debug_struct("Hash").finish_non_exhaustive()
    }
}

/// Depth of the members of a request, as the tokenizer counts: containers that are open.
const ROOT: u64 = 1;
/// Depth of messages and blocks of `system`.
const ELEMENTS: u64 = 2;
/// Depth of a message's members.
const MEMBERS: u64 = 3;
/// Levels of nesting that are read: each costs one bit.
const DEEPEST: u64 = 64 * 1024;
/// Before a name.
const NAME: &[u8] = b",";
/// Before a value that is no container.
const VALUE: &[u8] = b":";
/// At the end of a container.
const CLOSED: &[u8] = b"}";
/// Beginning of a list, before a text that stands for one.
const LIST: &[u8] = b"[";
/// Beginning of a block, before a text that stands for one.
const TEXT_BLOCK: &[u8] = b"{,type:\"text\",text:";
/// Beginning of the text with which Claude Code tells the version of the client.
const BILLING: &[u8] = b"\"x-anthropic-billing-header:";
/// Pieces up to this length are gathered.
const SHORT: usize = 256;
/// Bytes that are gathered before they are hashed.
const GATHERED: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::*;

    fn digests(body: &str) -> PromptDigests {
        let whole = in_chunks(body, body.len().max(1)).unwrap();
        for size in [1, 2, 3, 7, 64, 100] {
            assert_eq!(
                in_chunks(body, size).as_ref(),
                Some(&whole),
                "{size}: {body}"
            );
        }
        whole
    }

    fn in_chunks(body: &str, size: usize) -> Option<PromptDigests> {
        let mut digester = PromptDigester::new();
        body.as_bytes()
            .chunks(size)
            .for_each(|it| digester.push(it));
        digester.finish()
    }

    fn of(body: &Value) -> PromptDigests {
        digests(&body.to_string())
    }

    #[test]
    fn each_part_has_a_digest_of_its_own() {
        let base = json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
                {"role": "user", "content": "three"},
            ],
            "system": [{"type": "text", "text": "be kind"}],
            "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 7,
        });
        let whole = of(&base);
        assert_eq!(whole.messages.len(), 3);
        let changed = |pointer: &str, value: Value| {
            let mut other = base.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            of(&other)
        };
        let tools = changed("/tools/0/name", json!("Bush"));
        assert_ne!(tools.tools, whole.tools);
        assert_eq!(
            PromptDigests {
                tools: whole.tools,
                ..tools
            },
            whole
        );
        let system = changed("/system/0/text", json!("be cold"));
        assert_ne!(system.system, whole.system);
        assert_eq!(
            PromptDigests {
                system: whole.system,
                ..system
            },
            whole
        );
        let thinking = changed("/thinking/budget_tokens", json!(2048));
        assert_ne!(thinking.parameters, whole.parameters);
        assert_eq!(
            PromptDigests {
                parameters: whole.parameters,
                ..thinking
            },
            whole
        );
        let message = changed("/messages/1/content/0/text", json!("2"));
        assert_eq!(
            (message.common(&whole), message.messages[2]),
            (1, whole.messages[2])
        );
        assert_eq!(changed("/max_tokens", json!(8)), whole);
        assert_eq!(changed("/model", json!("n")), whole);
    }

    #[test]
    fn two_spellings_of_a_prompt_are_one() {
        let one = r#"{"system":"s","messages":[{"role":"user","content":"a\nb"}],"tools":[{"name":"t"}]}"#;
        let other = r#" {"tools" : [ {"name":"t","cache_control":{"type":"ephemeral","ttl":"1h"}} ],
            "messages":[{"role":"user","content":[{"type":"text","text":"a\nb","cache_control":{"type":"ephemeral"}}]}],
            "system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330.440; cc_entrypoint=cli;"},
                      {"type":"text","text":"s","cache_control":null}]}"#;
        assert_eq!(digests(one), digests(other));
        let structure = |text: &str| digests(text).messages[0];
        assert_ne!(
            structure(r#"{"messages":[{"a":["b"],"c":1}]}"#),
            structure(r#"{"messages":[{"a":["b","c"]}]}"#)
        );
        assert_ne!(
            structure(r#"{"messages":[{"a":[1],"b":2}]}"#),
            structure(r#"{"messages":[{"a":[1,2]}]}"#)
        );
    }

    #[test]
    fn what_is_no_json_has_none() {
        for body in ["", "{", r#"{"messages":[{"role":"user"}"#, "[1,]", "x"] {
            assert_eq!(in_chunks(body, 3), None, "{body}");
        }
        assert_eq!(digests("[]"), PromptDigests::default());
        assert_eq!(digests(r#"[{"messages":[1]}]"#), PromptDigests::default());
        assert_eq!(
            digests(r#"{"messages":[1,2],"messages":["a",null,[]]}"#)
                .messages
                .len(),
            3
        );
    }

    #[test]
    fn debug_shows_no_content() {
        let mut digester = PromptDigester::new();
        digester.push(br#"{"system":"canary","messages":[{"role":"user","content":"canary"#);
        assert!(!format!("{digester:?}").contains("canary"));
    }

    fn message() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            Just(Value::Null),
            prop::collection::vec(any::<char>(), 0..400)
                .prop_map(|it| it.into_iter().collect::<String>().into()),
        ];
        let value = text.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,9}", inner, 0..3)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        });
        value.prop_map(|value| json!({"role": "user", "content": value}))
    }

    proptest! {
        #[test]
        fn digests_tell_messages_apart_whatever_the_chunks(
            messages in prop::collection::vec(message(), 1..6),
            size in 1_usize..200,
        ) {
            let body = json!({"messages": messages}).to_string();
            let found = in_chunks(&body, size).unwrap();
            prop_assert_eq!(found.messages.len(), messages.len());
            for (one, digest) in messages.iter().zip(&found.messages) {
                for (other, same) in messages.iter().zip(&found.messages) {
                    prop_assert_eq!(one == other, digest == same, "{} {}", one, other);
                }
            }
        }
    }
}
