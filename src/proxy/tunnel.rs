//! Tunnels: WebSocket and whatever else a client asks to switch to by `Upgrade` (RFC 9110 §7.8), or by
//! an extended CONNECT over HTTP/2 (RFC 8441).
//!
//! An exchange like any other up to the upstream's head. Whoever answers with anything but a 101 refused,
//! and the answer is relayed as it came. After a 101 both bodies are octets that nobody looks at, and
//! one timer watches both.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::StatusCode,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::{SecureRandom as _, SystemRandom},
};

use super::{
    Plan,
    exchange::{Chain, ENDED_BY_OPERATOR, Ended, Record},
    field,
};
use crate::{
    config::Live,
    error::{ProxyError, UpstreamError},
    upstream::{
        ResponseBody,
        http1::{Body, BodyError, Switch, Tunnel},
    },
    wire::{
        body::Framing,
        head::{HeadContent, RelayedHead, RequestHead, ResponseHead, TunnelNotes, Version},
        idle::IdleTimer,
    },
};

/// What the upstream is asked to switch to.
pub(super) struct Asked {
    protocols: Bytes,
    /// Of a WebSocket handshake that is ours, because the client's version has none.
    key: Option<String>,
    client: Version,
}

/// The plan of a request that asks for a tunnel: what follows its head waits for the upstream's word.
pub(super) fn ask(head: &RequestHead, payload: Payload) -> Plan {
    let protocols = head.upgrade.clone().unwrap_or_default();
    let is_websocket = protocols.eq_ignore_ascii_case(b"websocket");
    let has_key = head.fields.value("sec-websocket-key").is_some();
    let needs_key = head.version == Version::Http2 && is_websocket && !has_key;
    let framing = match head.fields.value("content-length") {
        Some(_) => field::Length::Exactly(0),
        None => field::Length::Unsaid,
    };
    Plan {
        body: Body::Tunnel(Switch {
            protocols: protocols.clone(),
            payload,
            notes: Rc::clone(&head.notes),
        }),
        framing,
        tunnel: Some(Asked {
            protocols,
            key: needs_key.then(key),
            client: head.version,
        }),
        ..Plan::nothing()
    }
}

impl Asked {
    /// What the head says of it.
    pub(super) fn fields(&self) -> field::Upgrade<'_> {
        field::Upgrade {
            protocols: &self.protocols,
            key: self.key.as_deref(),
        }
    }

    /// A handshake that is ours must be answered to us; any other is the client's to judge. And a success
    /// that is no 101 would be agreement to a client of HTTP/2 (RFC 8441 §5), which it is not.
    pub(super) fn check(&self, answer: &ResponseHead) -> Result<(), ProxyError> {
        let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        let is_answered = match &self.key {
            Some(key) if switches => {
                answer.fields.value("sec-websocket-accept") == Some(accept(key).as_bytes())
            }
            _ => true,
        };
        let is_mistaken = self.client == Version::Http2 && answer.status.is_success();
        if is_answered && !is_mistaken {
            Ok(())
        } else {
            Err(UpstreamError::HttpUpgradeFailed.into())
        }
    }
}

/// 16 random octets (RFC 6455 §4.1).
fn key() -> String {
    let mut octets = [0; 16];
    // without them the handshake is still one; they protect against caches, not against anybody
    let _ = SystemRandom::new().fill(&mut octets);
    STANDARD.encode(octets)
}

/// The answer to a key (RFC 6455 §4.2.2, 5.).
fn accept(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(digest)
}

/// The upstream's 101, and the tunnel as its body.
pub(super) fn relayed(
    content: HeadContent,
    body: ResponseBody,
    record: Record,
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
    tunnel: Option<Tunnel>,
    notes: Rc<TunnelNotes>,
    record: Record,
    idle: IdleTimer,
    /// Octets that had left for the upstream when it was last looked at.
    sent: u64,
}

