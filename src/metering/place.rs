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
    /// `usage.iterations`, an array.
    Iterations,
    /// An element of it.
    Iteration,
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
    /// `error.code`
    ErrorCode,
    /// `inference_geo`
    InferenceGeo,
    /// `speed`
    Speed,
    /// `service_tier`
    ServiceTier,
    /// `type` of an iteration.
    IterationType,
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
    /// `web_search_requests`
    WebSearch,
    /// Requests of another of the server tools.
    ServerTool,
}

impl Leaf {
    /// Whether a count is expected.
    pub(super) fn is_count(self) -> bool {
        match self {
            Self::Input
            | Self::Output
            | Self::CacheRead
            | Self::CacheWrite
            | Self::CacheWrite5m
            | Self::CacheWrite1h
            | Self::WebSearch
            | Self::ServerTool => true,
            Self::Type
            | Self::Model
            | Self::Stream
            | Self::MaxTokens
            | Self::StopReason
            | Self::ErrorType
            | Self::ErrorCode
            | Self::InferenceGeo
            | Self::Speed
            | Self::ServiceTier
            | Self::IterationType => false,
        }
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    /// Of no interest.
    Other,
    /// If it is an object, its members are looked at.
    Object(Place),
    /// If it is an array, the members of its objects are looked at.
    Array(Place),
    /// Its value is read.
    Leaf(Leaf),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An object of note begins, or an array; or a string stands where an error may.
    Object(Place),
    /// An element of an array of note has ended.
    Left(Place),
    /// A string: Unicode without control characters, not too long.
    Text(Leaf, &'a str),
    /// A whole number.
    Number(Leaf, u64),
    /// `true` or `false`.
    Bool(Leaf, bool),
    /// `null`
    Null(Leaf),
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
            (Self::Error, b"code") => L(Leaf::ErrorCode),
            (Self::Usage | Self::Iteration, b"input_tokens") => L(Leaf::Input),
            (Self::Usage | Self::Iteration, b"output_tokens") => L(Leaf::Output),
            (Self::Usage | Self::Iteration, b"cache_read_input_tokens") => L(Leaf::CacheRead),
            (Self::Usage | Self::Iteration, b"cache_creation_input_tokens") => L(Leaf::CacheWrite),
            (Self::Usage | Self::Iteration, b"cache_creation") => O(Self::CacheCreation),
            (Self::Usage, b"server_tool_use") => O(Self::ServerTools),
            (Self::Usage, b"iterations") => Member::Array(Self::Iterations),
            (Self::Usage, b"inference_geo") => L(Leaf::InferenceGeo),
            (Self::Usage, b"speed") => L(Leaf::Speed),
            (Self::Usage, b"service_tier") => L(Leaf::ServiceTier),
            (Self::Iteration, b"type") => L(Leaf::IterationType),
            (Self::Iteration, b"model") => L(Leaf::Model),
            (Self::CacheCreation, b"ephemeral_5m_input_tokens") => L(Leaf::CacheWrite5m),
            (Self::CacheCreation, b"ephemeral_1h_input_tokens") => L(Leaf::CacheWrite1h),
            (Self::ServerTools, b"web_search_requests") => L(Leaf::WebSearch),
            (Self::ServerTools, _) => L(Leaf::ServerTool),
            _ => Member::Other,
        }
    }

    /// What an element of it is, if it is an array.
    pub(super) fn element(self) -> Member {
        match self {
            Self::Iterations => Member::Object(Self::Iteration),
            _ => Member::Other,
        }
    }
}
