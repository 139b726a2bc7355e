//! Size limits of a message head, in both directions (docs/contract.md §2.4).

/// Largest message head, in octets.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields in one head.
pub const MAX_FIELDS: usize = 256;
