//! Notices of a budget for the client, in the fields that Claude Code understands.

use smallvec::SmallVec;

use super::record::Period;

/// Fields of a response: names in lower case, and values.
pub type NoticeFields = SmallVec<[(&'static str, String); 8]>;

/// State of the budget that is nearest to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct SpendNotice {
    /// The verdict.
    pub verdict: SpendVerdict,
    /// Part of the budget that is spent; 1 is all of it.
    pub utilization: f64,
    /// The end of its period, in Unix seconds; none for all time.
    pub resets: Option<i64>,
    /// Its period.
    pub period: Period,
}

/// Verdict on a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendVerdict {
    /// The request passed.
    Allowed,
    /// The budget is spent.
    Spent,
    /// The state of the budget is unknown.
    Unknown,
}

impl SpendNotice {
    /// The fields of a response.
    pub fn fields(&self) -> NoticeFields {
        let mut fields = NoticeFields::new();
        self.each(|name, value| fields.push((name, value.into())));
        fields
    }

    /// Shows the fields of a response as lines of HTTP/1, in parts that follow one another.
    pub fn lines(&self, mut show: impl FnMut(&[u8])) {
        // as nearly all responses of a key with a budget have them: most of it is one text
        if self.verdict == SpendVerdict::Allowed && self.utilization < THRESHOLDS[1].0 {
            let digits = hundredths(self.utilization);
            show(ALLOWED);
            show(&digits);
            if let Some(resets) = self.resets {
                let mut digits = itoa::Buffer::new();
                let resets = digits.format(resets).as_bytes();
                show(ALLOWED_RESET);
                show(resets);
                show(ALLOWED_OVERAGE_RESET);
                show(resets);
            }
            return show(b"\r\n");
        }
        self.each(|name, value| {
            show(name.as_bytes());
            show(b": ");
            show(value.as_bytes());
            show(b"\r\n");
        });
    }

