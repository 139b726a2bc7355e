//! The same way through awc's builder, for one measurement: what it would cost ([`crate::upstream`]).
//!
//! Compiled with the feature `awc-hot-path` only, and no product: it keeps neither the record nor the
//! idle timer of an exchange, so its figure flatters awc.

use std::{io, rc::Rc};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, SizedStream},
    error::PayloadError,
    http::header::{CONTENT_LENGTH, HeaderName, HeaderValue},
    web,
};
use futures_util::{StreamExt as _, stream};

use super::{
    field, head, hold,
    plan::{Plan, Treatment},
    worker::Worker,
};
use crate::{
    edit,
    upstream::request::Body,
    wire::{
        body::Framing,
        head::{Fields, RelayedHead, ResponseHead},
        role::Role,
    },
};

/// Forwards one request through awc.
pub async fn forward(
    req: HttpRequest,
    payload: web::Payload,
    worker: web::ThinData<Rc<Worker>>,
) -> HttpResponse {
    let live = worker.live.load_full();
    let head = head::take(&req);
    let is_messages =
        std::str::from_utf8(head.path()).is_ok_and(|path| edit::is_messages(&head.method, path));
    let payload = payload.into_inner();
    let plan = match Treatment::of(&head, is_messages, &live) {
        Treatment::Empty => Plan::nothing(),
        Treatment::Edit(edit) => {
            match hold::edit(&head, payload, edit, &worker, &live, None, false).await {
                Ok(plan) => plan,
                Err(_) => return HttpResponse::BadGateway().finish(),
            }
        }
        Treatment::Tunnel | Treatment::Pass { .. } => Plan::stream(&head, payload),
    };
    let target = String::from_utf8_lossy(&head.target);
    let url = format!("http://{}{target}", live.endpoints[0].upstream.authority);
    let mut request = worker
        .client
        .awc()
        .request(head.method.clone(), url)
        .no_decompress();
    for field in head
        .fields
        .iter()
        .filter(|field| field.role() == Role::EndToEnd)
    {
        let name = HeaderName::from_bytes(field.name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            request.headers_mut().append(name, value);
        }
    }
    let sent = match plan.body {
        // a tunnel is not measured here
        Body::None | Body::Tunnel(_) => request.send().await,
        Body::Held(held) => {
            let length = held.content.iter().map(|piece| piece.len() as u64).sum();
            let pieces = stream::iter(held.content.into_iter().map(Ok::<_, io::Error>));
            request.send_body(SizedStream::new(length, pieces)).await
        }
        Body::Streamed(incoming) => {
            request
                .send_stream(incoming.payload.map(|item| item.map_err(io_error)))
                .await
        }
    };
    let Ok(response) = sent else {
        return HttpResponse::BadGateway().finish();
    };
    let status = response.status();
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let framing = length.map_or(Framing::Chunked, Framing::Length);
    let fields = Fields::from_map(response.headers());
    let answer = ResponseHead {
        status,
        reason: <_>::default(),
        fields,
    };
    let content = field::response_head(&answer, false, head::version(&req));
    let mut relayed = HttpResponse::new(status);
    relayed.extensions_mut().insert(RelayedHead {
        content,
        framing,
        notes: None,
        tunnel: None,
    });
    relayed.set_body(BoxBody::new(actix_web::body::BodyStream::new(
        response.map(|item| item.map_err(io_error)),
    )))
}

fn io_error(cause: PayloadError) -> io::Error {
    io::Error::other(cause.to_string())
}
