//! Size limits of a message head, in both directions (docs/contract.md §2.4).

/// Largest message head that is taken, either way (docs/contract.md §2.4).
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields that are taken in one head, either way (docs/contract.md §2.4).
pub const MAX_FIELDS: usize = 256;
