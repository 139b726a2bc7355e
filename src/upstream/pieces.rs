//! Content as it was read: references to buffers, not copies.

use bytes::Bytes;
use smallvec::SmallVec;

/// Content in order, in one or more pieces.
pub type Pieces = SmallVec<[Bytes; 4]>;
