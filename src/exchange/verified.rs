//! Outcome of a comparison of an exchange's content before and after the proxy's own code (`VERIFY`).

use std::{fmt, ops::Range};

/// Comparison of one exchange, as far as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedExchange {
    /// The content of the request: from the client, to the upstream.
    pub request: Option<VerifiedContent>,
    /// The content of the response: from the upstream, to the client.
    pub response: Option<VerifiedContent>,
}

impl VerifiedExchange {
    /// The worse of both directions; [`Identity::Incomplete`] if nothing could be compared.
    pub fn identity(&self) -> Identity {
        let directions = [&self.request, &self.response];
        let known = directions.into_iter().flatten();
        let worst = known.map(|content| content.identity).max();
        worst.unwrap_or(Identity::Incomplete)
    }
}

/// Content of one direction, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedContent {
    /// The outcome.
    pub identity: Identity,
    /// Content that came in.
    pub received: ContentDigest,
    /// Content that went out.
    pub sent: ContentDigest,
    /// The edit, if there was one: octets outside of it were compared.
    pub edit: Option<EditedSpan>,
}

/// Span of the content that the edit replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedSpan {
    /// Octets of the content that came in.
    pub replaced: Range<u64>,
    /// Number of octets that went out in their place.
    pub inserted: u64,
}

/// Outcome of a comparison, the better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The octets that went out are those that came in.
    Same,
    /// One side ended before the other had all: there is nothing to compare.
    Incomplete,
    /// They are others.
    Differs,
}

impl Identity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Same, Self::Incomplete, Self::Differs];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Incomplete => "incomplete",
            Self::Differs => "differs",
        }
    }
}

/// Number and SHA-256 of octets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest {
    /// Number of octets.
    pub octets: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl ContentDigest {
    /// The digest in hexadecimal.
    pub fn hex(&self) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digits = self.sha256.iter();
        let digits = digits.flat_map(|octet| [octet >> 4, octet & 15]);
        digits
            .map(|digit| char::from(HEX[usize::from(digit)]))
            .collect()
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.octets, self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_direction_counts() {
        let digest = ContentDigest {
            octets: 0,
            sha256: [0xa5; 32],
        };
        let content = |identity| VerifiedContent {
            identity,
            received: digest,
            sent: digest,
            edit: None,
        };
        let identity = |request: Option<Identity>, response: Option<Identity>| {
            let (request, response) = (request.map(content), response.map(content));
            VerifiedExchange { request, response }.identity()
        };
        for worse in Identity::ALL {
            assert_eq!(identity(Some(Identity::Same), Some(worse)), worse);
            assert_eq!(identity(Some(worse), Some(Identity::Same)), worse);
            assert_eq!(identity(Some(worse), None), worse);
        }
        assert_eq!(identity(None, None), Identity::Incomplete);
        assert_eq!(digest.hex(), "a5".repeat(32));
    }
}
