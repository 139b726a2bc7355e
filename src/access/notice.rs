//! Notices of a budget for the client, in the fields that Claude Code understands.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::record::Period;

/// Fields of a response: names in lower case, and values.
pub type NoticeFields = SmallVec<[(&'static str, Cow<'static, str>); 8]>;

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
        match self.verdict {
            SpendVerdict::Allowed => self.allowed(),
            SpendVerdict::Spent => self.rejected("org_spend_cap_reached"),
            SpendVerdict::Unknown => self.rejected("fetch_error"),
        }
    }

    fn allowed(&self) -> NoticeFields {
        let surpassed = THRESHOLDS.iter().find(|it| self.utilization >= it.0);
        let status = match surpassed {
            Some(_) => "allowed_warning",
            None => "allowed",
        };
        // two decimals, cut off: what is not all used is below 1
        let hundredths = (self.utilization * 100.0).clamp(0.0, 99.0) as u32;
        let mut fields = NoticeFields::new();
        fields.push((STATUS, status.into()));
        fields.push((CLAIM, "overage".into()));
        fields.push((OVERAGE_STATUS, status.into()));
        fields.push((UTILIZATION, hundredths_text(hundredths).into()));
        if let Some((_, text)) = surpassed {
            fields.push((THRESHOLD, (*text).into()));
        }
        self.push_reset(&mut fields);
        fields
    }

    fn rejected(&self, reason: &'static str) -> NoticeFields {
        let mut fields = NoticeFields::new();
        fields.push((STATUS, "rejected".into()));
        self.push_reset(&mut fields);
        fields.push((
            UTILIZATION,
            format!("{:.2}", self.utilization.max(1.0)).into(),
        ));
        fields.push((THRESHOLD, "1".into()));
        let period = match self.period {
            Period::Day => Some("daily"),
            Period::Week => Some("weekly"),
            Period::Month => Some("monthly"),
            Period::Total => None,
        };
        fields.extend(period.map(|period| (PERIOD, period.into())));
        fields.push((REASON, reason.into()));
        fields
    }

    fn push_reset(&self, fields: &mut NoticeFields) {
        if let Some(resets) = self.resets {
            let resets = resets.to_string();
            fields.push((RESET, resets.clone().into()));
            fields.push((OVERAGE_RESET, resets.into()));
        }
    }
}

/// `0.07` of 7, without the cost of formatting: each response of a budget has it.
fn hundredths_text(hundredths: u32) -> String {
    let digit = |number: u32| char::from_digit(number % 10, 10).unwrap_or('0');
    let mut text = String::with_capacity(4);
    text.push_str("0.");
    text.push(digit(hundredths / 10));
    text.push(digit(hundredths));
    text
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
}
