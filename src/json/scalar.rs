//! Passes over numbers and literals (RFC 8259 §3, §6), which may be cut anywhere.

/// Rest of a number or literal that is yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A literal, by its remaining bytes.
    Literal(&'static [u8]),
    /// A number, by its last character so far.
    Number(Number),
}

/// The last byte of a number so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// `-`
    Minus,
    /// A leading `0`, after which no digit may stand.
    Zero,
    /// A digit of the integer part.
    Integer,
    /// `.`
    Point,
    /// A digit of the fraction.
    Fraction,
    /// `e` or `E`
    E,
    /// The sign of the exponent.
    ExponentSign,
    /// A digit of the exponent.
    Exponent,
}

/// Result of passing over a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarEnd {
    /// Before this index.
    Before(usize),
    /// The chunk ended first.
    Open(Scalar),
    /// The bytes are no JSON.
    Invalid,
}

impl Scalar {
    /// Begins the scalar with this first byte.
    pub(super) fn begin(first: u8) -> Option<Self> {
        match first {
            b't' => Some(Self::Literal(b"rue")),
            b'f' => Some(Self::Literal(b"alse")),
            b'n' => Some(Self::Literal(b"ull")),
            b'-' => Some(Self::Number(Number::Minus)),
            b'0' => Some(Self::Number(Number::Zero)),
            b'1'..=b'9' => Some(Self::Number(Number::Integer)),
            _ => None,
        }
    }

    /// Passes over the rest of it, from `chunk[at]`.
    pub(super) fn skip(self, chunk: &[u8], at: usize) -> ScalarEnd {
        let there = chunk.get(at..).unwrap_or_default();
        match self {
            Self::Literal(rest) => {
                let (expected, to_come) = rest.split_at(rest.len().min(there.len()));
                if !there.starts_with(expected) {
                    ScalarEnd::Invalid
                } else if to_come.is_empty() {
                    ScalarEnd::Before(at + rest.len())
                } else {
                    ScalarEnd::Open(Self::Literal(to_come))
                }
            }
            Self::Number(mut number) => {
                for (passed, &octet) in there.iter().enumerate() {
                    match number.then(octet) {
                        Some(next) => number = next,
                        None if number.is_complete() => return ScalarEnd::Before(at + passed),
                        None => return ScalarEnd::Invalid,
                    }
                }
                ScalarEnd::Open(Self::Number(number))
            }
        }
    }

    /// Reports whether the scalar may end here.
    pub(super) fn is_complete(self) -> bool {
        match self {
            Self::Literal(rest) => rest.is_empty(),
            Self::Number(number) => number.is_complete(),
        }
    }
}

impl Number {
    fn then(self, octet: u8) -> Option<Self> {
        match octet {
            b'0'..=b'9' => match self {
                Self::Zero => None,
                Self::Minus if octet == b'0' => Some(Self::Zero),
                Self::Minus | Self::Integer => Some(Self::Integer),
                Self::Point | Self::Fraction => Some(Self::Fraction),
                Self::E | Self::ExponentSign | Self::Exponent => Some(Self::Exponent),
            },
            b'.' if matches!(self, Self::Zero | Self::Integer) => Some(Self::Point),
            b'e' | b'E' if matches!(self, Self::Zero | Self::Integer | Self::Fraction) => {
                Some(Self::E)
            }
            b'+' | b'-' if self == Self::E => Some(Self::ExponentSign),
            _ => None,
        }
    }

    fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(octets: &[u8]) -> ScalarEnd {
        Scalar::begin(octets[0]).map_or(ScalarEnd::Invalid, |scalar| scalar.skip(octets, 1))
    }

    #[test]
    fn a_scalar_ends_where_an_octet_does_not_belong_to_it() {
        for scalar in ["true", "false", "null"] {
            assert_eq!(pass(scalar.as_bytes()), ScalarEnd::Before(scalar.len()));
        }
        for scalar in ["0", "-0", "10", "-1.05", "1e5", "0.0E-0"] {
            assert_eq!(
                pass(format!("{scalar},").as_bytes()),
                ScalarEnd::Before(scalar.len())
            );
            assert!(matches!(pass(scalar.as_bytes()), ScalarEnd::Open(rest) if rest.is_complete()));
        }
        assert_eq!(pass(b"01"), ScalarEnd::Before(1));
        for other in ["-", "1.", "1e", "1e+", "tru", "n"] {
            assert!(matches!(pass(other.as_bytes()), ScalarEnd::Open(rest) if !rest.is_complete()));
            assert_eq!(pass(format!("{other},").as_bytes()), ScalarEnd::Invalid);
        }
    }
}
