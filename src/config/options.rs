//! Settings that are one of a few words.

/// Effect of the edit on the system prompt block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditMode {
    /// Replace its text.
    Replace,
    /// Replace its text if it contains `Claude Code`, else insert a block before it
    /// (`SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST`).
    InsertIfAbsent,
}

/// Treatment of the fields that name earlier hops (`FORWARDED_HEADERS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `append`: the client's address is appended, scheme and host are set if absent.
    Append,
    /// `off`: nothing is added; the client's travel on.
    Off,
    /// `drop`: nothing is added; the client's do not travel on.
    Drop,
}

/// Rule that selects the system prompt block (`SYSTEM_PROMPT_TARGET`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditTarget {
    /// `prompt`: the first block that is not Claude Code's attribution block.
    Prompt,
    /// `first`: `system[0]`, whatever it is.
    First,
}

/// Requests that need a key of the proxy (`ACCESS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessMode {
    /// Nothing was said: `required` as soon as there is a key, `off` before.
    #[default]
    Auto,
    /// `off`: keys of the proxy mean nothing.
    Off,
    /// `optional`: requests without a key pass without limits.
    Optional,
    /// `required`: every request needs a key.
    Required,
}