    /// Shows each field of a response: its name in lower case, and its value. Each response of a key with a
    /// budget has them, so nothing is allocated.
    pub fn each(&self, show: impl FnMut(&'static str, &str)) {
        match self.verdict {
            SpendVerdict::Allowed => self.allowed(show),
            SpendVerdict::Spent => self.rejected("org_spend_cap_reached", show),
            SpendVerdict::Unknown => self.rejected("fetch_error", show),
        }
    }

    fn allowed(&self, mut show: impl FnMut(&'static str, &str)) {
        let surpassed = THRESHOLDS.iter().find(|it| self.utilization >= it.0);
        let status = match surpassed {
            Some(_) => "allowed_warning",
            None => "allowed",
        };
        let digits = hundredths(self.utilization);
        show(STATUS, status);
        show(CLAIM, "overage");
        show(OVERAGE_STATUS, status);
        show(UTILIZATION, str::from_utf8(&digits).unwrap_or("0.00"));
        if let Some((_, text)) = surpassed {
            show(THRESHOLD, text);
        }
        self.reset(&mut show);
    }

    fn rejected(&self, reason: &'static str, mut show: impl FnMut(&'static str, &str)) {
        show(STATUS, "rejected");
        self.reset(&mut show);
        show(UTILIZATION, &format!("{:.2}", self.utilization.max(1.0)));
        show(THRESHOLD, "1");
        let period = match self.period {
            Period::Day => Some("daily"),
            Period::Week => Some("weekly"),
            Period::Month => Some("monthly"),
            Period::Total => None,
        };
        if let Some(period) = period {
            show(PERIOD, period);
        }
        show(REASON, reason);
    }

    fn reset(&self, show: &mut impl FnMut(&'static str, &str)) {
        if let Some(resets) = self.resets {
            let mut digits = itoa::Buffer::new();
            let resets = digits.format(resets);
            show(RESET, resets);
            show(OVERAGE_RESET, resets);
        }
    }
}

/// Two decimals, cut off: what is not all used is below 1.
fn hundredths(utilization: f64) -> [u8; 4] {
    let hundredths = (utilization * 100.0).clamp(0.0, 99.0) as u8;
    [b'0', b'.', b'0' + hundredths / 10, b'0' + hundredths % 10]
}

/// Parts of a budget from which on a client warns, the highest first.
const THRESHOLDS: [(f64, &str); 2] = [(0.95, "0.95"), (0.75, "0.75")];

const STATUS: &str = "anthropic-ratelimit-unified-status";
const CLAIM: &str = "anthropic-ratelimit-unified-representative-claim";
const RESET: &str = "anthropic-ratelimit-unified-reset";
const OVERAGE_STATUS: &str = "anthropic-ratelimit-unified-overage-status";
const OVERAGE_RESET: &str = "anthropic-ratelimit-unified-overage-reset";
const UTILIZATION: &str = "anthropic-ratelimit-unified-overage-utilization";
const THRESHOLD: &str = "anthropic-ratelimit-unified-overage-surpassed-threshold";
const PERIOD: &str = "anthropic-ratelimit-unified-overage-period";
const REASON: &str = "anthropic-ratelimit-unified-overage-disabled-reason";

/// Lines of a budget of which enough is left: up to the part that is used, and from there to each of its ends.
const ALLOWED: &[u8] = b"anthropic-ratelimit-unified-status: allowed\r\n\
anthropic-ratelimit-unified-representative-claim: overage\r\n\
anthropic-ratelimit-unified-overage-status: allowed\r\n\
anthropic-ratelimit-unified-overage-utilization: ";
const ALLOWED_RESET: &[u8] = b"\r\nanthropic-ratelimit-unified-reset: ";
const ALLOWED_OVERAGE_RESET: &[u8] = b"\r\nanthropic-ratelimit-unified-overage-reset: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(verdict: SpendVerdict, utilization: f64, period: Period) -> String {
        let resets = (period != Period::Total).then_some(1_796_079_600);
        let notice = SpendNotice {
            verdict,
            utilization,
            resets,
            period,
        };
        let short = |name: &'static str| name.strip_prefix("anthropic-ratelimit-unified").unwrap();
        let fields = notice.fields();
        let fields = fields
            .iter()
            .map(|(name, value)| format!("{}: {value}", short(name)));
        fields.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_budget_with_something_left_is_shown_with_what_is_used() {
        let resets = "-reset: 1796079600, -overage-reset: 1796079600";
        for (utilization, status, used) in [
            (0.0, "allowed", "0.00"),
            (0.7499, "allowed", "0.74"),
            (
                0.75,
                "allowed_warning",
                "0.75, -overage-surpassed-threshold: 0.75",
            ),
            (
                0.95,
                "allowed_warning",
                "0.95, -overage-surpassed-threshold: 0.95",
            ),
            (
                0.999,
                "allowed_warning",
                "0.99, -overage-surpassed-threshold: 0.95",
            ),
            (
                1.3,
                "allowed_warning",
                "0.99, -overage-surpassed-threshold: 0.95",
            ),
        ] {
            assert_eq!(
                shown(SpendVerdict::Allowed, utilization, Period::Month),
                format!(
                    "-status: {status}, -representative-claim: overage, -overage-status: {status}, \
                     -overage-utilization: {used}, {resets}"
                )
            );
        }
        let total = shown(SpendVerdict::Allowed, 0.5, Period::Total);
        assert!(total.ends_with("-overage-utilization: 0.50"), "{total}");
    }

    #[test]
    fn a_spent_budget_is_a_rejection_without_a_claim() {
        assert_eq!(
            shown(SpendVerdict::Spent, 1.014, Period::Week),
            "-status: rejected, -reset: 1796079600, -overage-reset: 1796079600, \
             -overage-utilization: 1.01, -overage-surpassed-threshold: 1, \
             -overage-period: weekly, -overage-disabled-reason: org_spend_cap_reached"
        );
        assert_eq!(
            shown(SpendVerdict::Unknown, 0.2, Period::Total),
            "-status: rejected, -overage-utilization: 1.00, -overage-surpassed-threshold: 1, \
             -overage-disabled-reason: fetch_error"
        );
    }

    #[test]
    fn lines_are_those_of_the_fields() {
        use SpendVerdict::{Allowed, Spent, Unknown};
        for verdict in [Allowed, Spent, Unknown] {
            for utilization in [0.0, 0.07, 0.7499, 0.75, 0.95, 1.2] {
                for resets in [None, Some(1_796_079_600)] {
                    let notice = SpendNotice {
                        verdict,
                        utilization,
                        resets,
                        period: Period::Month,
                    };
                    let fields = notice.fields();
                    let fields = fields.iter();
                    let expected: String = fields
                        .map(|(name, value)| format!("{name}: {value}\r\n"))
                        .collect();
                    let mut lines = Vec::new();
                    notice.lines(|part| lines.extend_from_slice(part));
                    assert_eq!(String::from_utf8(lines).unwrap(), expected);
                }
            }
        }
    }
}
