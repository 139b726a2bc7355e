//! Source of a response's content.

use actix_http::body::BoxBody;

/// Body of the handler, as far as it was read.
pub(super) enum ContentSource {
    Open(BoxBody),
    /// Body that was read to its end, kept until it has arrived: its drop finishes the exchange.
    Ended(#[expect(dead_code, reason = "dropped at its time")] Option<BoxBody>),
    Failed,
}

impl ContentSource {
    pub(super) fn new(body: Option<BoxBody>) -> Self {
        body.map_or(Self::Ended(None), Self::Open)
    }

    pub(super) fn end(&mut self) {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Open(body) => Self::Ended(Some(body)),
            other => other,
        };
    }
}
