//! Sizes as people write them: `33554432`, `32MiB`, `512k`, `1GiB`.
//!
//! `K`, `M`, `G` and `KiB`, `MiB`, `GiB` are powers of 1024; `KB`, `MB`, `GB` are powers of 1000.
//! Fractions are refused: an octet has none.

use super::scalar::InvalidValue;

/// A number of octets, more than zero.
pub(super) fn octets(text: &str) -> Result<u64, InvalidValue> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(InvalidValue::because("is not a size")),
    };
    if number.is_empty() {
        return Err(InvalidValue::because("is not a size"));
    }
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
    {
        Some(0) => Err(InvalidValue::because("is not more than 0")),
        Some(octets) => Ok(octets),
        None => Err(InvalidValue::because("is too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("1", 1),
            ("33554432", 32 << 20),
            ("32MiB", 32 << 20),
            ("32 mib", 32 << 20),
            ("32M", 32 << 20),
            ("512KiB", 512 << 10),
            ("512k", 512 << 10),
            ("1GiB", 1 << 30),
            ("2g", 2 << 30),
            ("10b", 10),
            ("1KB", 1000),
            ("1MB", 1_000_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(octets(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "0",
            "0M",
            "M",
            "1.5M",
            "-1",
            "1T",
            "1_000",
            "20000000000G",
            "1 2",
        ] {
            assert!(octets(text).is_err(), "{text}");
        }
    }
}
