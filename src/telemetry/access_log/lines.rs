//! Whole lines of a text: counts of them, and lengths of those that fit.

/// Number of lines.
pub(super) fn lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// The length of the lines that fit, or of the first one where it does not.
pub(super) fn whole_lines(text: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(text.len());
    let fitting = memchr::memrchr(b'\n', &text[..room]);
    let end = fitting.or_else(|| memchr::memchr(b'\n', text));
    end.map_or(text.len(), |end| end + 1)
}
