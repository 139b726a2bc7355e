//! Names of fields and parameters that hold a credential.

/// Tells if a field or parameter of this name holds a credential: the known names, and similar
/// ones.
pub fn names_credential(name: &[u8]) -> bool {
    // three letters tell which of the words it may be; most places of a name are none
    name.windows(3).enumerate().any(|(at, begin)| {
        let word: &[u8] = match [begin[0] | 0x20, begin[1] | 0x20, begin[2] | 0x20] {
            [b'k', b'e', b'y'] => b"key",
            [b'a', b'u', b't'] => b"auth",
            [b't', b'o', b'k'] => b"token",
            [b'c', b'o', b'o'] => b"cookie",
            [b'c', b'r', b'e'] => b"credential",
            [b's', b'e', b'c'] => b"secret",
            [b'p', b'a', b's'] => b"passw",
            _ => return false,
        };
        let there = name.get(at..at + word.len());
        there.is_some_and(|there| there.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_by_their_names() {
        for name in [
            "authorization",
            "proxy-authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "cookie",
            "x-amz-security-token",
            "cf-access-client-secret",
            "X-Credential",
            "PASSWORD",
            "KEY",
        ] {
            assert!(names_credential(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "ke",
            "user-agent",
            "anthropic-beta",
            "x-app",
            "content-type",
            "k\x05y",
        ] {
            assert!(!names_credential(name.as_bytes()), "{name}");
        }
    }
}
