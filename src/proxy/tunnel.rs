//! Tunnels: WebSocket and whatever else a client asks to switch to by `Upgrade` (RFC 9110 §7.8), or by
//! an extended CONNECT over HTTP/2 (RFC 8441).
//!
//! An exchange like any other up to the upstream's head. Whoever answers with anything but a 101 refused,
//! and the answer is relayed as it came. After a 101 both bodies are opaque octets, and
//! one timer watches both.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::StatusCode,
};
use bytes::Bytes;

use super::record::{Chain, ExchangeEnd, ExchangeRecord};
use crate::{
    config::Live,
    label::Label,
    upstream::{ResponseBody, exchange::BodyError, http1::UpstreamTunnel},
    wire::{
        body::Framing,
        head::{HeadContent, RelayedHead, TunnelNotes},
        idle::IdleTimer,
    },
};

/// The upstream's 101, and the tunnel as its body.
pub(super) fn relayed(
    content: HeadContent,
    body: ResponseBody,
    record: ExchangeRecord,
    live: &Live,
) -> HttpResponse {
    let notes = Rc::<TunnelNotes>::default();
    let relayed = RelayedHead {
        content: without_accept(content),
        framing: Framing::UntilClose,
        notes: None,
        tunnel: Some(Rc::clone(&notes)),
    };
    let mut response = HttpResponse::new(StatusCode::SWITCHING_PROTOCOLS);
    response.extensions_mut().insert(relayed);
    response.set_body(BoxBody::new(TunnelBody {
        tunnel: body.into_tunnel(),
        notes,
        record,
        idle: IdleTimer::new(live.timers.tunnel_idle),
        sent: 0,
    }))
}

/// RFC 8441 §5: over HTTP/2 there is no `Sec-WebSocket-Accept`.
fn without_accept(content: HeadContent) -> HeadContent {
    match content {
        HeadContent::Fields(fields) => {
            HeadContent::Fields(fields.retain(|field| !field.is("sec-websocket-accept")))
        }
        octets @ HeadContent::Octets(_) => octets,
    }
}

/// Both directions of a tunnel: gives the upstream's octets, and moves the client's meanwhile.
struct TunnelBody {
    /// None once it has ended.
    tunnel: Option<UpstreamTunnel>,
    notes: Rc<TunnelNotes>,
    record: ExchangeRecord,
    idle: IdleTimer,
    /// Octets that had left for the upstream when it was last looked at.
    sent: u64,
}

impl TunnelBody {
    fn fail(&mut self, cause: TunnelError, ended: ExchangeEnd) -> TunnelError {
        self.tunnel = None;
        self.record.ended = ended;
        // the others are told by the record alone: they are how many a tunnel ends
        if let ExchangeEnd::Upstream(_) = ended {
            log::warn!("[Tunnel] {} request_id={}", Chain(&cause), self.record.id());
        }
        cause
    }
}

impl MessageBody for TunnelBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let Some(tunnel) = &mut this.tunnel else {
            return Poll::Ready(None);
        };
        if let Some(label) = this.record.poll_ending(cx) {
            let ended = ExchangeEnd::Proxy(label);
            return Poll::Ready(Some(Err(this.fail(TunnelError::Ended, ended).into())));
        }
        let outcome = tunnel.poll_content(cx, this.notes.is_held_back.get());
        this.record.receives();
        this.notes.upstream_ended.set(tunnel.upstream_ended());
        let sent = std::mem::replace(&mut this.sent, tunnel.sent());
        match outcome {
            Poll::Ready(Some(Ok(content))) => {
                this.idle.heard();
                this.record.relays(content.len());
                Poll::Ready(Some(Ok(content)))
            }
            Poll::Ready(None) => {
                this.tunnel = None;
                this.record.ended = ExchangeEnd::Complete;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                let ended = match &cause {
                    BodyError::Downstream(_) => ExchangeEnd::Client,
                    _ => ExchangeEnd::Upstream(Label::ConnectionTerminated),
                };
                Poll::Ready(Some(Err(this.fail(cause.into(), ended).into())))
            }
            Poll::Pending => {
                if sent != this.sent {
                    this.idle.heard();
                }
                if this.idle.poll_silence(cx).is_pending() {
                    return Poll::Pending;
                }
                let ended = ExchangeEnd::Proxy(Label::TunnelIdleTimeout);
                Poll::Ready(Some(Err(this.fail(TunnelError::Idle, ended).into())))
            }
        }
    }
}

/// Error that ends a tunnel early.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error("tunnel aborted")]
    Aborted(#[from] BodyError),
    #[error("tunnel was silent for TUNNEL_IDLE_TIMEOUT")]
    Idle,
    #[error("an operator ended the tunnel, or revoked its key")]
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proxy::field,
        wire::head::{Fields, ResponseHead, Version},
    };

    #[test]
    fn a_client_of_http_2_gets_no_accept() {
        let head = ResponseHead {
            status: StatusCode::SWITCHING_PROTOCOLS,
            reason: Bytes::new(),
            fields: Fields::from_pairs([
                (&b"Upgrade"[..], &b"websocket"[..]),
                (b"Sec-WebSocket-Accept", b"x"),
                (b"Sec-WebSocket-Protocol", b"chat"),
            ]),
        };
        let content = field::response_head(&head, false, Version::Http2);
        let HeadContent::Fields(fields) = without_accept(content) else {
            panic!("not for HTTP/2");
        };
        let names: Vec<_> = fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [b"Sec-WebSocket-Protocol"]);
    }
}
