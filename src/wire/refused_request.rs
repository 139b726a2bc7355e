//! Request that was refused by the connection loop, for telemetry.

use super::head::Version;
use crate::error::Answer;

/// Request that was refused before it reached a handler: its head could not be read, or the
/// connection limit was reached.
#[derive(Debug)]
pub struct RefusedRequest<'a> {
    /// Request id of the answer.
    pub id: &'a str,
    /// The version that is spoken on the connection.
    pub version: Version,
    /// The method; empty if it was not read.
    pub method: &'a str,
    /// Answer that the client gets.
    pub answer: &'a Answer,
}
