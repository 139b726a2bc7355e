//! OTLP over HTTP, for traces and metrics: the encoding, and the posts to a receiver.
//!
//! The encoder is our own: few messages of the protocol are needed, for which the generated types would bring
//! three crates, and an allocation for each attribute.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) mod protobuf;
mod response;
mod sender;

pub(super) use self::sender::{Delivery, OtlpSender, PostPatience, SignalWords};

/// A time as the messages have it: nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
