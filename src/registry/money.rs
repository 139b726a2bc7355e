//! Amounts of money, and budgets as people write them: `$500/month@Europe/Berlin`, `500/month`.

use jiff::tz::TimeZone;

use crate::access::{LimitKind, Period, Zone};

/// Billionths of a US dollar in one.
const NANO: u64 = 1_000_000_000;

/// Largest amount in US dollars: what SQLite's integers hold.
const LARGEST: u64 = 9_000_000_000;

/// Reads an amount of US dollars, as `$500`, `0.25` or `+$50`, in billionths.
///
/// # Errors
/// A sentence that says what it is instead.
pub fn usd(text: &str) -> Result<u64, String> {
    let plain = text.trim();
    let plain = plain.strip_prefix('+').unwrap_or(plain);
    if plain.starts_with('-') || plain.starts_with("$-") {
        return Err(format!(
            "`{text}` is negative: expected an amount of US dollars, as $500 or 0.25"
        ));
    }
    let plain = plain.strip_prefix('$').unwrap_or(plain);
    let invalid = || format!("`{text}` is no amount: expected US dollars, as $500 or 0.25");
    let (whole, part) = plain.split_once('.').unwrap_or((plain, "0"));
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(part) {
        return Err(invalid());
    }
    if part.len() > 9 {
        return Err(format!("`{text}` has more than 9 decimals"));
    }
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    if whole > LARGEST {
        return Err(format!("`{text}` is more than ${LARGEST}"));
    }
    let part: u64 = format!("{part:0<9}").parse().map_err(|_| invalid())?;
    Ok(whole * NANO + part)
}

/// Writes an amount: `$500`, `$0.25`, `$0.000001`.
pub fn show_usd(nano: u64) -> String {
    let (whole, part) = (nano / NANO, nano % NANO);
    if part == 0 {
        return format!("${whole}");
    }
    let part = format!("{part:09}");
    let part = part.trim_end_matches('0');
    format!("${whole}.{part:0<2}")
}

/// Billionths of a number of US dollars, as JSON has it.
pub(super) fn of_number(amount: f64) -> Result<u64, String> {
    if !amount.is_finite() || amount < 0.0 {
        return Err(format!(
            "{amount} is no amount of US dollars: it must be 0 or more"
        ));
    }
    if amount > LARGEST as f64 {
        return Err(format!("{amount} is more than ${LARGEST}"));
    }
    Ok((amount * NANO as f64).round() as u64)
}

/// US dollars as a number, for JSON.
pub(super) fn number(nano: u64) -> f64 {
    nano as f64 / NANO as f64
}

/// US dollars of an amount less another as a number, for JSON: it has the decimals that amounts have, and no more.
pub(super) fn difference(nano: u64, other: u64) -> f64 {
    let number = number(nano.abs_diff(other));
    if nano < other { -number } else { number }
}

/// Reads a budget: an amount, a period, and its time zone where it has one.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn budget(text: &str) -> Result<(LimitKind, u64), String> {
    let (amount, rest) = text.trim().split_once('/').ok_or_else(|| {
        format!(
            "`{text}` has no period: expected AMOUNT/day, /week, /month or /total, as $500/month"
        )
    })?;
    let amount = usd(amount)?;
    let (name, zone): (_, Option<Zone>) = match rest.split_once('@') {
        Some((name, zone)) => (name, Some(zone.into())),
        None => (rest, None),
    };
    let period = period(name)
        .ok_or_else(|| format!("`{name}` is no period: expected day, week, month or total"))?;
    if let Some(zone) = &zone {
        check_zone(zone)?;
        if period == Period::Total {
            return Err(format!(
                "`{text}` has a time zone, and a budget in total has no days: leave it out"
            ));
        }
    }
    Ok((LimitKind::Spend { period, zone }, amount))
}

/// Reads the name of a period.
pub(super) fn period(name: &str) -> Option<Period> {
    Some(match name.trim() {
        "day" => Period::Day,
        "week" => Period::Week,
        "month" => Period::Month,
        "total" => Period::Total,
        _ => return None,
    })
}

/// The name of a period.
pub(super) fn period_name(period: Period) -> &'static str {
    match period {
        Period::Day => "day",
        Period::Week => "week",
        Period::Month => "month",
        Period::Total => "total",
    }
}

/// Refuses a time zone that does not exist.
pub(super) fn check_zone(zone: &str) -> Result<(), String> {
    TimeZone::get(zone).map(drop).map_err(|_| {
        format!("`{zone}` is no time zone: expected a name of IANA's, as Europe/Berlin or UTC")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        // both are sums of many: what is between them has no more decimals than they have
        let (more, less) = (1_234_567_007_485_001, 1_234_567_000_000_001);
        for (of, less, number) in [
            (more, less, "0.007485"),
            (less, more, "-0.007485"),
            (5, 5, "0.0"),
        ] {
            assert_eq!(format!("{:?}", difference(of, less)), number);
        }
        for (text, nano, shown) in [
            ("$500", 500 * NANO, "$500"),
            ("500", 500 * NANO, "$500"),
            ("+$50", 50 * NANO, "$50"),
            (" 0.25 ", 250_000_000, "$0.25"),
            ("$0.1", 100_000_000, "$0.10"),
            ("0.000000001", 1, "$0.000000001"),
            ("0", 0, "$0"),
            ("9000000000", 9_000_000_000 * NANO, "$9000000000"),
        ] {
            assert_eq!(usd(text), Ok(nano), "{text}");
            assert_eq!(show_usd(nano), shown);
        }
        for (text, expected) in [
            ("-5", "negative"),
            ("$-5", "negative"),
            ("", "no amount"),
            ("$", "no amount"),
            ("5 USD", "no amount"),
            ("1e3", "no amount"),
            (".5", "no amount"),
            ("5.", "no amount"),
            ("1,000", "no amount"),
            ("0.0000000001", "9 decimals"),
            ("9000000001", "more than"),
            ("99999999999999999999", "no amount"),
        ] {
            let said = usd(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert_eq!(of_number(0.1), Ok(100_000_000));
        assert!(
            of_number(-0.1).is_err() && of_number(f64::NAN).is_err() && of_number(1e12).is_err()
        );
        assert!((number(250_000_000) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn budgets_have_an_amount_a_period_and_a_zone() {
        let spend = |period, zone: Option<&str>| LimitKind::Spend {
            period,
            zone: zone.map(Into::into),
        };
        for (text, kind, amount) in [
            (
                "$500/month@Europe/Berlin",
                spend(Period::Month, Some("Europe/Berlin")),
                500,
            ),
            ("500/month", spend(Period::Month, None), 500),
            ("5/day@UTC", spend(Period::Day, Some("UTC")), 5),
            ("5/week", spend(Period::Week, None), 5),
            ("5/total", spend(Period::Total, None), 5),
        ] {
            assert_eq!(budget(text), Ok((kind, amount * NANO)), "{text}");
        }
        for (text, expected) in [
            ("500", "no period"),
            ("$500/year", "`year` is no period"),
            ("$500/month@Europe/Bonn", "`Europe/Bonn` is no time zone"),
            ("$500/month@", "no time zone"),
            ("-5/month", "negative"),
            ("$5/total@UTC", "leave it out"),
        ] {
            let said = budget(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
