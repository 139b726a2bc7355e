//! Texts and meanings of values: durations, counts, money, health.

/// Meaning of a text, which becomes a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    #[default]
    Plain,
    Faint,
    Good,
    Warning,
    Bad,
}

/// A text with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TonedText {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl TonedText {
    /// A text with this meaning. No control character reaches the terminal.
    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = text.as_ref().chars().filter(|it| !it.is_control());
        Self {
            text: text.collect(),
            tone,
        }
    }

    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A text that may be missing.
pub(super) fn or_dash(text: Option<&String>) -> &str {
    text.map(String::as_str)
        .filter(|text| !text.is_empty())
        .unwrap_or("-")
}

/// A duration in milliseconds: `0.8s`, `12s`, `3m04s`, `2h05m`, `3d04h`.
pub(super) fn duration(millis: f64) -> String {
    let seconds = millis.max(0.0) / 1000.0;
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let seconds = seconds as u64;
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A count: `999`, `1.2k`, `34k`, `5.6M`.
pub(super) fn count(number: u64) -> String {
    let short = |scale: u64, unit: &str| {
        let value = number as f64 / scale as f64;
        match value < 10.0 {
            true => format!("{value:.1}{unit}"),
            false => format!("{value:.0}{unit}"),
        }
    };
    match number {
        ..1000 => number.to_string(),
        1000..1_000_000 => short(1000, "k"),
        1_000_000..1_000_000_000 => short(1_000_000, "M"),
        _ => short(1_000_000_000, "G"),
    }
}

/// US dollars.
pub(super) fn usd(amount: f64) -> String {
    match amount {
        amount if amount > 0.0 && amount < 0.01 => "<$0.01".to_owned(),
        amount if amount >= 10_000.0 => format!("${amount:.0}"),
        amount => format!("${:.2}", amount.max(0.0)),
    }
}

/// A share in percent, rounded down: what is not whole is not 100 %.
pub(super) fn percent(share: f64) -> String {
    // a share of floats may be below itself by a hair
    format!("{:.0}%", (share * 100.0 + 1e-9).floor())
}

/// Health of an upstream in a word, by the state of its circuit.
pub(super) fn health(state: &str) -> &str {
    match state {
        "closed" => "healthy",
        "half_open" => "trying",
        "open" => "down",
        "unknown" | "" => "not asked yet",
        other => other,
    }
}

/// State of a circuit.
pub(super) fn circuit(state: &str) -> Tone {
    match state {
        "closed" => Tone::Good,
        "failing" | "half_open" => Tone::Warning,
        "open" => Tone::Bad,
        _ => Tone::Faint,
    }
}

/// Use of a budget in percent.
pub(super) fn used(percent: f64) -> Tone {
    match percent {
        95.0.. => Tone::Bad,
        75.0.. => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// Share of the input that was read from a cache.
pub(super) fn cache(share: f64, input: u64) -> TonedText {
    match (input, share) {
        (0, _) => TonedText::toned("-", Tone::Faint),
        (_, 0.8..) => TonedText::toned(percent(share), Tone::Good),
        (_, 0.5..) => TonedText::toned(percent(share), Tone::Warning),
        _ => TonedText::toned(percent(share), Tone::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_without_a_fault_is_healthy() {
        for (state, word) in [
            ("closed", "healthy"),
            ("failing", "failing"),
            ("half_open", "trying"),
            ("open", "down"),
            ("unknown", "not asked yet"),
        ] {
            assert_eq!(health(state), word);
        }
    }

    #[test]
    fn values_are_short() {
        let durations = [(840.0, "0.8s"), (12_345.0, "12s"), (184_000.0, "3m04s")];
        for (millis, text) in durations
            .into_iter()
            .chain([(7_500_000.0, "2h05m"), (273_600_000.0, "3d04h")])
        {
            assert_eq!(duration(millis), text);
        }
        for (number, text) in [
            (999, "999"),
            (1234, "1.2k"),
            (34_567, "35k"),
            (5_600_000, "5.6M"),
        ] {
            assert_eq!(count(number), text);
        }
        for (amount, text) in [
            (0.0, "$0.00"),
            (0.004, "<$0.01"),
            (1.234, "$1.23"),
            (12_345.6, "$12346"),
        ] {
            assert_eq!(usd(amount), text);
        }
        assert_eq!(percent(0.999), "99%");
        assert_eq!(TonedText::plain("a\u{1b}[2Jb\n").text, "a[2Jb");
    }
}
