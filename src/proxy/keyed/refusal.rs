//! Refusals by rules and limits, as errors of an exchange.

use actix_web::http::StatusCode;

use crate::{
    access::Refusal,
    error::{Answer, ProxyError, Refused},
    label::Label,
    proxy::telemetry::Telemetry,
};

/// The error of a refusal, which is counted.
pub(super) fn error(refusal: Refusal, team: Option<&str>, telemetry: &Telemetry) -> ProxyError {
    let (status, kind, label) = refusal.kind.answer();
    telemetry.shard.refused(label, team);
    let fields = refusal.notice.map(|notice| notice.fields());
    let fields = fields.into_iter().flatten();
    ProxyError::Refused(Box::new(Refused {
        answer: row(status, kind, label),
        is_limit: status == 429,
        message: refusal.text.into(),
        retry_after: refusal.retry_after,
        is_final: refusal.forbids_retry,
        fields: fields.map(|(name, value)| (name, value.into())).collect(),
    }))
}

/// The error of a request for the description of a model that the key may not use: as if there were none.
pub(super) fn hidden_model(model: &str, team: Option<&str>, telemetry: &Telemetry) -> ProxyError {
    telemetry.shard.refused(Label::ModelNotAllowed, team);
    let shown: String = model
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    ProxyError::Refused(Box::new(Refused {
        answer: row(404, "not_found_error", Label::ModelNotAllowed),
        is_limit: false,
        message: format!("model: {shown}").into(),
        retry_after: None,
        is_final: false,
        fields: Vec::new(),
    }))
}

/// The error of a request that ends because its key was revoked.
pub(in crate::proxy) fn revoked() -> ProxyError {
    ProxyError::Refused(Box::new(Refused {
        answer: row(401, "authentication_error", Label::KeyRevoked),
        is_limit: false,
        message: "The key of this request was revoked, and what ran with it was ended.".into(),
        retry_after: None,
        is_final: true,
        fields: Vec::new(),
    }))
}

fn row(status: u16, kind: &'static str, label: Label) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN),
        kind,
        label,
        message: "The request was refused by a rule on its key.",
        retry_after: None,
    }
}

/// Characters of a model that are repeated to its client.
const LONGEST: usize = 128;
