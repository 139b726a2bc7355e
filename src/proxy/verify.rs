//! Verification of byte identity: which exchanges, and what is told of the outcome (`VERIFY`).

use super::id::RequestId;
use crate::{
    config::VerifyRule,
    exchange::{Identity, VerifiedContent, VerifiedExchange},
    wire::{head::RequestHead, verification::Verification},
};

/// Begins the verification of an exchange that the rule chooses. Octets of a tunnel have no end, and are left out.
pub(super) fn begin(rule: &VerifyRule, head: &RequestHead, id: RequestId) {
    let session = || {
        let session = head.fields.value("x-claude-code-session-id");
        session.map(<[u8]>::to_vec)
    };
    if head.upgrade.is_none() && rule.chooses(session, id.number()) {
        let _ = head
            .notes
            .verification
            .set(Verification::begin(head.framing));
    }
}

/// The outcome, which is an error in the log if octets differ.
pub(super) fn outcome(
    verification: &Verification,
    is_complete: bool,
    id: RequestId,
) -> VerifiedExchange {
    let verified = verification.outcome(is_complete);
    for (direction, content) in [
        ("request", &verified.request),
        ("response", &verified.response),
    ] {
        if let Some(content) = content
            && content.identity == Identity::Differs
        {
            tell(direction, content, id);
        }
    }
    verified
}

fn tell(direction: &str, content: &VerifiedContent, id: RequestId) {
    let outside = match content.edit {
        Some(_) => " outside of the edit",
        None => "",
    };
    log::error!(
        "[Verify] the {direction}'s content differs{outside}: the receiver got other octets than were sent; \
         this is a fault of the proxy: report it with this line, and set VERIFY=all to see if it recurs \
         received={:?} sent={:?} request_id={id}",
        content.received,
        content.sent,
    );
}
