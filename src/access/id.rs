//! The key of a client: `ap_<id, 10 base62>_<secret, 32 base62><CRC-32, 6 base62>`.
//!
//! The checksum tells a mistyped key from an unknown one without a look-up, also to scanners of secrets. A
//! whole key ([`FullKey`]) exists at its creation alone, and nothing shows it but [`FullKey::reveal`].

use std::{borrow::Cow, fmt, str::FromStr};

use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

use super::base62;
use crate::secret::mask::MASK;

/// Public part of a key: ten characters of base62.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(u64);

impl KeyId {
    /// A random id.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut text = [0; ID];
        base62::randomize(&mut text, &SystemRandom::new()).map_err(|_| NoRandomness)?;
        base62::decode(&text).map(Self).ok_or(NoRandomness)
    }

    fn of(text: &[u8]) -> Option<Self> {
        (text.len() == ID).then(|| base62::decode(text).map(Self))?
    }

    /// The number that its characters stand for.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    fn text(self) -> [u8; ID] {
        let mut text = [0; ID];
        base62::encode(self.0, &mut text);
        text
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The id in a text that is an id, or a whole key: one that leaked is revoked by its text.
pub fn id_of(text: &str) -> Option<KeyId> {
    let id = match text.as_bytes().strip_prefix(PREFIX) {
        Some(rest) if rest.get(ID) == Some(&b'_') => &rest[..ID],
        _ => text.as_bytes(),
    };
    KeyId::of(id)
}

/// A text of an operator with the secrets of keys masked: of ours, and of Anthropic's.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut shown = Cow::Borrowed(text);
    for word in text.split(|c| !is_part(c)) {
        let ours = word.match_indices("ap_").find_map(|(at, _)| {
            let secret = at + SECRET_AT;
            let is_key = word.as_bytes().get(secret - 1) == Some(&b'_') && word.len() > secret;
            is_key.then_some(secret)
        });
        let theirs = word.find(ANTHROPIC).map(|at| at + ANTHROPIC.len());
        if let Some(at) = ours.or(theirs).filter(|at| *at < word.len()) {
            shown = Cow::Owned(shown.replace(word, &format!("{}{MASK}", &word[..at])));
        }
    }
    shown
}

/// Beginning of a key of Anthropic.
const ANTHROPIC: &str = "sk-ant-";

/// A text that is no id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id of a key: expected 10 letters or digits")]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        Self::of(text.as_bytes()).ok_or(InvalidKeyId)
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<Self, InvalidKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// The system has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct NoRandomness;

/// A whole key, which its owner is shown once.
pub struct FullKey([u8; WHOLE]);

impl FullKey {
    /// A key of this id with a random secret.
    pub fn generate(id: KeyId) -> Result<Self, NoRandomness> {
        let mut text = [b'_'; WHOLE];
        text[..PREFIX.len()].copy_from_slice(PREFIX);
        text[PREFIX.len()..SECRET_AT - 1].copy_from_slice(&id.text());
        base62::randomize(&mut text[SECRET_AT..CHECKSUM_AT], &SystemRandom::new())
            .map_err(|_| NoRandomness)?;
        let checksum = crc32fast::hash(&text[..CHECKSUM_AT]);
        base62::encode(u64::from(checksum), &mut text[CHECKSUM_AT..]);
        Ok(Self(text))
    }

    /// The text, for the one moment in which it is shown.
    pub fn reveal(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The public part.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0[PREFIX.len()..SECRET_AT - 1]).unwrap_or(KeyId(0))
    }

    /// The secret in it.
    pub(super) fn secret(&self) -> &[u8] {
        &self.0[SECRET_AT..CHECKSUM_AT]
    }

    /// The last four characters, which people recognise it by.
    pub(super) fn last4(&self) -> &str {
        let text = self.reveal();
        text.get(text.len().saturating_sub(4)..).unwrap_or_default()
    }
}

/// A text that is no key of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key of the proxy, or a mistyped one")]
pub struct InvalidKey;

impl FromStr for FullKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        parse(text.as_bytes()).ok_or(InvalidKey)?;
        let text = text.as_bytes().try_into().map_err(|_| InvalidKey)?;
        Ok(Self(text))
    }
}

impl fmt::Debug for FullKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FullKey")
    }
}

