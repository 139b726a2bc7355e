//! Keys that a request shows: in `x-api-key`, `Authorization: Bearer`, or `x-proxy-key`.

use super::{id::is_ours, refusal::RefusalKind};
use crate::wire::role::is_same;

/// Credentials of a request that may be a key of the proxy.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    key: Option<&'a [u8]>,
    is_beside: bool,
    is_contradictory: bool,
}

/// Field that shows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyField {
    /// `x-api-key`: the key stands in for the upstream's credential.
    ApiKey,
    /// `authorization`: the same.
    Authorization,
    /// `x-proxy-key`: the key stands beside the client's own credential for the upstream, which passes on.
    ProxyKey,
}

impl KeyField {
    /// The field of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        let is = |known: &str| is_same(name, known);
        match name.len() {
            9 if is("x-api-key") => Some(Self::ApiKey),
            13 if is("authorization") => Some(Self::Authorization),
            11 if is("x-proxy-key") => Some(Self::ProxyKey),
            _ => None,
        }
    }
}

impl<'a> Shown<'a> {
    /// Takes a field into account. A value of another form is no business of the proxy, except in
    /// `x-proxy-key`.
    pub fn add(&mut self, field: KeyField, value: &'a [u8]) {
        let value = value.trim_ascii();
        let key = match field {
            KeyField::ApiKey => value,
            KeyField::Authorization => bearer(value),
            KeyField::ProxyKey => value,
        };
        if !is_ours(key) && field != KeyField::ProxyKey {
            return;
        }
        match self.key {
            None => {
                self.key = Some(key);
                self.is_beside = field == KeyField::ProxyKey;
            }
            Some(other) => {
                self.is_contradictory |= other != key;
                self.is_beside &= field == KeyField::ProxyKey;
            }
        }
    }

    /// True if the request shows no key.
    pub fn is_empty(&self) -> bool {
        self.key.is_none()
    }

    /// True if the key stands beside the client's own credential for the upstream, which passes on.
    pub fn is_beside(&self) -> bool {
        self.is_beside
    }

    /// The one key.
    pub(super) fn key(&self) -> Result<&'a [u8], RefusalKind> {
        match self.key {
            Some(_) if self.is_contradictory => Err(RefusalKind::ContradictoryKeys),
            Some(key) => Ok(key),
            None => Err(RefusalKind::NoKey),
        }
    }
}

/// The token behind `Bearer`, else the whole value.
fn bearer(value: &[u8]) -> &[u8] {
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token.trim_ascii_start(),
        _ => value,
    }
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(fields: &[(&str, &'a str)]) -> Shown<'a> {
        let mut shown = Shown::default();
        for (name, value) in fields {
            shown.add(KeyField::of(name.as_bytes()).unwrap(), value.as_bytes());
        }
        shown
    }

    #[test]
    fn the_value_that_is_ours_is_the_key() {
        for fields in [
            &[("X-Api-Key", "ap_1")][..],
            &[("authorization", "Bearer ap_1")],
            &[("authorization", "bearer  ap_1 ")],
            &[("x-api-key", "sk-ant-x"), ("authorization", "Bearer ap_1")],
            &[("x-api-key", "ap_1"), ("authorization", "Bearer ap_1")],
            &[("x-api-key", "ap_1"), ("x-proxy-key", "ap_1")],
        ] {
            let shown = shown(fields);
            assert_eq!(shown.key(), Ok(&b"ap_1"[..]), "{fields:?}");
            assert!(!shown.is_beside(), "{fields:?}");
        }
        let beside = shown(&[("authorization", "Bearer x"), ("x-proxy-key", "ap_1")]);
        assert_eq!(beside.key(), Ok(&b"ap_1"[..]));
        assert!(beside.is_beside());
    }

    #[test]
    fn none_two_and_foreign_ones_are_told() {
        let foreign = shown(&[("x-api-key", "sk-ant-x"), ("authorization", "Basic ap_")]);
        assert!(foreign.is_empty());
        assert_eq!(foreign.key(), Err(RefusalKind::NoKey));
        let two = shown(&[("x-api-key", "ap_1"), ("authorization", "Bearer ap_2")]);
        assert_eq!(two.key(), Err(RefusalKind::ContradictoryKeys));
        let wrong = shown(&[("x-proxy-key", "secret")]);
        assert_eq!(wrong.key(), Ok(&b"secret"[..]), "and no key of ours");
        assert_eq!(KeyField::of(b"x-api-kex"), None);
    }
}
