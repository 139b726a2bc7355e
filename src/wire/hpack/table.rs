//! Tables of HPACK (RFC 7541 §2.3), without names and values: lengths, and flags for `:path`.

use std::collections::VecDeque;

/// Largest size of the dynamic table: the default (RFC 9113 §6.5.2), which h2's server keeps.
pub(super) const MAX_TABLE: u32 = 4096;
/// Octets that an entry counts beside its name and value (RFC 7541 §4.1).
const ENTRY: u32 = 32;
/// Indices of `:path` in the static table.
const PATH_INDICES: [usize; 2] = [4, 5];

/// Lengths and flags of an entry of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableEntry {
    /// At most `MAX_TABLE`, as is the size.
    pub(super) name_length: u16,
    pub(super) size: u16,
    pub(super) is_path: bool,
    pub(super) has_fragment: bool,
}

/// The dynamic table (RFC 7541 §2.3.2), the newest entry first.
#[derive(Debug)]
pub(super) struct HpackTable {
    pub(super) entries: VecDeque<TableEntry>,
    pub(super) size: u32,
    most: u32,
}

impl Default for HpackTable {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            most: MAX_TABLE,
        }
    }
}

impl HpackTable {
    /// An entry of the static table or of this one.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<TableEntry> {
        let index = (index as usize).checked_sub(1)?;
        match STATIC_NAMES.get(index) {
            Some(name) => Some(TableEntry {
                name_length: name.len() as u16,
                size: 0,
                is_path: PATH_INDICES.contains(&(index + 1)),
                has_fragment: false,
            }),
            None => self.entries.get(index - STATIC_NAMES.len()).copied(),
        }
    }

    pub(super) fn add(
        &mut self,
        name_length: u32,
        value_length: u32,
        is_path: bool,
        has_fragment: bool,
    ) {
        let size = name_length
            .saturating_add(value_length)
            .saturating_add(ENTRY);
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.entries.push_front(TableEntry {
                name_length: name_length as u16,
                size: size as u16,
                is_path,
                has_fragment,
            });
        }
    }

    pub(super) fn resize(&mut self, most: u32) {
        self.most = most;
        self.shrink(most);
    }

    /// Takes the oldest entries out until the table is no larger.
    fn shrink(&mut self, most: u32) {
        while self.size > most {
            let Some(entry) = self.entries.pop_back() else {
                return;
            };
            self.size -= u32::from(entry.size);
        }
    }
}

/// Names of the static table (RFC 7541 appendix A).
pub(super) const STATIC_NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];
