//! Moments and durations as people write them, and moments as the API writes them.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// Longest duration: a hundred years.
const LONGEST: u64 = 36_525 * DAY;

/// Unix seconds of now.
pub(super) fn now() -> i64 {
    unix(SystemTime::now())
}

/// Unix seconds of a moment.
pub(super) fn unix(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// A moment as the API writes it (RFC 3339).
pub(super) fn show(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(moment) => moment.to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// Reads a duration: `90d`, `24h`, `30m`, `45s`.
///
/// # Errors
/// A sentence that says what it is instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid =
        || format!("`{text}` is no duration: expected a number and a unit, as 90d, 24h or 30m");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let unit = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return Err(invalid()),
    };
    match number.checked_mul(unit) {
        Some(seconds) if seconds <= LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is longer than 100 years")),
    }
}

/// Reads a moment in Unix seconds: a date (its first second in UTC), a moment of RFC 3339, or a duration
/// from `from` on.
///
/// # Errors
/// A sentence that says what it is instead.
pub fn moment(text: &str, from: i64) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(date) = text.parse::<Date>()
        && text.len() == "2027-03-01".len()
    {
        let first = date.to_zoned(TimeZone::UTC);
        return first
            .map(|first| first.timestamp().as_second())
            .map_err(|_| format!("`{text}` is out of range"));
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_second());
    }
    let after = duration(text).map_err(|_| {
        format!(
            "`{text}` is no time: expected a date (2027-03-01), a moment (2027-03-01T12:00:00Z) or a duration \
             (90d)"
        )
    })?;
    let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    Ok(from.saturating_add(after))
}

/// Reads the time from which on lines are asked for, as lines have it: a moment, a date, or a duration before
/// now.
///
/// # Errors
/// A sentence that says what it is instead.
pub fn since(text: &str) -> Result<String, String> {
    let seconds = match duration(text) {
        Ok(before) => now().saturating_sub(i64::try_from(before.as_secs()).unwrap_or(i64::MAX)),
        Err(_) => moment(text, 0)?,
    };
    let moment =
        Timestamp::from_second(seconds).map_err(|_| format!("`{text}` is out of range"))?;
    Ok(moment.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_times_or_durations() {
        let from = 1_795_402_800;
        for (text, expected) in [
            ("1970-01-02", 86_400),
            ("2027-03-01", 1_803_859_200),
            ("2027-03-01T12:00:00Z", 1_803_902_400),
            ("2027-03-01T12:00:00+01:00", 1_803_898_800),
            ("90d", from + 90 * 86_400),
            ("2w", from + 14 * 86_400),
            ("24h", from + 86_400),
            ("1s", from + 1),
        ] {
            assert_eq!(moment(text, from), Ok(expected), "{text}");
        }
        for text in [
            "",
            "d",
            "soon",
            "-1d",
            "1.5d",
            "90",
            "2027-02-30",
            "2027-13-01",
            "90D",
            "99999999d",
        ] {
            assert!(moment(text, from).is_err(), "{text}");
        }
        assert_eq!(show(1_803_902_400), "2027-03-01T12:00:00Z");
    }

    #[test]
    fn a_duration_has_a_bound() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert!(duration("40000d").unwrap_err().contains("100 years"));
        assert!(duration("99999999999999999999s").is_err());
    }
}
