//! Hashes of the chain, and codes of its checkpoints.
//!
//! The hash of a line is SHA-256 of `prev`, as its 64 hexadecimal digits, and of the text of the line without
//! its member `hash`. The text counts as it stands in the file, so that no other program has to write JSON as
//! this one does.

use ring::{digest, hmac};

/// `prev` of the first line.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Hash of a line: `text` is the line without its member `hash`.
pub(super) fn hash(prev: &str, text: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prev.as_bytes());
    context.update(text.as_bytes());
    hex(context.finish().as_ref())
}

/// A line with its hash, from its text without.
pub(super) fn sealed(text: &str, hash: &str) -> String {
    let open = text.strip_suffix('}').unwrap_or(text);
    format!("{open},\"hash\":\"{hash}\"}}\n")
}

/// The text without its hash, and the hash, from a line without its end.
pub(super) fn unsealed(line: &str) -> Option<(String, &str)> {
    let rest = line.strip_suffix("\"}")?;
    let (open, hash) = rest.split_at_checked(rest.len().checked_sub(GENESIS.len())?)?;
    let open = open.strip_suffix(",\"hash\":\"")?;
    Some((format!("{open}}}"), hash))
}

/// Code of a checkpoint under the pepper.
pub(super) fn code(pepper: &hmac::Key, chain: &str, seq: u64, hash: &str) -> String {
    hex(hmac::sign(pepper, checkpoint(chain, seq, hash).as_bytes()).as_ref())
}

/// True if a code is that of the checkpoint, in a time that does not depend on where they differ.
pub(super) fn is_code(pepper: &hmac::Key, chain: &str, seq: u64, hash: &str, code: &str) -> bool {
    let text = checkpoint(chain, seq, hash);
    unhex(code).is_some_and(|code| hmac::verify(pepper, text.as_bytes(), &code).is_ok())
}

/// No key can have this text for its secret: a secret has no spaces.
fn checkpoint(chain: &str, seq: u64, hash: &str) -> String {
    format!("audit checkpoint {chain} {seq} {hash}")
}

fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_sealed_and_unsealed() {
        let text = r#"{"seq":1,"reason":"a \"hash\":\"x\"}"}"#;
        let hash = hash(GENESIS, text);
        let line = sealed(text, &hash);
        assert_eq!(unsealed(line.trim_end()), Some((text.to_owned(), &*hash)));
        assert_eq!(unsealed(text), None);
        assert_eq!(unsealed("\"}"), None);
        assert_eq!(unsealed(""), None);
    }

    #[test]
    fn the_hash_is_that_of_a_shell() {
        // printf '%s%s' "$prev" "$text" | sha256sum
        let expected = "5508d2b710e64bc470079e1b211d9c58e21011e59d0559e422345dc19d659a75";
        assert_eq!(hash(GENESIS, "{}"), expected);
    }

    #[test]
    fn a_code_is_of_one_checkpoint_and_one_pepper() {
        let key = |text: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, text);
        let (pepper, hash) = (key(b"pepper"), "ab".repeat(32));
        let code = code(&pepper, "c", 7, &hash);
        assert!(is_code(&pepper, "c", 7, &hash, &code));
        assert!(!is_code(&pepper, "c", 8, &hash, &code));
        assert!(!is_code(&pepper, "d", 7, &hash, &code));
        assert!(!is_code(&key(b"other"), "c", 7, &hash, &code));
        for wrong in ["", "a", "zz", "é0"] {
            assert!(!is_code(&pepper, "c", 7, &hash, wrong));
        }
    }
}