impl TunnelBody {
    fn fail(&mut self, cause: TunnelError, ended: Ended) -> TunnelError {
        self.tunnel = None;
        self.record.ended = ended;
        // the others are told by the record alone: they are how many a tunnel ends
        if let Ended::Upstream(_) = ended {
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
        if this.record.poll_ending(cx) {
            let ended = Ended::Proxy(ENDED_BY_OPERATOR);
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
                this.record.ended = Ended::Complete;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => {
                let ended = match &cause {
                    BodyError::Downstream(_) => Ended::Client,
                    _ => Ended::Upstream("connection_terminated"),
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
                let ended = Ended::Proxy("tunnel_idle_timeout");
                Poll::Ready(Some(Err(this.fail(TunnelError::Idle, ended).into())))
            }
        }
    }
}

/// Why a tunnel ended before both directions had.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error("tunnel aborted")]
    Aborted(#[from] BodyError),
    #[error("tunnel was silent for TUNNEL_IDLE_TIMEOUT")]
    Idle,
    #[error("an operator ended the tunnel")]
    Ended,
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;

    use super::*;
    use crate::{
        proxy::{Outgoing, tests::live},
        wire::head::{Fields, Transport},
    };

    #[test]
    fn a_key_is_answered_as_in_the_rfc() {
        // RFC 6455 §1.3
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(STANDARD.decode(key()).unwrap().len(), 16);
        assert_ne!(key(), key());
    }

    /// An extended CONNECT, as the downstream of HTTP/2 hands it on.
    fn connect(fields: &[(&[u8], &[u8])]) -> RequestHead {
        RequestHead {
            method: Method::GET,
            target: Bytes::from_static(b"/chat"),
            version: Version::Http2,
            transport: Transport::Tls,
            fields: Fields::from_pairs(fields.iter().copied()),
            framing: Framing::UntilClose,
            expects_continue: false,
            upgrade: Some(Bytes::from_static(b"websocket")),
            notes: Rc::default(),
        }
    }

    fn sent(head: &RequestHead, plan: &Plan) -> String {
        let live = live("http://up");
        let outgoing = Outgoing {
            head,
            live: &live,
            client: None,
            framing: plan.framing,
            expect: plan.expect,
            patience: live.timers.response_head,
            tunnel: plan.tunnel.as_ref(),
            waited: None,
            is_watched: false,
        };
        let octets = outgoing.head_for(&live.endpoints[0]);
        String::from_utf8(octets.to_vec()).unwrap()
    }

    #[test]
    fn a_websocket_over_http_2_gets_a_handshake_of_ours() {
        let protocol = (&b"sec-websocket-protocol"[..], &b"chat"[..]);
        let version = (&b"sec-websocket-version"[..], &b"13"[..]);
        for fields in [&[protocol][..], &[protocol, version]] {
            let head = connect(fields);
            let plan = ask(&head, Payload::None);
            let octets = sent(&head, &plan);
            assert!(octets.starts_with("GET /chat HTTP/1.1\r\n"), "{octets}");
            assert!(octets.contains("sec-websocket-protocol: chat\r\n"));
            assert!(octets.contains("connection: upgrade\r\nupgrade: websocket\r\n"));
            assert!(octets.contains("sec-websocket-key: "));
            assert_eq!(octets.matches("sec-websocket-version: 13\r\n").count(), 1);
            assert!(!octets.contains("transfer-encoding"));
        }
        // a client that brings its own judges the answer itself
        let head = connect(&[(b"sec-websocket-key", b"x")]);
        let octets = sent(&head, &ask(&head, Payload::None));
        assert_eq!(octets.matches("sec-websocket-key: x\r\n").count(), 1);
        assert_eq!(octets.matches("sec-websocket").count(), 1);
    }

    #[test]
    fn a_handshake_of_ours_must_be_answered_to_us() {
        let asked = ask(&connect(&[]), Payload::None).tunnel.unwrap();
        let right = accept(asked.key.as_deref().unwrap());
        let answer = |status: u16, value: &str| ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            reason: Bytes::new(),
            fields: Fields::from_pairs([
                (&b"Upgrade"[..], &b"websocket"[..]),
                (b"Sec-WebSocket-Accept", value.as_bytes()),
                (b"Sec-WebSocket-Protocol", b"chat"),
            ]),
        };
        assert!(asked.check(&answer(101, &right)).is_ok());
        assert!(asked.check(&answer(403, "")).is_ok());
        assert!(asked.check(&answer(200, "")).is_err());
        assert!(asked.check(&answer(101, &accept("other"))).is_err());
        // and the client, which sent no key, is told of none
        let content = field::response_head(&answer(101, &right), false, Version::Http2);
        let HeadContent::Fields(fields) = without_accept(content) else {
            panic!("not for HTTP/2");
        };
        let names: Vec<_> = fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [b"Sec-WebSocket-Protocol"]);
    }
}
