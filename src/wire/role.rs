//! Meaning of a field name for an intermediary: hop-by-hop or end-to-end (RFC 9110 §7.6.1), allowed in a
//! trailer section (RFC 9110 §6.5.1), or a credential.

/// Role of a field name for an intermediary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `Connection`: names further fields that end here (RFC 9110 §7.6.1).
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Host`.
    Host,
    /// `Expect`.
    Expect,
    /// `TE`.
    Te,
    /// `Upgrade`: ends here unless a tunnel is asked for (RFC 9110 §7.8).
    Upgrade,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// Any other field that ends here: `Keep-Alive`, `Proxy-*`, `HTTP2-Settings`.
    HopByHop,
    /// A field that travels on unless `Connection` names it.
    EndToEnd,
}

impl Role {
    /// Classifies by length first, so that most names cost one comparison or none.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| is_same(name, known);
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::HopByHop,
            14 if is("content-length") => Self::ContentLength,
            // of an offer of h2c, which ends here whether `Connection` names it or not
            14 if is("http2-settings") => Self::HopByHop,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            6.. if name[..6].eq_ignore_ascii_case(b"proxy-") => Self::HopByHop,
            _ => Self::EndToEnd,
        }
    }
}

/// Compares a field name with one in lower case, without regard to case (RFC 9110 §5.1). Nearly all peers write
/// lower case, which is compared many octets at a time.
#[inline]
pub fn is_same(name: &[u8], known: &str) -> bool {
    name == known.as_bytes() || name.eq_ignore_ascii_case(known.as_bytes())
}

/// Reports whether a field is a credential: exactly one of these goes to an upstream with a key of
/// its own.
pub fn is_credential(name: &[u8]) -> bool {
    ["x-api-key", "authorization"]
        .iter()
        .any(|known| is_same(name, known))
}

/// Reports whether a field may stand in a trailer section: fields for framing and routing,
/// hop-by-hop fields and credentials may not (RFC 9110 §6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    Role::of(name) == Role::EndToEnd && !is_credential(name) && is_name(name)
}

/// Reports whether a field name that the h2 crate let through is valid in HTTP/1.1, too. RFC 9113
/// §8.2.1 forbids a few octets and the crate takes `"`, which no token has (RFC 9110 §5.1): parsers
/// differ about it.
pub fn is_name(name: &[u8]) -> bool {
    memchr::memchr(b'"', name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_without_regard_to_case() {
        for (name, role) in [
            ("Connection", Role::Connection),
            ("TE", Role::Te),
            ("Te", Role::Te),
            ("KEEP-ALIVE", Role::HopByHop),
            ("upgrade", Role::Upgrade),
            ("Proxy-Authorization", Role::HopByHop),
            ("proxy-", Role::HopByHop),
            ("proxy", Role::EndToEnd),
            ("HTTP2-Settings", Role::HopByHop),
            ("x-api-key", Role::EndToEnd),
            ("Content-length", Role::ContentLength),
            ("trailer", Role::EndToEnd),
        ] {
            assert_eq!(Role::of(name.as_bytes()), role, "{name}");
        }
    }
}
