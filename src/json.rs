//! JSON, read in pieces as it arrives (RFC 8259): one tokenizer, of strings, scalars and nesting.
//!
//! Shared by the scanner of edited bodies ([`crate::edit`]) and the reader of usage
//! ([`crate::metering`]), which are its visitors.

mod nesting;
mod scalar;
mod string;
pub mod tokenizer;

/// `application/json` or `application/*+json` (RFC 6839 §3.1), with any parameters.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    const APPLICATION: &[u8] = b"application/";
    // as nearly all servers spell it
    if content_type == b"application/json" {
        return true;
    }
    let media_type = content_type
        .split(|&octet| octet == b';')
        .next()
        .unwrap_or_default();
    let media_type = media_type.trim_ascii();
    let Some((application, subtype)) = media_type.split_at_checked(APPLICATION.len()) else {
        return media_type.is_empty();
    };
    let suffix = subtype
        .len()
        .checked_sub(b"+json".len())
        .and_then(|at| subtype.get(at..));
    application.eq_ignore_ascii_case(APPLICATION)
        && (subtype.eq_ignore_ascii_case(b"json")
            || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json")))
}
