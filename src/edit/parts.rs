//! Request body in parts, as it was received.

use bytes::Bytes;
use smallvec::SmallVec;

/// A body in parts, in order; never joined.
pub type BodyParts = SmallVec<[Bytes; 4]>;
