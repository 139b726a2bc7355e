//! Known members of a JSON text: their objects, names and values.

use std::borrow::Cow;

/// Object whose members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectPath {
    /// A request.
    Request,
    /// An answer that is not streamed.
    Answer,
    /// The same, of which the cost alone is read.
    PaidAnswer,
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
        use Member::{Array as A, Object as O, Value as L};
        // by the object first: each has few members of note
        match self {
            Self::Request => match name {
                b"model" => L(MemberValue::Model),
                b"stream" => L(MemberValue::Stream),
                b"max_tokens" => L(MemberValue::MaxTokens),
                _ => Member::Other,
            },
            Self::Answer => match name {
                b"model" => L(MemberValue::Model),
                b"stop_reason" => L(MemberValue::StopReason),
                b"usage" => O(Self::Usage),
                b"error" => O(Self::Error),
                _ => Member::Other,
            },
            Self::PaidAnswer => match name {
                b"model" => L(MemberValue::Model),
                b"usage" => O(Self::Usage),
                b"error" => O(Self::Error),
                _ => Member::Other,
            },
            Self::Message => match name {
                b"model" => L(MemberValue::Model),
                b"usage" => O(Self::Usage),
                _ => Member::Other,
            },
            Self::Event => match name {
                b"type" => L(MemberValue::Type),
                b"usage" => O(Self::Usage),
                b"error" => O(Self::Error),
                b"message" => O(Self::Message),
                b"delta" => O(Self::Delta),
                _ => Member::Other,
            },
            Self::Delta => match name {
                b"stop_reason" => L(MemberValue::StopReason),
                _ => Member::Other,
            },
            Self::Error => match name {
                b"type" => L(MemberValue::ErrorType),
                b"code" => L(MemberValue::ErrorCode),
                _ => Member::Other,
            },
            Self::Usage | Self::Iteration => match name {
                b"input_tokens" => L(MemberValue::Input),
                b"output_tokens" => L(MemberValue::Output),
                b"cache_read_input_tokens" => L(MemberValue::CacheRead),
                b"cache_creation_input_tokens" => L(MemberValue::CacheWrite),
                b"cache_creation" => O(Self::CacheCreation),
                _ if self == Self::Usage => match name {
                    b"server_tool_use" => O(Self::ServerTools),
                    b"iterations" => A(Self::Iterations),
                    b"inference_geo" => L(MemberValue::InferenceGeo),
                    b"speed" => L(MemberValue::Speed),
                    b"service_tier" => L(MemberValue::ServiceTier),
                    _ => Member::Other,
                },
                b"type" => L(MemberValue::IterationType),
                b"model" => L(MemberValue::Model),
                _ => Member::Other,
            },
            Self::CacheCreation => match name {
                b"ephemeral_5m_input_tokens" => L(MemberValue::CacheWrite5m),
                b"ephemeral_1h_input_tokens" => L(MemberValue::CacheWrite1h),
                _ => Member::Other,
            },
            Self::ServerTools => match name {
                b"web_search_requests" => L(MemberValue::WebSearch),
                _ => L(MemberValue::ServerTool),
            },
            Self::Iterations => Member::Other,
        }
    }

    /// The lengths of the names that [`ObjectPath::member`] knows, a bit each: most names are told by theirs.
    pub(super) fn lengths(self) -> u64 {
        let of = |names: &[&str]| names.iter().fold(0, |bits, name| bits | 1 << name.len());
        match self {
            Self::Request => of(&["model", "stream", "max_tokens"]),
            Self::Answer => of(&["model", "stop_reason"]),
            Self::PaidAnswer => of(&["model"]),
            Self::Message => of(&["model"]),
            Self::Event => of(&["type", "usage", "message"]),
            Self::Delta => of(&["stop_reason"]),
            Self::Error => of(&["type"]),
            Self::Usage
            | Self::CacheCreation
            | Self::ServerTools
            | Self::Iterations
            | Self::Iteration => u64::MAX,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_that_is_known_has_another_length() {
        let names = [
            "model",
            "stream",
            "max_tokens",
            "stop_reason",
            "usage",
            "error",
            "type",
            "message",
            "delta",
            "code",
            "iterations",
        ];
        for path in [
            ObjectPath::Request,
            ObjectPath::Answer,
            ObjectPath::PaidAnswer,
            ObjectPath::Message,
            ObjectPath::Event,
            ObjectPath::Delta,
            ObjectPath::Error,
        ] {
            let known = names
                .iter()
                .filter(|it| path.member(it.as_bytes()) != Member::Other);
            let lengths = known.fold(0, |bits, name| bits | 1 << name.len());
            assert_eq!(path.lengths(), lengths, "{path:?}");
        }
    }
}
