//! Token counts of one `usage` object.

use super::members::MemberValue;
use crate::exchange::Tokens;

/// Numbers of `usage`, as far as they are present.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct UsageCounts {
    input: Option<u64>,
    pub(super) output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    pub(super) server_tools: Option<u64>,
    pub(super) web_searches: Option<u64>,
}

impl UsageCounts {
    pub(super) fn take(&mut self, leaf: MemberValue, number: u64) {
        let count = match leaf {
            MemberValue::Input => &mut self.input,
            MemberValue::Output => &mut self.output,
            MemberValue::CacheRead => &mut self.cache_read,
            MemberValue::CacheWrite => &mut self.cache_write,
            MemberValue::CacheWrite5m => &mut self.cache_write_5m,
            MemberValue::CacheWrite1h => &mut self.cache_write_1h,
            MemberValue::ServerTool | MemberValue::WebSearch => {
                let sum = self.server_tools.unwrap_or_default().saturating_add(number);
                self.server_tools = Some(sum);
                if leaf == MemberValue::WebSearch {
                    self.web_searches = Some(number);
                }
                return;
            }
            _ => return,
        };
        *count = Some(number);
    }

    /// Takes later counts. Counts are cumulative: the larger is right.
    pub(super) fn update(&mut self, later: Self) {
        for (count, later) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.cache_write_5m, later.cache_write_5m),
            (&mut self.cache_write_1h, later.cache_write_1h),
            (&mut self.server_tools, later.server_tools),
            (&mut self.web_searches, later.web_searches),
        ] {
            // none is less than any
            *count = (*count).max(later);
        }
    }

    pub(super) fn tokens(self) -> Tokens {
        let cache_write_1h = self.cache_write_1h.unwrap_or_default();
        // `message_delta` repeats the sum, but not how it is split
        let rest = self.cache_write.unwrap_or_default();
        let rest = rest.saturating_sub(cache_write_1h);
        Tokens {
            input: self.input.unwrap_or_default(),
            output: self.output.unwrap_or_default(),
            cache_read: self.cache_read.unwrap_or_default(),
            cache_write_5m: self.cache_write_5m.unwrap_or_default().max(rest),
            cache_write_1h,
        }
    }
}
