//! A request on its way out: its head, written for each endpoint that it is sent to.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{field, handshake::TunnelHandshake, target};
use crate::{
    config::{Endpoint, Live, Scheme},
    upstream::{
        dial,
        replay::ReplayBuffer,
        request::{Body, Continue, Request, StreamedBody},
    },
    wire::{
        body::Framing,
        head::{Fields, RequestHead},
    },
};

/// A request on its way out: all that its head is made from, for whichever endpoint it goes to.
pub(super) struct Outgoing<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) live: &'a Live,
    pub(super) client: Option<IpAddr>,
    pub(super) framing: field::OutgoingFraming,
    pub(super) expect: field::ExpectHandling,
    pub(super) patience: Duration,
    pub(super) tunnel: Option<&'a TunnelHandshake>,
    /// Start and end of the wait for a buffered body; only if telemetry observes the exchange.
    pub(super) waited: Option<(Instant, Instant)>,
    /// True if telemetry observes the exchange.
    pub(super) is_watched: bool,
    /// Treatment of its credentials, for a request with a key of the proxy.
    pub(super) keyed: Option<field::KeyedFields<'a>>,
}

impl Outgoing<'_> {
    pub(super) fn request(
        &self,
        endpoint: &Endpoint,
        body: Body,
        keep: Option<Box<ReplayBuffer>>,
    ) -> Request {
        Request {
            head: self.head_for(endpoint),
            method: self.head.method.clone(),
            body,
            patience: self.patience,
            keep,
            is_watched: self.is_watched,
            edges: self.head.notes.verification.get().map(|verification| {
                let framing = match self.framing {
                    field::OutgoingFraming::Unsaid => Framing::None,
                    field::OutgoingFraming::Exactly(length) => Framing::Length(length),
                    field::OutgoingFraming::Chunked => Framing::Chunked,
                };
                verification.attempt(framing)
            }),
        }
    }

    /// A body that was asked for once does not wait for the next upstream's word.
    pub(super) fn follow(&mut self, body: &Body) {
        if !matches!(
            body,
            Body::Streamed(StreamedBody {
                go_ahead: Continue::Expected,
                ..
            })
        ) {
            self.expect = field::ExpectHandling::Answered;
        }
    }

    pub(super) fn head_for(&self, endpoint: &Endpoint) -> Bytes {
        // a tunnel has told the proxy already, and the upstream is not to be told
        let proxy_authorization = match endpoint.upstream.scheme {
            Scheme::Http => dial::proxy_authorization(&endpoint.route),
            Scheme::Https => None,
        };
        let Self {
            head, live, client, ..
        } = *self;
        let mut octets = BytesMut::with_capacity(head.fields.octets() + 512);
        target::put_request_line(&mut octets, endpoint, &head.method, &head.target);
        field::put_request_fields(
            &mut octets,
            &field::RequestFields {
                live,
                endpoint,
                transport: head.transport,
                fields: &head.fields,
                client,
                framing: self.framing,
                expect: self.expect,
                proxy_authorization: proxy_authorization.as_ref(),
                upgrade: self.tunnel.map(TunnelHandshake::fields),
                keyed: self.keyed,
            },
        );
        octets.freeze()
    }
}

/// The longest wait for the response head (docs/contract.md §4.2).
pub(super) fn patience(fields: &Fields, generates: bool, live: &Live) -> Duration {
    let ours = if generates {
        live.timers.generation
    } else {
        live.timers.response_head
    };
    let theirs = fields
        .value("x-stainless-timeout")
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<u32>().ok())
        .map(|seconds| Duration::from_secs(u64::from(seconds)).min(MAX_DECLARED_PATIENCE));
    theirs.map_or(ours, |theirs| theirs.max(ours))
}

/// Upper bound of `X-Stainless-Timeout`.
const MAX_DECLARED_PATIENCE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::live;

    #[test]
    fn patience_grows_with_what_the_client_declares() {
        let live = live("http://a");
        let declared = |value: &str| {
            let mut map = actix_web::http::header::HeaderMap::new();
            map.insert(
                "x-stainless-timeout".parse().unwrap(),
                value.parse().unwrap(),
            );
            Fields::from_map(&map)
        };
        for (value, generates, seconds) in [
            ("600", true, 600),
            ("1", true, 2),
            ("1", false, 1),
            ("99999", false, 3600),
            ("soon", false, 1),
        ] {
            let found = patience(&declared(value), generates, &live);
            assert_eq!(found, Duration::from_secs(seconds), "{value}");
        }
    }
}
