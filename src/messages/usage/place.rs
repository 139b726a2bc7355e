//! Which members of a JSON text are of note: where they stand and what they are called.

/// An object whose members are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A request.
    Request,
    /// An answer that is not streamed.
    Answer,
    /// The data of an event.
    Event,
    /// `message` of `message_start`.
    Message,
    /// `delta` of `message_delta`.
    Delta,
    /// `error`
    Error,
    /// `usage`
    Usage,
    /// `usage.cache_creation`
    CacheCreation,
    /// `usage.server_tool_use`
    ServerTools,
}

/// A member whose value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// `type` of an event.
    Type,
    /// `model`
    Model,
    /// `stream`
    Stream,
    /// `max_tokens`
    MaxTokens,
    /// `stop_reason`
    StopReason,
    /// `error.type`
    ErrorType,
    /// `input_tokens`
    Input,
    /// `output_tokens`
    Output,
    /// `cache_read_input_tokens`
    CacheRead,
    /// `cache_creation_input_tokens`
    CacheWrite,
    /// `ephemeral_5m_input_tokens`
    CacheWrite5m,
    /// `ephemeral_1h_input_tokens`
    CacheWrite1h,
    /// Requests of one of the server tools.
    ServerTool,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    /// Of no interest.
    Other,
    /// If it is an object, its members are looked at.
    Object(Place),
    /// Its value is read.
    Leaf(Leaf),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An object of note begins.
    Object(Place),
    /// A string: Unicode without control characters, not too long.
    Text(Leaf, &'a str),
    /// A whole number.
    Number(Leaf, u64),
    /// `true` or `false`.
    Bool(Leaf, bool),
    /// Some other value.
    Other(Leaf),
}

impl Place {
    /// What the member of this name is; the name with its escapes undone.
    pub(super) fn member(self, name: &[u8]) -> Member {
        use Member::{Leaf as L, Object as O};
        match (self, name) {
            (Self::Request | Self::Answer | Self::Message, b"model") => L(Leaf::Model),
            (Self::Request, b"stream") => L(Leaf::Stream),
            (Self::Request, b"max_tokens") => L(Leaf::MaxTokens),
            (Self::Answer | Self::Delta, b"stop_reason") => L(Leaf::StopReason),
            (Self::Answer | Self::Event | Self::Message, b"usage") => O(Self::Usage),
            (Self::Answer | Self::Event, b"error") => O(Self::Error),
            (Self::Event, b"type") => L(Leaf::Type),
            (Self::Event, b"message") => O(Self::Message),
            (Self::Event, b"delta") => O(Self::Delta),
            (Self::Error, b"type") => L(Leaf::ErrorType),
            (Self::Usage, b"input_tokens") => L(Leaf::Input),
            (Self::Usage, b"output_tokens") => L(Leaf::Output),
            (Self::Usage, b"cache_read_input_tokens") => L(Leaf::CacheRead),
            (Self::Usage, b"cache_creation_input_tokens") => L(Leaf::CacheWrite),
            (Self::Usage, b"cache_creation") => O(Self::CacheCreation),
            (Self::Usage, b"server_tool_use") => O(Self::ServerTools),
            (Self::CacheCreation, b"ephemeral_5m_input_tokens") => L(Leaf::CacheWrite5m),
            (Self::CacheCreation, b"ephemeral_1h_input_tokens") => L(Leaf::CacheWrite1h),
            (Self::ServerTools, _) => L(Leaf::ServerTool),
            _ => Member::Other,
        }
    }
}
