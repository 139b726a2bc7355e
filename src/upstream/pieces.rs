//! Content in the buffers that it was read into: references, not copies.

use bytes::Bytes;
use smallvec::SmallVec;

/// Content in order, in one or more pieces.
pub type Pieces = SmallVec<[Bytes; 4]>;
