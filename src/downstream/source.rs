//! Source of a response's content.

use actix_http::body::BoxBody;

/// The handler's body, as far as it was read.
pub(super) enum ContentSource {
    Open(BoxBody),
    /// Kept until all of it has arrived: its end writes the record of the exchange.
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
