//! The response to the client: the upstream's, as it came, or an error of the proxy.

use actix_web::{HttpResponse, body::BoxBody, http::header};

use super::{browser, field, record::ExchangeRecord, response_body::ExchangeBody, tunnel};
use crate::{
    config::Live,
    error::{DeniedError, ProxyError},
    upstream::{ResponseBody, exchange::Response},
    wire::{
        body::Framing,
        head::{RelayedHead, Version},
    },
};

/// The upstream's response, as it came.
pub(super) fn relayed(
    response: Response<ResponseBody>,
    record: ExchangeRecord,
    live: &Live,
    client: Version,
) -> HttpResponse {
    let Response {
        head,
        framing,
        body,
        replay: _,
        connect_info: _,
    } = response;
    let keeps_length = framing == Framing::None;
    let content = field::response_head(&head, keeps_length, client);
    if head.status == 101 {
        return tunnel::relayed(content, body, record.head(&head), live);
    }
    let body = ExchangeBody::new(body, framing, record.head(&head), live.timers.stream_idle);
    let relayed = RelayedHead {
        content,
        framing,
        notes: body.notes(),
        tunnel: None,
    };
    let mut response = HttpResponse::new(head.status);
    response.extensions_mut().insert(relayed);
    response.set_body(BoxBody::new(body))
}

/// An answer of ours.
pub(super) fn refused(cause: &ProxyError, record: ExchangeRecord) -> HttpResponse {
    let answer = cause.answer();
    let request_id = record.refuse(cause, &answer);
    let mut response = HttpResponse::build(answer.status);
    response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header(("request-id", request_id.as_str()))
        .insert_header(("x-proxy-error", answer.label.text()));
    if let ProxyError::Denied(DeniedError::DashboardOrigin) = cause {
        for field in browser::PAGE_FIELDS {
            response.insert_header(field);
        }
        return response.body(browser::page(answer.message, &request_id));
    }
    if let Some(seconds) = answer.retry_after {
        response.insert_header((header::RETRY_AFTER, seconds.to_string()));
    }
    response.body(answer.content(&request_id))
}
