//! The upstream's list of models, without those that a key may not use.
//!
//! Entries that stay are those of the upstream, octet for octet. Only a list that ends here gets other
//! `first_id` and `last_id`; where more pages follow, they say where the next one begins.

use std::{
    future::poll_fn,
    ops::{ControlFlow, Range},
};

use bytes::{Bytes, BytesMut};

use crate::{
    config::Live,
    error::{DeniedError, ProxyError, UpstreamError},
    json::tokenizer::{Tokenizer, Visitor},
    metering,
    upstream::{ResponseBody, exchange::Response},
    wire::head::{Fields, ResponseHead},
};

/// A list of models that was read.
pub(super) struct ModelsList {
    head: ResponseHead,
    content: Vec<u8>,
}

/// A list of models that may be shown.
pub(in crate::proxy) struct FilteredList {
    pub(in crate::proxy) head: ResponseHead,
    pub(in crate::proxy) content: Bytes,
}

/// Reads the content of a response, without its content coding.
pub(super) async fn read(
    response: Response<ResponseBody>,
    live: &Live,
) -> Result<ModelsList, ProxyError> {
    let Response { head, mut body, .. } = response;
    let mut content = BytesMut::new();
    loop {
        let next = poll_fn(|cx| body.poll_content(cx));
        let next = tokio::time::timeout(live.timers.stream_idle, next).await;
        match next {
            Ok(Some(Ok(piece))) if content.len() + piece.len() <= LONGEST => {
                content.extend_from_slice(&piece);
            }
            Ok(Some(Ok(_))) => return Err(DeniedError::UnreadableModels.into()),
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(UpstreamError::ConnectionTerminated(None).into());
            }
            Err(_) => return Err(UpstreamError::HttpResponseTimeout.into()),
        }
    }
    let content = plain(&head.fields, &content).ok_or(DeniedError::UnreadableModels)?;
    Ok(ModelsList { head, content })
}

/// The content without its coding.
fn plain(fields: &Fields, content: &[u8]) -> Option<Vec<u8>> {
    let mut codings = fields.iter().filter(|it| it.is("content-encoding"));
    match (codings.next(), codings.next()) {
        (None, _) => Some(content.to_vec()),
        (Some(coding), None) => metering::decoded(content, Some(coding.value), LONGEST),
        (Some(_), Some(_)) => None,
    }
}

