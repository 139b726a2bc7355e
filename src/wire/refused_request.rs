//! A request that was refused where it came in, for those who count them.

use super::head::Version;
use crate::error::Answer;

/// A request that was refused before it reached a handler: its head could not be read, or there was no
/// place for its connection.
#[derive(Debug)]
pub struct RefusedRequest<'a> {
    /// The name that the answer carries.
    pub id: &'a str,
    /// The version that is spoken on the connection.
    pub version: Version,
    /// The method; empty if it was not read.
    pub method: &'a str,
    /// What it was answered.
    pub answer: &'a Answer,
}
