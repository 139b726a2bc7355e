//! Inspection of a request's body as it passes.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::{BoxedPayloadStream, Payload, error::PayloadError};
use bytes::Bytes;
use futures_core::Stream;

use crate::metering::{PromptDigester, RequestInspector};

/// Inspector of the request's body, shared by the body and the observation.
pub(super) type SharedInspector = Rc<RefCell<RequestInspector>>;

/// Digester of the request's prompt, shared by the body and the observation.
pub(super) type SharedDigester = Rc<RefCell<PromptDigester>>;

/// Gives the request's body, digested as it passes if a digester is given.
pub(super) fn digested(payload: Payload, digester: Option<SharedDigester>) -> Payload {
    match digester {
        Some(digester) => {
            let payload: BoxedPayloadStream = Box::pin(DigestedBody { payload, digester });
            Payload::Stream { payload }
        }
        None => payload,
    }
}

/// Gives the request's body, inspected as it passes if an inspector is given.
pub(super) fn passing(payload: Payload, look: Option<SharedInspector>) -> Payload {
    match look {
        Some(look) => looked_at(payload, look),
        None => payload,
    }
}

/// Inspection of a request's body as it passes.
fn looked_at(payload: Payload, look: SharedInspector) -> Payload {
    let payload: BoxedPayloadStream = Box::pin(InspectedBody {
        payload,
        look: Some(look),
    });
    Payload::Stream { payload }
}

struct DigestedBody {
    payload: Payload,
    digester: SharedDigester,
}

impl Stream for DigestedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.payload).poll_next(cx);
        if let Poll::Ready(Some(Ok(content))) = &outcome {
            this.digester.borrow_mut().push(content);
        }
        outcome
    }
}

struct InspectedBody {
    payload: Payload,
    /// The inspector, until it has seen enough.
    look: Option<SharedInspector>,
}

impl Stream for InspectedBody {
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
