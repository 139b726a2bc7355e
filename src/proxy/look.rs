//! A request's body that is looked at as it passes.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::{BoxedPayloadStream, Payload, error::PayloadError};
use bytes::Bytes;
use futures_core::Stream;

use crate::metering::RequestInspector;

/// The look at the request's own words, shared by the body that passes and the watch.
pub(super) type Looking = Rc<RefCell<RequestInspector>>;

/// The body of a request on its way, looked at where somebody does.
pub(super) fn passing(payload: Payload, look: Option<Looking>) -> Payload {
    match look {
        Some(look) => looked_at(payload, look),
        None => payload,
    }
}

/// A request's body that is looked at as it passes.
fn looked_at(payload: Payload, look: Looking) -> Payload {
    let payload: BoxedPayloadStream = Box::pin(Looked {
        payload,
        look: Some(look),
    });
    Payload::Stream { payload }
}

struct Looked {
    payload: Payload,
    /// Until enough was seen.
    look: Option<Looking>,
}

impl Stream for Looked {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.payload).poll_next(cx);
        let wants_more = match (&this.look, &outcome) {
            (Some(look), Poll::Ready(Some(Ok(content)))) => look.borrow_mut().push(content),
            (Some(look), Poll::Ready(None)) => {
                look.borrow_mut().end();
                false
            }
            _ => true,
        };
        if !wants_more {
            this.look = None;
        }
        outcome
    }
}
