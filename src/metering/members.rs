//! Known members of a JSON text: their objects, names and values.

use std::borrow::Cow;

/// Object whose members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectPath {
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

/// Member whose value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberValue {
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
    /// Requests to another server tool.
    ServerTool,
}

impl MemberValue {
    /// Reports whether the value should be a count.
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

/// Kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    /// A member that is not read.
    Other,
    /// An object, whose members are read.
    Object(ObjectPath),
    /// An array, of whose objects the members are read.
    Array(ObjectPath),
    /// A value that is read.
    Value(MemberValue),
}

/// Match in a JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match<'a> {
    /// A known object or array begins; or a string stands in place of an error object.
    Object(ObjectPath),
    /// An element of a known array has ended.
    Left(ObjectPath),
    /// A string: Unicode without control characters, not too long.
    Text(MemberValue, Cow<'a, str>),
    /// A whole number.
    Number(MemberValue, u64),
    /// `true` or `false`.
    Bool(MemberValue, bool),
    /// `null`
    Null(MemberValue),
    /// Some other value.
    Other(MemberValue),
}

impl ObjectPath {
    /// Kind of the member of this name, with its escapes decoded.
    pub(super) fn member(self, name: &[u8]) -> Member {
        use Member::{Object as O, Value as L};
        match (self, name) {
            (Self::Request | Self::Answer | Self::Message, b"model") => L(MemberValue::Model),
            (Self::Request, b"stream") => L(MemberValue::Stream),
            (Self::Request, b"max_tokens") => L(MemberValue::MaxTokens),
            (Self::Answer | Self::Delta, b"stop_reason") => L(MemberValue::StopReason),
            (Self::Answer | Self::Event | Self::Message, b"usage") => O(Self::Usage),
            (Self::Answer | Self::Event, b"error") => O(Self::Error),
            (Self::Event, b"type") => L(MemberValue::Type),
            (Self::Event, b"message") => O(Self::Message),
            (Self::Event, b"delta") => O(Self::Delta),
            (Self::Error, b"type") => L(MemberValue::ErrorType),
            (Self::Error, b"code") => L(MemberValue::ErrorCode),
            (Self::Usage | Self::Iteration, b"input_tokens") => L(MemberValue::Input),
            (Self::Usage | Self::Iteration, b"output_tokens") => L(MemberValue::Output),
            (Self::Usage | Self::Iteration, b"cache_read_input_tokens") => {
                L(MemberValue::CacheRead)
            }
            (Self::Usage | Self::Iteration, b"cache_creation_input_tokens") => {
                L(MemberValue::CacheWrite)
            }
            (Self::Usage | Self::Iteration, b"cache_creation") => O(Self::CacheCreation),
            (Self::Usage, b"server_tool_use") => O(Self::ServerTools),
            (Self::Usage, b"iterations") => Member::Array(Self::Iterations),
            (Self::Usage, b"inference_geo") => L(MemberValue::InferenceGeo),
            (Self::Usage, b"speed") => L(MemberValue::Speed),
            (Self::Usage, b"service_tier") => L(MemberValue::ServiceTier),
            (Self::Iteration, b"type") => L(MemberValue::IterationType),
            (Self::Iteration, b"model") => L(MemberValue::Model),
            (Self::CacheCreation, b"ephemeral_5m_input_tokens") => L(MemberValue::CacheWrite5m),
            (Self::CacheCreation, b"ephemeral_1h_input_tokens") => L(MemberValue::CacheWrite1h),
            (Self::ServerTools, b"web_search_requests") => L(MemberValue::WebSearch),
            (Self::ServerTools, _) => L(MemberValue::ServerTool),
            _ => Member::Other,
        }
    }

    /// Kind of its elements, if it is an array.
    pub(super) fn element(self) -> Member {
        match self {
            Self::Iterations => Member::Object(Self::Iteration),
            _ => Member::Other,
        }
    }
}