/// Parts of a key that a client shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyParts<'a> {
    pub(super) id: KeyId,
    pub(super) secret: &'a [u8],
}

/// Reports whether a text claims to be a key of the proxy.
pub fn is_ours(text: &[u8]) -> bool {
    text.starts_with(PREFIX)
}

/// The parts of a key; none if it is mistyped.
pub(super) fn parse(text: &[u8]) -> Option<KeyParts<'_>> {
    let is_formed = text.len() == WHOLE
        && is_ours(text)
        && text[SECRET_AT - 1] == b'_'
        // all of them, many at once
        && (text[SECRET_AT..].iter()).fold(true, |all, octet| all & octet.is_ascii_alphanumeric());
    if !is_formed {
        return None;
    }
    let (content, checksum) = text.split_at(CHECKSUM_AT);
    if base62::decode(checksum)? != u64::from(crc32fast::hash(content)) {
        return None;
    }
    Some(KeyParts {
        id: KeyId::of(&text[PREFIX.len()..SECRET_AT - 1])?,
        secret: &content[SECRET_AT..],
    })
}

/// Beginning of each key: never `sk-ant-`, so that it cannot be taken for a key of the upstream.
const PREFIX: &[u8] = b"ap_";

/// Characters of an id.
const ID: usize = 10;

/// Place of the secret: behind the prefix, the id and an underscore.
const SECRET_AT: usize = PREFIX.len() + ID + 1;

/// Place of the checksum: behind 32 characters of secret, about 190 bits.
const CHECKSUM_AT: usize = SECRET_AT + 32;

/// Characters of a key: the checksum has six.
const WHOLE: usize = CHECKSUM_AT + 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form_and_comes_back() {
        let id: KeyId = "0aB3zZ9xY1".parse().unwrap();
        let key = FullKey::generate(id).unwrap();
        let text = key.reveal().to_owned();
        assert!(text.starts_with("ap_0aB3zZ9xY1_"), "{text}");
        assert_eq!(text.len(), 52);
        let parts = parse(text.as_bytes()).unwrap();
        assert_eq!((parts.id, parts.secret), (id, key.secret()));
        assert!(text.ends_with(key.last4()));
        let read: FullKey = text.parse().unwrap();
        assert_eq!((read.id(), read.reveal()), (id, key.reveal()));
        assert!(text[1..].parse::<FullKey>().is_err());
        assert_ne!(FullKey::generate(id).unwrap().reveal(), text);
    }

    #[test]
    fn every_typo_is_told_by_the_checksum() {
        let key = FullKey::generate(KeyId::random().unwrap()).unwrap();
        let text = key.reveal().as_bytes();
        for at in 0..text.len() {
            let mut typo = text.to_vec();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(parse(&typo).is_none(), "at {at}");
            if at + 1 < text.len() && text[at] != text[at + 1] {
                let mut swapped = text.to_vec();
                swapped.swap(at, at + 1);
                assert!(parse(&swapped).is_none(), "swapped at {at}");
            }
        }
        assert!(parse(&text[1..]).is_none() && parse(&text[..51]).is_none());
        assert!(parse(b"").is_none() && parse(b"sk-ant-api03-x").is_none());
    }

    #[test]
    fn ids_are_ten_characters_in_the_order_of_their_texts() {
        let mut ids: Vec<KeyId> = (0..100).map(|_| KeyId::random().unwrap()).collect();
        let mut texts: Vec<String> = ids.iter().map(KeyId::to_string).collect();
        ids.sort();
        texts.sort();
        assert_eq!(ids.iter().map(KeyId::to_string).collect::<Vec<_>>(), texts);
        for wrong in ["", "123456789", "12345678901", "12345-7890", "ä23456789"] {
            assert_eq!(wrong.parse::<KeyId>(), Err(InvalidKeyId), "{wrong}");
        }
        let id: KeyId = "0000000001".parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"0000000001\"");
        assert_eq!(serde_json::from_str::<KeyId>("\"0000000001\"").unwrap(), id);
    }

    #[test]
    fn debug_shows_no_key() {
        let key = FullKey::generate(KeyId::random().unwrap()).unwrap();
        assert_eq!(format!("{key:?}"), "FullKey");
    }
}
