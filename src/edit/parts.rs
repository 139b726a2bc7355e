//! Request body in parts, as it was received.

use crate::wire::chunks::Chunks;

/// A body in parts, in order; never joined.
pub type BodyParts = Chunks;
