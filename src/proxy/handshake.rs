//! The handshake of a tunnel: the protocols that the upstream is asked to switch to.

use actix_web::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::{SecureRandom as _, SystemRandom},
};

use super::field;
use crate::{
    error::{ProxyError, UpstreamError},
    wire::head::{RequestHead, ResponseHead, Version},
};

/// Handshake of a tunnel towards the upstream.
pub(super) struct TunnelHandshake {
    protocols: Bytes,
    /// Key of a WebSocket handshake that the proxy makes, because the client's version has none.
    key: Option<String>,
    client: Version,
}

impl TunnelHandshake {
    /// The handshake of a request whose head asks for a tunnel.
    pub(super) fn of(head: &RequestHead) -> Self {
        let protocols = head.upgrade.clone().unwrap_or_default();
        let is_websocket = protocols.eq_ignore_ascii_case(b"websocket");
        let has_key = head.fields.value("sec-websocket-key").is_some();
        let needs_key = head.version == Version::Http2 && is_websocket && !has_key;
        Self {
            protocols,
            key: needs_key.then(key),
            client: head.version,
        }
    }

    /// The protocols that the upstream is asked for.
    pub(super) fn protocols(&self) -> Bytes {
        self.protocols.clone()
    }

    /// Gives the fields of the handshake.
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use actix_web::{dev::Payload, http::Method};

    use super::*;
    use crate::{
        proxy::{outgoing::Outgoing, plan::Plan, tests::live},
        wire::{
            body::Framing,
            head::{Fields, Transport},
        },
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
            keyed: None,
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
            let plan = Plan::tunnel(&head, Payload::None);
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
        let octets = sent(&head, &Plan::tunnel(&head, Payload::None));
        assert_eq!(octets.matches("sec-websocket-key: x\r\n").count(), 1);
        assert_eq!(octets.matches("sec-websocket").count(), 1);
    }

    #[test]
    fn a_handshake_of_ours_must_be_answered_to_us() {
        let asked = Plan::tunnel(&connect(&[]), Payload::None).tunnel.unwrap();
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
    }
}
