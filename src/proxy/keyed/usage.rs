//! The answer to `GET /api/oauth/usage`, from which Claude Code draws its bar of credits.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::access::{Access, Key, LimitKind, LimitState, Period};

/// The answer for a key: the budget of it, its user, its team or the organisation that is nearest to its end.
pub(super) fn answer(access: &Access, key: &Key, now: SystemTime) -> String {
    let states = access.explain_key(key, now);
    let budgets = states.iter().filter_map(Budget::of);
    let nearest = budgets.max_by(|one, other| one.part().total_cmp(&other.part()));
    nearest
        .map_or_else(none, |budget| budget.answer())
        .to_string()
}

fn none() -> Value {
    json!({"extra_usage": {"is_enabled": false, "monthly_limit": null, "used_credits": null,
        "utilization": null, "currency": "USD"}, "limits": []})
}

/// A budget.
struct Budget {
    period: Period,
    /// Billionths of a US dollar.
    spent: u64,
    limit: u64,
    /// Unix seconds.
    resets: Option<i64>,
}

impl Budget {
    fn of(state: &LimitState) -> Option<Self> {
        let LimitKind::Spend { period, .. } = &state.kind else {
            return None;
        };
        Some(Self {
            period: *period,
            spent: state.spent,
            limit: state.amount,
            resets: state.resets,
        })
    }

    /// The part that is spent.
    fn part(&self) -> f64 {
        match self.limit {
            0 => 1.0,
            limit => self.spent as f64 / limit as f64,
        }
    }

    fn answer(&self) -> Value {
        let group = match self.period {
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Total => "total",
        };
        let percent = (self.part() * 1000.0).round() / 10.0;
        let severity = match percent {
            ..75.0 => "normal",
            75.0..95.0 => "warning",
            _ => "critical",
        };
        let resets = self.resets.map(rfc3339);
        json!({
            "extra_usage": {
                "is_enabled": true,
                "monthly_limit": self.limit / CENT,
                "used_credits": self.spent / CENT,
                "utilization": percent,
                "currency": "USD",
            },
            "limits": [{
                "kind": "spend",
                "group": group,
                "percent": percent,
                "resets_at": resets,
                "severity": severity,
                "is_active": true,
            }],
        })
    }
}

/// A time as RFC 3339 writes it, in UTC.
pub(super) fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // civil from days: Howard Hinnant's algorithm, with years that begin in March
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Billionths of a US dollar in a cent.
const CENT: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_read_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_796_079_599, "2026-11-30T22:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn a_budget_is_told_in_cents_and_percent() {
        let budget = Budget {
            period: Period::Month,
            spent: 410_000_000_000,
            limit: 500_000_000_000,
            resets: Some(1_796_079_600),
        };
        let answer = budget.answer();
        assert_eq!(answer["extra_usage"]["monthly_limit"], 50_000);
        assert_eq!(answer["extra_usage"]["used_credits"], 41_000);
        assert_eq!(answer["extra_usage"]["utilization"], 82.0);
        assert_eq!(answer["limits"][0]["severity"], "warning");
        assert_eq!(answer["limits"][0]["resets_at"], "2026-11-30T23:00:00Z");
        assert_eq!(none()["extra_usage"]["is_enabled"], false);
    }
}
