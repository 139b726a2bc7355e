//! Reads the first event of a response before its head goes to the client ([`super::first_event`]).

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use super::{
    body::{Prefetched, ResponseBody},
    exchange::Response,
    first_event::{FirstEvent, LIMIT, judge},
};

/// Reads until the kind of the first event is known, or for the time of `patience`. The returned
/// response is the same, with the beginning of its body.
pub async fn read(
    response: Response<ResponseBody>,
    patience: Duration,
) -> (Response<ResponseBody>, FirstEvent) {
    let mut body = Prefetched {
        content: VecDeque::new(),
        failure: None,
        rest: response.body,
    };
    let mut beginning = Vec::new();
    let mut timer = pin!(actix_rt::time::sleep(patience));
    let first = poll_fn(|cx| {
        loop {
            let content = match body.rest.poll_content(cx) {
                Poll::Ready(Some(Ok(content))) => content,
                Poll::Ready(None) => return Poll::Ready(judge(&beginning, true)),
                Poll::Ready(Some(Err(cause))) => {
                    body.failure = Some(cause);
                    return Poll::Ready(Some(FirstEvent::Other));
                }
                Poll::Pending => return timer.as_mut().poll(cx).map(|()| None),
            };
            let room = content.len().min(LIMIT - beginning.len());
            beginning.extend_from_slice(&content[..room]);
            body.content.push_back(content);
            if let Some(first) = judge(&beginning, false) {
                return Poll::Ready(Some(first));
            }
        }
    })
    .await;
    let response = Response {
        body: ResponseBody::Prefetched(Box::new(body)),
        ..response
    };
    (response, first.unwrap_or(FirstEvent::Other))
}
