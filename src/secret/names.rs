//! Names of fields and parameters that hold a credential.

/// Tells if a field or parameter of this name holds a credential: the known names, and similar
/// ones.
pub fn names_credential(name: &[u8]) -> bool {
    // the last three letters tell which of the words may begin there; most places of a name are none
    let mut begin = [0; 3];
    name.iter().enumerate().any(|(end, octet)| {
        begin = [begin[1], begin[2], octet | 0x20];
        let word: &[u8] = match &begin {
            b"key" => b"key",
            b"aut" => b"auth",
            b"tok" => b"token",
            b"coo" => b"cookie",
            b"cre" => b"credential",
            b"sec" => b"secret",
            b"pas" => b"passw",
            _ => return false,
        };
        let at = (end + 1).saturating_sub(3);
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
