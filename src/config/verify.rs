//! Choice of the exchanges whose content is compared before and after the proxy's own code (`VERIFY`).

use super::scalar::InvalidValue;

/// Exchanges that are verified.
#[derive(Debug, Clone, PartialEq)]
pub enum VerifyRule {
    /// `off`: none.
    Off,
    /// `all`: each one.
    All,
    /// `sample:SHARE`: this share of them, above 0 and at most 1.
    Sample(f64),
    /// `session:ID`: those of one Claude Code session (`X-Claude-Code-Session-Id`).
    Session(Box<[u8]>),
}

impl VerifyRule {
    /// Tells if an exchange is chosen. `session` is its session, `number` any number of it.
    pub fn chooses(&self, session: impl FnOnce() -> Option<Vec<u8>>, number: u64) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Sample(share) => spread(number) < *share,
            Self::Session(wanted) => session().is_some_and(|session| *session == **wanted),
        }
    }
}

/// A number as a fraction between 0 and 1, as if by chance (the finalizer of splitmix64).
fn spread(number: u64) -> f64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Reads `off`, `all`, `sample:SHARE` or `session:ID`.
pub(super) fn parse(text: &str) -> Result<VerifyRule, InvalidValue> {
    if let Some(share) = text.strip_prefix("sample:") {
        return match share.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 1.0 => Ok(VerifyRule::Sample(share)),
            _ => Err(
                InvalidValue::because("has a share that is not above 0 and at most 1")
                    .hint("write it as sample:0.01 for one exchange of a hundred"),
            ),
        };
    }
    if let Some(session) = text.strip_prefix("session:") {
        let is_id = !session.is_empty() && session.bytes().all(|octet| octet.is_ascii_graphic());
        return match is_id {
            true => Ok(VerifyRule::Session(session.as_bytes().into())),
            false => Err(InvalidValue::because("names no session")
                .hint("write the id that /status shows in Claude Code after session:")),
        };
    }
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(VerifyRule::Off),
        "all" => Ok(VerifyRule::All),
        _ => Err(InvalidValue::because(
            "is not off, all, sample:SHARE or session:ID",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        assert_eq!(parse("off"), Ok(VerifyRule::Off));
        assert_eq!(parse("ALL"), Ok(VerifyRule::All));
        assert_eq!(parse("sample:0.25"), Ok(VerifyRule::Sample(0.25)));
        let session = VerifyRule::Session(b"3f2a-1".as_slice().into());
        assert_eq!(parse("session:3f2a-1"), Ok(session));
        for text in [
            "sample:",
            "sample:0",
            "sample:1.1",
            "sample:-1",
            "sample:NaN",
            "sample:x",
            "session:",
            "session:a b",
            "on",
            "1",
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_sample_has_its_share() {
        let none = || None;
        for share in [0.01, 0.5, 1.0] {
            let rule = VerifyRule::Sample(share);
            let chosen = (0..100_000).filter(|number| rule.chooses(none, *number));
            let chosen = chosen.count() as f64 / 100_000.0;
            assert!((chosen - share).abs() < 0.005, "{share}: {chosen}");
        }
        let rule = VerifyRule::Session(b"one".as_slice().into());
        assert!(rule.chooses(|| Some(b"one".to_vec()), 0));
        assert!(!rule.chooses(|| Some(b"two".to_vec()), 0));
        assert!(!rule.chooses(none, 0));
        assert!(!VerifyRule::Off.chooses(none, 0) && VerifyRule::All.chooses(none, 0));
    }
}