impl ModelsList {
    /// The list with the models that are allowed. None if it is no list of models.
    pub(super) fn filter(self, allows: impl Fn(&str) -> bool) -> Option<FilteredList> {
        let Self { head, content } = self;
        let content = filtered(content, allows)?;
        let length = content.len().to_string();
        let stays = |name: &[u8]| {
            // they describe the content that is not sent
            let gone: [&[u8]; 7] = [
                b"content-length",
                b"content-encoding",
                b"transfer-encoding",
                b"etag",
                b"content-md5",
                b"digest",
                b"content-digest",
            ];
            !gone.iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let fields = head.fields.iter().map(|field| (field.name, field.value));
        let fields = fields.filter(|(name, _)| stays(name));
        let fields = fields.chain([(&b"content-length"[..], length.as_bytes())]);
        Some(FilteredList {
            head: ResponseHead {
                fields: Fields::from_pairs(fields),
                status: head.status,
                reason: head.reason,
            },
            content: content.into(),
        })
    }
}

/// The content with the entries of `data` that are allowed.
fn filtered(content: Vec<u8>, allows: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let list = ListVisitor::read(&content)?;
    let is_allowed = |entry: &Entry| !entry.ids.is_empty() && entry.ids.iter().all(|id| allows(id));
    let (Some(first), Some(last)) = (list.entries.first(), list.entries.last()) else {
        return Some(content);
    };
    if list.entries.iter().all(is_allowed) {
        return Some(content);
    }
    let whole = first.span.start..last.span.end;
    let kept: Vec<&Entry> = list.entries.iter().filter(|it| is_allowed(it)).collect();
    let spans: Vec<&[u8]> = kept
        .iter()
        .filter_map(|entry| content.get(entry.span.clone()))
        .collect();
    let mut edits = vec![(whole, spans.join(&b","[..]))];
    if !list.has_more {
        let id = |entry: Option<&&Entry>| match entry.and_then(|entry| entry.spelling.clone()) {
            Some(span) => content.get(span).map(<[u8]>::to_vec),
            None => Some(b"null".to_vec()),
        };
        for (span, entry) in [(list.first_id, kept.first()), (list.last_id, kept.last())] {
            if let Some(span) = span {
                edits.push((span, id(entry)?));
            }
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    let (mut edited, mut at) = (Vec::with_capacity(content.len()), 0);
    for (span, text) in edits {
        edited.extend_from_slice(content.get(at..span.start)?);
        edited.extend_from_slice(&text);
        at = span.end;
    }
    edited.extend_from_slice(content.get(at..)?);
    Some(edited)
}

/// An entry of the list.
#[derive(Debug, Default)]
struct Entry {
    span: Range<usize>,
    /// Every `id` that it has.
    ids: Vec<String>,
    /// The last of them as it is spelt.
    spelling: Option<Range<usize>>,
}

/// Visitor that finds the entries of the top-level `data`, and the members that speak of pages.
#[derive(Debug, Default)]
struct ListVisitor {
    name: Member,
    reading: Member,
    /// Index of the octet that is read, and of the first one of a value.
    at: usize,
    start: usize,
    is_in_data: bool,
    lists: usize,
    entries: Vec<Entry>,
    has_more: bool,
    first_id: Option<Range<usize>>,
    last_id: Option<Range<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Member {
    #[default]
    Other,
    Data,
    Id,
    HasMore,
    FirstId,
    LastId,
    /// An entry that is no object.
    Scalar,
}

impl ListVisitor {
    /// None if the text is no JSON object with one list `data`.
    fn read(content: &[u8]) -> Option<Self> {
        let (mut tokenizer, mut list) = (Tokenizer::new(), Self::default());
        // octet by octet, so that the place of each end is known: a list is short
        for (at, octet) in content.iter().enumerate() {
            list.at = at;
            tokenizer.push(&[*octet], &mut list);
        }
        (tokenizer.is_complete() && list.lists == 1).then_some(list)
    }
}

impl Visitor for ListVisitor {
    const DEEPEST: u64 = 1024;

    fn reads_names(&self, depth: u64) -> bool {
        depth == 1 || (self.is_in_data && depth == 3)
    }

    fn name(&mut self, spelling: &[u8], _escapes: bool) {
        let name = unquoted(&[b"\"", spelling, b"\""].concat());
        self.name = match name.as_deref() {
            Some("data") => Member::Data,
            Some("id") => Member::Id,
            Some("has_more") => Member::HasMore,
            Some("first_id") => Member::FirstId,
            Some("last_id") => Member::LastId,
            _ => Member::Other,
        };
    }

    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool> {
        self.start = usize::try_from(at).unwrap_or(usize::MAX);
        self.reading = match (std::mem::take(&mut self.name), depth, first) {
            (Member::Data, 1, _) => {
                self.lists += 1;
                self.is_in_data = first == b'[';
                Member::Other
            }
            (Member::HasMore | Member::FirstId | Member::LastId, 1, b'{' | b'[') => Member::Other,
            (name @ (Member::HasMore | Member::FirstId | Member::LastId), 1, _) => name,
            (_, 2, _) if self.is_in_data => {
                self.entries.push(Entry {
                    span: self.start..self.start,
                    ..Entry::default()
                });
                match first {
                    b'{' | b'[' => Member::Other,
                    _ => Member::Scalar,
                }
            }
            (Member::Id, 3, b'"') if self.is_in_data => Member::Id,
            _ => Member::Other,
        };
        ControlFlow::Continue(self.reading != Member::Other)
    }

    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()> {
        let span = self.start..usize::try_from(end).unwrap_or(usize::MAX);
        match std::mem::take(&mut self.reading) {
            Member::HasMore => self.has_more = spelling == b"true",
            Member::FirstId => self.first_id = Some(span),
            Member::LastId => self.last_id = Some(span),
            Member::Id => {
                if let Some(entry) = self.entries.last_mut() {
                    // what cannot be read is allowed by no pattern
                    entry.ids.push(unquoted(spelling).unwrap_or_default());
                    entry.spelling = Some(span);
                }
            }
            Member::Scalar => {
                if let Some(entry) = self.entries.last_mut() {
                    entry.span.end = span.end;
                }
            }
            Member::Other | Member::Data => {}
        }
        ControlFlow::Continue(())
    }

    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        match depth {
            1 => self.is_in_data = false,
            2 if self.is_in_data => {
                if let Some(entry) = self.entries.last_mut() {
                    entry.span.end = self.at + 1;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn unquoted(spelling: &[u8]) -> Option<String> {
    serde_json::from_slice(spelling).ok()
}

/// Bytes of a list: Anthropic's has 300 for each model.
const LONGEST: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn only_haiku(text: &str) -> Option<String> {
        let filtered = filtered(text.as_bytes().to_vec(), |id| id.contains("haiku"));
        filtered.map(|content| String::from_utf8(content).unwrap())
    }

    #[test]
    fn entries_stay_as_they_are_and_pages_end_where_they_end() {
        for (text, expected) in [
            (
                r#"{ "data" : [ {"id":"opus"} , {"type":"model", "id" : "ha\u0069ku","x":[1.0e5]},{"id":"sonnet"}
                ],"has_more":false,"first_id":"opus","last_id":"sonnet"}"#,
                r#"{ "data" : [ {"type":"model", "id" : "ha\u0069ku","x":[1.0e5]}
                ],"has_more":false,"first_id":"ha\u0069ku","last_id":"ha\u0069ku"}"#,
            ),
            (
                r#"{"first_id":"haiku-1","last_id":"opus","data":[{"id":"haiku-1"},{"id":"haiku-2"},{"id":"opus"}],"has_more":true}"#,
                r#"{"first_id":"haiku-1","last_id":"opus","data":[{"id":"haiku-1"},{"id":"haiku-2"}],"has_more":true}"#,
            ),
            (
                r#"{"data":[{"id":"opus"}],"has_more":false,"first_id":"opus","last_id":"opus"}"#,
                r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#,
            ),
            (
                r#"{"data":[{"name":"haiku"},{"id":"opus","id":"haiku"},1,["haiku"],{"x":{"id":"haiku"}},{"id":"haiku"}]}"#,
                r#"{"data":[{"id":"haiku"}]}"#,
            ),
        ] {
            assert_eq!(only_haiku(text).as_deref(), Some(expected));
        }
        for unchanged in [
            r#"{"data":[]}"#,
            r#"{"data":[{"id":"haiku"}], "last_id":"haiku"}"#,
        ] {
            assert_eq!(only_haiku(unchanged).as_deref(), Some(unchanged));
        }
        for none in [
            "",
            "[]",
            "{}",
            r#"{"data":[{"id":"haiku"}]"#,
            r#"{"data":[{"id":"haiku"}],"data":[{"id":"opus"}]}"#,
            r#"{"models":[{"id":"haiku"}]}"#,
        ] {
            assert_eq!(only_haiku(none), None, "{none}");
        }
    }
}
