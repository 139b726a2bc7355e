//! The field names that `Connection` names and that therefore end here (RFC 9110 §7.6.1).
//!
//! A head of 64 KiB can name 32,000 of them beside 256 fields. Comparing each with each would take
//! milliseconds for one request, so that many are looked up by hash: the work stays linear.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
};

use smallvec::SmallVec;

use crate::wire::{
    head::{Field, Fields, tokens},
    role::Role,
};

/// Names that are compared one by one; beyond, they are looked up.
const FEW: usize = 16;

/// The names that `Connection` names, but for those that we depend on: a client may not make a
/// credential or the length of its own content disappear.
#[derive(Debug)]
pub(super) enum ConnectionOptions<'a> {
    /// Nearly always none.
    Few(SmallVec<[&'a [u8]; 4]>),
    /// The names of fields, of many options.
    Many(HashSet<Folded<'a>>),
}

impl<'a> ConnectionOptions<'a> {
    /// The names that the fields of one head name.
    pub(super) fn of(fields: &'a Fields) -> Self {
        let mut few = SmallVec::new();
        for name in named(fields).filter(|name| !is_protected(name)) {
            if few.len() == FEW {
                return Self::many(fields);
            }
            few.push(name);
        }
        Self::Few(few)
    }

    fn many(fields: &'a Fields) -> Self {
        let present: HashSet<Folded<'a>> = fields.iter().map(|field| Folded(field.name)).collect();
        let names = named(fields).map(Folded);
        Self::Many(
            names
                .filter(|name| present.contains(name) && !is_protected(name.0))
                .collect(),
        )
    }

    /// Tells whether `Connection` names a field of the same head.
    pub(super) fn contains(&self, field: &Field<'_>) -> bool {
        match self {
            Self::Few(names) => names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(field.name)),
            Self::Many(names) => names.contains(&Folded(field.name)),
        }
    }
}

fn named(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields
        .iter()
        .filter(|field| field.role() == Role::Connection)
        .flat_map(|field| tokens(field.value))
}

/// A field name, equal to its other spellings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folded<'a>(&'a [u8]);

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Folded<'_> {}

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // in pieces: a name may be as long as the head
        for piece in self.0.chunks(PIECE) {
            let mut folded = [0; PIECE];
            let folded = &mut folded[..piece.len()];
            folded.copy_from_slice(piece);
            folded.make_ascii_lowercase();
            state.write(folded);
        }
        state.write_usize(self.0.len());
    }
}

const PIECE: usize = 32;

/// Tells whether a field is protected: a credential, a routing field, or framing.
pub(super) fn is_protected(name: &[u8]) -> bool {
    let starts_with = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    PROTECTED
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || starts_with("anthropic-")
        || starts_with("x-forwarded-")
}

/// End-to-end fields that decide who asks and what about.
const PROTECTED: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "authorization",
    "x-api-key",
    "accept",
    "accept-encoding",
    "cookie",
    "set-cookie",
    "retry-after",
    "expect",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(pairs: &[(&str, String)]) -> Fields {
        Fields::from_pairs(
            pairs
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    #[test]
    fn of_many_names_only_those_of_fields_are_kept() {
        let names = "q,".repeat(30_000) + "X-Foo, authorization";
        let sent = fields(&[
            ("connection", names),
            ("x-foo", "1".into()),
            ("Authorization", "2".into()),
            ("x-bar", "3".into()),
        ]);
        let named = ConnectionOptions::of(&sent);
        let contained: Vec<bool> = sent.iter().map(|field| named.contains(&field)).collect();
        assert_eq!(contained, [false, true, false, false]);
        assert!(matches!(named, ConnectionOptions::Many(names) if names.len() == 1));
    }

    proptest! {
        /// However many are named, the outcome is that of comparing each with each.
        #[test]
        fn few_and_many_agree(
            names in prop::collection::vec("[aAbBxX-]{1,3}", 0..60),
            sent in prop::collection::vec("[aAbBxX-]{1,3}", 0..20),
        ) {
            let connection = ("connection", names.join(", "));
            let others = sent.iter().map(|name| (&name[..], String::new()));
            let pairs: Vec<_> = std::iter::once(connection).chain(others).collect();
            let sent = fields(&pairs);
            let named = ConnectionOptions::of(&sent);
            for field in sent.iter() {
                let expected = names.iter().any(|name| field.is(name));
                prop_assert_eq!(named.contains(&field), expected);
            }
        }
    }
}
