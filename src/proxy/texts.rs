//! Texts that come again and again: kept once by each worker, and shared.

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use crate::{secret::Secrets, telemetry::activity::masked};

/// Texts that are kept. Beyond, the oldest goes: a worker sees a few paths, methods, models and clients at a
/// time.
const KEPT: usize = 16;
/// Characters of a `User-Agent` that are kept.
const LONGEST_AGENT: usize = 256;

/// The last texts of a kind.
#[derive(Default)]
pub(super) struct TextCache(RefCell<Vec<Arc<str>>>);

impl TextCache {
    /// The text as one that is shared.
    pub(super) fn get(&self, text: &str) -> Arc<str> {
        let mut kept = self.0.borrow_mut();
        if let Some(known) = kept.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(Arc::clone(&new));
        new
    }
}

/// The last clients' own names.
#[derive(Default)]
pub(super) struct AgentCache(RefCell<Vec<ShownAgent>>);

/// A client's own name, as received and as it may be shown.
type ShownAgent = (Box<[u8]>, Option<Arc<str>>);

impl AgentCache {
    /// The beginning of a client's own name, without credentials and what is not printable.
    pub(super) fn shown(&self, value: Option<&[u8]>, secrets: &Secrets) -> Option<Arc<str>> {
        let value = value?;
        let text = String::from_utf8_lossy(value);
        // before it is cut: half a key is one, too
        let hidden = match secrets.hide(text.trim()) {
            Cow::Owned(hidden) => return agent(&hidden),
            Cow::Borrowed(hidden) => hidden,
        };
        let mut kept = self.0.borrow_mut();
        if let Some((_, known)) = kept.iter().find(|(known, _)| **known == *value) {
            return known.clone();
        }
        let new = agent(hidden);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((value.into(), new.clone()));
        new
    }
}

/// The beginning of a client's own name. What looks like a credential is masked: some clients have a key
/// there.
fn agent(text: &str) -> Option<Arc<str>> {
    let shown = |c: char| match c {
        ' '..='~' | '…' => c,
        _ => '?',
    };
    let mut text: String = text.chars().take(LONGEST_AGENT).map(shown).collect();
    while text.len() > LONGEST_AGENT {
        text.pop();
    }
    (!text.is_empty()).then(|| masked(&text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_come_again_are_shared_and_few_are_kept() {
        let texts = TextCache::default();
        let first = texts.get("/v1/messages");
        assert!(Arc::ptr_eq(&first, &texts.get("/v1/messages")));
        for number in 0..2 * KEPT {
            assert_eq!(&*texts.get(&number.to_string()), number.to_string());
        }
        assert_eq!(texts.0.borrow().len(), KEPT);
    }

    #[test]
    fn a_name_that_comes_again_is_shown_by_the_credentials_of_its_request() {
        let agents = AgentCache::default();
        let (mut none, mut one) = (Secrets::default(), Secrets::default());
        none.add("another");
        one.add("open-sesame");
        let value: &[u8] = b" claude-cli/2 open-sesame sk-ant-api03-abcdefgh\t";
        let shown = |secrets: &Secrets| agents.shown(Some(value), secrets);
        for _ in 0..2 {
            assert_eq!(
                shown(&none).as_deref(),
                Some("claude-cli/2 open-sesame sk-…")
            );
            assert_eq!(shown(&one).as_deref(), Some("claude-cli/2 … sk-…"));
        }
        assert_eq!(agents.shown(Some(b"  "), &none), None);
        assert_eq!(agents.shown(None, &none), None);
        let long = "é".repeat(300);
        let shown = agents.shown(Some(long.as_bytes()), &none).unwrap();
        assert_eq!(&*shown, "?".repeat(256));
    }
}
