//! Reads `usage.iterations`: usage of a response besides that of its own message.
//!
//! The counts of `usage` are those of the response's own message. An entry `compaction` is billed
//! beside them under the same model, `advisor_message` under the model that it names; `message` and
//! `fallback_message` are in the counts already. An entry of another type becomes a metering
//! failure.

use super::counts::UsageCounts;
use crate::exchange::{OtherModel, Tokens};

/// The entries of one `iterations`.
#[derive(Debug, Default)]
pub(super) struct Iterations {
    compactions: Vec<Tokens>,
    others: Vec<OtherModel>,
    /// The entry that is being read.
    open: Option<IterationEntry>,
    is_unread: bool,
}

#[derive(Debug, Default)]
struct IterationEntry {
    kind: IterationKind,
    model: Option<Box<str>>,
    counts: UsageCounts,
}

#[derive(Debug, Default)]
enum IterationKind {
    /// Part of the counts of `usage`.
    Message,
    Compaction,
    Advisor,
    #[default]
    Unknown,
}

impl Iterations {
    /// Begins an entry.
    pub(super) fn begin(&mut self) {
        self.open = Some(IterationEntry::default());
    }

    /// Reports whether an entry has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn is_of_type(&mut self, name: &str) {
        if let Some(entry) = &mut self.open {
            entry.kind = match name {
                "message" | "fallback_message" => IterationKind::Message,
                "compaction" => IterationKind::Compaction,
                "advisor_message" => IterationKind::Advisor,
                _ => IterationKind::Unknown,
            };
        }
    }

    pub(super) fn is_of_model(&mut self, model: Option<&str>) {
        if let Some(entry) = &mut self.open {
            entry.model = model.map(Into::into);
        }
    }

    /// The counts of the entry that is open.
    pub(super) fn counts(&mut self) -> &mut UsageCounts {
        &mut self.open.get_or_insert_default().counts
    }

    /// Ends the entry.
    pub(super) fn end(&mut self) {
        let Some(IterationEntry {
            kind,
            model,
            counts,
        }) = self.open.take()
        else {
            return;
        };
        let tokens = counts.tokens();
        match (kind, model) {
            (IterationKind::Message, _) => {}
            (IterationKind::Compaction, _) if self.compactions.len() < MOST_COMPACTIONS => {
                self.compactions.push(tokens);
            }
            (IterationKind::Advisor, Some(model)) if self.others.len() < MOST_OTHERS => {
                self.others.push(OtherModel {
                    model,
                    tokens,
                    cost: None,
                });
            }
            (IterationKind::Compaction | IterationKind::Advisor | IterationKind::Unknown, _) => {
                self.is_unread = true
            }
        }
    }

    /// Reports whether some entry could not be read.
    pub(super) fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// Selects the entries of the event that used more: they are cumulative, too.
    pub(super) fn larger(self: Box<Self>, later: Box<Self>) -> Box<Self> {
        if later.sum() >= self.sum() {
            later
        } else {
            self
        }
    }

    fn sum(&self) -> u64 {
        let others = self.others.iter().map(|other| &other.tokens);
        self.compactions
            .iter()
            .chain(others)
            .fold(0, |sum, tokens| sum.saturating_add(tokens.all()))
    }

    /// Usage of the compactions, and of other models.
    pub(super) fn finish(self) -> (Vec<Tokens>, Vec<OtherModel>) {
        (self.compactions, self.others)
    }
}

/// Entries that are kept of one answer: compactions, and calls of advisors.
const MOST_COMPACTIONS: usize = 64;
const MOST_OTHERS: usize = 64;
