//! Durations as people write them: `10`, `0.5`, `500ms`, `2m`, `1h`.
//!
//! A plain number is seconds. Sums (`1m30s`), signs and exponents are refused: one spelling, one
//! meaning.

use std::time::Duration;

use super::scalar::InvalidValue;

/// A timer: more than zero, at most 30 days.
pub(super) fn timer(text: &str) -> Result<Duration, InvalidValue> {
    let duration = any(text)?;
    if duration.is_zero() {
        return Err(
            InvalidValue::because("is zero: the timer would fire at once")
                .hint("to wait long, set `24h`"),
        );
    }
    Ok(duration)
}

/// A duration that may be zero, at most 30 days.
pub(super) fn any(text: &str) -> Result<Duration, InvalidValue> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit.trim_start().to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(InvalidValue::because("is not a duration")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| InvalidValue::because("is not a duration"))?;
    let seconds = number * scale;
    if seconds > LONGEST.as_secs_f64() {
        return Err(InvalidValue::because("is longer than 30 days"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| InvalidValue::because("is not a duration"))
}

/// Far above any sensible timer and far below what an `Instant` can add.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("10", 10_000),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("500ms", 500),
            ("500 ms", 500),
            ("0.5ms", 0),
            ("2s", 2000),
            ("2m", 120_000),
            ("2MIN", 120_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            (" 7 ", 7000),
            ("720h", 2_592_000_000),
            ("0", 0),
        ] {
            assert_eq!(any(text).unwrap().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "", "s", ".", "-1", "+1", "1e3", "1m30s", "ten", "inf", "NaN", "1 d", "1.2.3", "721h",
        ] {
            assert!(any(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_timer_is_more_than_zero() {
        assert!(timer("0").is_err());
        assert!(timer("0ms").is_err());
        assert_eq!(timer("1ms").unwrap(), Duration::from_millis(1));
    }
}
