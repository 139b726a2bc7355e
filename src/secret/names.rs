//! Names of fields and parameters that hold a credential.

/// Tells if a field or parameter of this name holds a credential: the known names, and similar
/// ones.
pub fn names_credential(name: &[u8]) -> bool {
    let begins = name.iter().enumerate();
    let mut begins = begins.filter(|(_, octet)| BEGINS[usize::from(**octet)]);
    begins.any(|(at, _)| {
        let parts: &[&str] = match name[at].to_ascii_lowercase() {
            b'a' => &["auth"],
            b'c' => &["cookie", "credential"],
            b'k' => &["key"],
            b'p' => &["passw"],
            b's' => &["secret"],
            b't' => &["token"],
            _ => return false,
        };
        parts.iter().any(|part| {
            let word = name.get(at..at + part.len());
            word.is_some_and(|word| word.eq_ignore_ascii_case(part.as_bytes()))
        })
    })
}

/// Letters with which the known names begin.
const BEGINS: [bool; 256] = {
    let mut begins = [false; 256];
    let letters = b"ackpstACKPST";
    let mut at = 0;
    while at < letters.len() {
        begins[letters[at] as usize] = true;
        at += 1;
    }
    begins
};

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
        ] {
            assert!(names_credential(name.as_bytes()), "{name}");
        }
        for name in ["user-agent", "anthropic-beta", "x-app", "content-type"] {
            assert!(!names_credential(name.as_bytes()), "{name}");
        }
    }
}
