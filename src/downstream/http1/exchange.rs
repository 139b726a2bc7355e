//! One request and its response: handler, body and interim responses.

use std::{
    future::{Future as _, poll_fn},
    rc::Rc,
    task::{Poll, ready},
};

use actix_http::{
    BoxedPayloadStream, Payload, Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use bytes::Bytes;

use super::{
    body::{Http1Expectation, Http1RequestBody},
    connection::{ConnectionAbort, Http1ServerConnection},
    io::{poll_flush, poll_watch},
    request::{KeepAlive, ParsedRequest},
    response,
};
use crate::{
    downstream::{peer::Peer, service::routed},
    drain::DrainPhase,
    error::{Answer, InternalError, ProxyError},
    wire::{
        body::{Decoder, Framing},
        head::{RelayedHead, RequestHead},
    },
};

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Runs one request and its response.
    pub(super) async fn exchange(
        &mut self,
        parsed: ParsedRequest,
        is_local: bool,
    ) -> Result<KeepAlive, ConnectionAbort> {
        let ParsedRequest {
            mut head,
            mut keep_alive,
        } = parsed;
        let version = head.version;
        let method = head.method.clone();
        {
            let mut wire = self.wire.borrow_mut();
            // what follows an upgrade is the next request, unless the upstream agrees
            wire.decoder = Decoder::new(match head.upgrade {
                None => head.framing,
                Some(_) => Framing::None,
            });
            wire.edge = None;
            // a client that already sends does not wait
            head.expects_continue &= wire.read.octets.is_empty();
            wire.expect = if head.expects_continue {
                Http1Expectation::Waiting(Rc::clone(&head.notes))
            } else {
                Http1Expectation::Nothing
            };
        }
        self.asked = Some(Rc::clone(&head.notes));
        let has_body = head.framing != Framing::None;
        let request = self.request(head, is_local);
        let response = match self.call(request).await? {
            Ok(response) => response,
            Err(answer) => {
                return self
                    .refuse(answer, Some(&method))
                    .await
                    .map(|()| KeepAlive::No);
            }
        };
        let (_, mut response) = response.into_parts();
        let mut relayed_head = response.extensions_mut().remove::<RelayedHead>();
        let (response, body) = response.into_parts();
        if let Some(head) = relayed_head.take_if(|head| head.tunnel.is_some()) {
            drop(response);
            return self.tunnel(head, body).await.map(|()| KeepAlive::No);
        }
        if relayed_head.is_none() {
            // a refusal does not cost the connection if the whole request has arrived
            self.wire.borrow_mut().discard();
        }
        // unread octets of the request stand before the next one, and no handler reads them
        if !self.wire.borrow().decoder.is_done() || self.services.drain.phase().ends_connections() {
            keep_alive = KeepAlive::No;
        }
        self.upload = match (&relayed_head, has_body) {
            (Some(_), true) => self.asked.clone(),
            _ => None,
        };
        let notes = relayed_head.as_ref().and_then(|head| head.notes.clone());
        let (head, delimiter) = match relayed_head {
            Some(head) => response::relayed(head, response.head(), version, &mut keep_alive),
            None => response::own(
                response.head(),
                body.size(),
                &method,
                version,
                &mut keep_alive,
            ),
        };
        drop(response);
        let verification = self
            .asked
            .as_ref()
            .and_then(|asked| asked.verification.get());
        if let Some(verification) = verification {
            let edge = &verification.response;
            edge.begin(delimiter.framing(), self.outbox.octets() + head.len());
            self.outbox.digests(Some(Rc::clone(edge)));
        }
        self.outbox.push(head);
        let outcome = self.content(body, delimiter, notes).await;
        self.outbox.digests(None);
        outcome?;
        if !self.wire.borrow().decoder.is_done() {
            keep_alive = KeepAlive::No;
        }
        Ok(keep_alive)
    }

    fn request(&self, mut head: RequestHead, is_local: bool) -> Request {
        head.transport = self.arrival.transport;
        let payload = if head.framing == Framing::None {
            Payload::None
        } else {
            let body = Http1RequestBody::new(
                Rc::clone(&self.wire),
                Rc::clone(&head.notes),
                self.timers.request_body,
            );
            let body: BoxedPayloadStream = Box::pin(body);
            Payload::Stream { payload: body }
        };
        routed(head, payload, &self.arrival, is_local)
    }

    /// Runs the handler and watches the client meanwhile.
    async fn call(
        &mut self,
        request: Request,
    ) -> Result<Result<ServiceResponse<BoxBody>, Answer>, ConnectionAbort> {
        let mut handler = std::pin::pin!(self.services.app.call(request));
        let (wire, outbox) = (&self.wire, &mut self.outbox);
        let (timer, delivery) = (&mut self.timer, &mut self.delivery);
        let drain = &self.services.drain;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
                let failed = ProxyError::Internal(InternalError::Handler);
                return Poll::Ready(Ok(outcome.map_err(|_| failed.answer())));
            }
            let mut wire = wire.borrow_mut();
            if matches!(wire.expect, Http1Expectation::Owed) {
                wire.expect = Http1Expectation::Nothing;
                outbox.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            if poll_flush(cx, outbox, &mut wire.stream, delivery).is_err() {
                return Poll::Ready(Err(ConnectionAbort::Client));
            }
            if drain.phase() == DrainPhase::Cut {
                return Poll::Ready(Err(ConnectionAbort::Cut));
            }
            ready!(poll_watch(cx, &mut wire, timer));
            Poll::Ready(Err(ConnectionAbort::Client))
        })
        .await
    }
}
