//! Outcome of an edit, and its label in logs and metrics.

use std::ops::Range;

use crate::label::Label;

/// Outcome of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The text at this span of the original, quotes included, was replaced.
    Replaced {
        /// Offsets in the original.
        span: Range<u64>,
    },
    /// A block was inserted.
    Inserted {
        /// Offset in the original before which the block was inserted.
        at: u64,
        /// Presence of `cache_control` in the block.
        cache_control: CacheControl,
    },
    /// The body was forwarded unmodified.
    Unchanged(Unchanged),
}

/// Presence of `cache_control` in an inserted block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheControl {
    /// Present: `{"type":"ephemeral"}`.
    Ephemeral,
    /// Absent: the request has the maximum number of `cache_control`, or one with a `ttl`.
    Omitted,
}

/// Reason why a body was forwarded unmodified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchanged {
    /// The body is not JSON.
    NotJson,
    /// The body is no object, or has no `system`.
    NoSystem,
    /// Its `system` is no array.
    SystemNotArray,
    /// Its `system` is an empty array.
    Empty,
    /// Nothing follows the attribution block.
    TargetMissing,
    /// The system prompt block is no object, or its `text` is no string.
    TargetNotText,
}

impl Outcome {
    /// The bytes of the original that were replaced, none of them where a block was inserted.
    pub fn span(&self) -> Option<Range<u64>> {
        match self {
            Self::Replaced { span } => Some(span.clone()),
            Self::Inserted { at, .. } => Some(*at..*at),
            Self::Unchanged(_) => None,
        }
    }

    /// Label in logs and metrics.
    pub fn label(&self) -> Label {
        match self {
            Self::Replaced { .. } => Label::Replaced,
            Self::Inserted { .. } => Label::Inserted,
            Self::Unchanged(unchanged) => unchanged.label(),
        }
    }
}

impl Unchanged {
    /// Label in logs and metrics.
    pub fn label(self) -> Label {
        match self {
            Self::NotJson => Label::NotJson,
            Self::NoSystem => Label::NoSystem,
            Self::SystemNotArray => Label::SystemNotArray,
            Self::Empty => Label::SystemEmpty,
            Self::TargetMissing => Label::TargetMissing,
            Self::TargetNotText => Label::TargetNotText,
        }
    }
}
