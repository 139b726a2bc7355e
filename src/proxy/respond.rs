//! The response to the client: the upstream's, as it came, or an error of the proxy.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{StatusCode, header},
};
use bytes::Bytes;

use super::{
    browser, field,
    keyed::{FilteredList, settlement::Settlement},
    record::ExchangeRecord,
    response_body::ExchangeBody,
    tunnel,
};
use crate::{
    config::Live,
    error::{DeniedError, ProxyError},
    upstream::{ResponseBody, exchange::Response},
    wire::{
        body::Framing,
        head::{Field, Fields, HeadContent, RelayedHead, ResponseHead, Version},
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
    let content = match record.running() {
        None => field::response_head(&head, keeps_length, client),
        Some(_) => keyed_head(&head, keeps_length, client, &record),
    };
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

/// The head for a client with a key: without the limits of the account that all keys share, and with what
/// is left of the key's own budgets.
fn keyed_head(
    head: &ResponseHead,
    keeps_length: bool,
    client: Version,
    record: &ExchangeRecord,
) -> HeadContent {
    let is_shared = |field: &Field<'_>| {
        // few other names have it there
        if !matches!(field.name.get(10), Some(b'r' | b'R')) {
            return false;
        }
        let start = field.name.get(..SHARED_LIMITS.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(SHARED_LIMITS))
    };
    let content =
        field::response_head_without(head, keeps_length, client, is_shared, NOTICE_OCTETS);
    let settlement = record.settlement().filter(|_| head.status == 200);
    let Some(notice) = settlement.and_then(Settlement::notice) else {
        return content;
    };
    match content {
        HeadContent::Octets(mut octets) => {
            notice.lines(|part| octets.extend_from_slice(part));
            HeadContent::Octets(octets)
        }
        HeadContent::Fields(fields) => {
            let own = notice.fields();
            let own = own.iter();
            let own = own.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let theirs = fields.iter().map(|field| (field.name, field.value));
            HeadContent::Fields(Fields::from_pairs(theirs.chain(own)))
        }
    }
}

/// Room for the fields of a notice.
const NOTICE_OCTETS: usize = 400;

/// Beginning of the fields that describe the account at the upstream.
const SHARED_LIMITS: &[u8] = b"anthropic-ratelimit-";

/// The upstream's list of models, without those that the key may not use.
pub(super) fn filtered(
    list: FilteredList,
    record: ExchangeRecord,
    client: Version,
) -> HttpResponse {
    let FilteredList { head, content } = list;
    let octets = keyed_head(&head, false, client, &record);
    let relayed = RelayedHead {
        content: octets,
        framing: Framing::Length(content.len() as u64),
        notes: None,
        tunnel: None,
    };
    let mut response = HttpResponse::new(head.status);
    response.extensions_mut().insert(relayed);
    let mut record = record.head(&head);
    record.answers(head.status);
    response.set_body(BoxBody::new(OwnBody { content, record }))
}

/// A success of the proxy's own, in JSON.
pub(super) fn own(content: String, mut record: ExchangeRecord) -> HttpResponse {
    record.answers(StatusCode::OK);
    let id = record.id().to_string();
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("request-id", id))
        .message_body(BoxBody::new(OwnBody {
            content: content.into(),
            record,
        }))
        .unwrap_or_else(|_| HttpResponse::InternalServerError().finish())
}

/// Content that is here whole, with the record of its exchange.
struct OwnBody {
    content: Bytes,
    record: ExchangeRecord,
}

impl MessageBody for OwnBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.content.len() as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let content = std::mem::take(&mut this.content);
        if content.is_empty() {
            return Poll::Ready(None);
        }
        this.record.content(&content, false);
        Poll::Ready(Some(Ok(content)))
    }
}

/// An answer of ours.
pub(super) fn refused(cause: &ProxyError, record: ExchangeRecord) -> HttpResponse {
    let answer = cause.answer();
    let is_final = cause.is_permanent() && !record.has_other_ways;
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
    if is_final {
        response.insert_header(("x-should-retry", "false"));
    }
    if let ProxyError::Refused(refused) = cause {
        if let Some(seconds) = refused.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        for (name, value) in &refused.fields {
            response.insert_header((*name, &**value));
        }
        return response.body(refused.content(&request_id));
    }
    if let Some(seconds) = answer.retry_after {
        response.insert_header((header::RETRY_AFTER, seconds.to_string()));
    }
    response.body(answer.content(&request_id))
}
