//! Comparison of an exchange's content before and after the proxy's own code, as the API gives it.

use serde::Serialize;

use crate::exchange::{ContentDigest, EditedSpan, VerifiedContent, VerifiedExchange};

/// Comparison of an exchange's content before and after the proxy's own code (`VERIFY`).
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Verified))]
pub struct VerifiedView {
    /// `same`, `incomplete` (one side ended early) or `differs`: the worse of both directions.
    #[cfg_attr(test, schema(example = "same"))]
    pub result: &'static str,
    /// The content of the request: from the client, to the upstream.
    pub request: Option<VerifiedContentView>,
    /// The content of the response: from the upstream, to the client. Null if it was the proxy's own.
    pub response: Option<VerifiedContentView>,
}

/// Content of one direction.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = VerifiedContent))]
pub struct VerifiedContentView {
    /// `same`, `incomplete` or `differs`.
    #[cfg_attr(test, schema(example = "same"))]
    pub result: &'static str,
    /// Content that came in.
    pub received: DigestView,
    /// Content that went out.
    pub sent: DigestView,
    /// The edit, if there was one: octets outside of it were compared.
    pub edit: Option<EditedSpanView>,
}

/// Number and digest of octets.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = ContentDigest))]
pub struct DigestView {
    /// Number of octets.
    pub octets: u64,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Span of the request's content that the edit replaced.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = EditedSpan))]
pub struct EditedSpanView {
    /// Offset of its first octet.
    pub at: u64,
    /// Number of octets that were replaced.
    pub replaced: u64,
    /// Number of octets in their place.
    pub inserted: u64,
}

impl From<&VerifiedExchange> for VerifiedView {
    fn from(verified: &VerifiedExchange) -> Self {
        Self {
            result: verified.identity().label(),
            request: verified.request.as_ref().map(Into::into),
            response: verified.response.as_ref().map(Into::into),
        }
    }
}

impl From<&VerifiedContent> for VerifiedContentView {
    fn from(content: &VerifiedContent) -> Self {
        let VerifiedContent {
            identity,
            received,
            sent,
            edit,
        } = content;
        Self {
            result: identity.label(),
            received: received.into(),
            sent: sent.into(),
            edit: edit.as_ref().map(Into::into),
        }
    }
}

impl From<&ContentDigest> for DigestView {
    fn from(digest: &ContentDigest) -> Self {
        Self {
            octets: digest.octets,
            sha256: digest.hex(),
        }
    }
}

impl From<&EditedSpan> for EditedSpanView {
    fn from(span: &EditedSpan) -> Self {
        Self {
            at: span.replaced.start,
            replaced: span.replaced.end - span.replaced.start,
            inserted: span.inserted,
        }
    }
}
