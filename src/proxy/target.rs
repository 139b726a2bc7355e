//! The request line that goes upstream: the client's target, verbatim, behind the upstream's prefix.

use actix_web::http::Method;
use bytes::{BufMut, BytesMut};

use crate::config::{Endpoint, OutboundRoute, Scheme};

/// Writes `METHOD target HTTP/1.1 CRLF`. The target is in absolute-form where an HTTP proxy is asked
/// for a clear-text upstream (RFC 9112 §3.2.2).
pub fn put_request_line(
    octets: &mut BytesMut,
    endpoint: &Endpoint,
    method: &Method,
    target: &[u8],
) {
    let upstream = &endpoint.upstream;
    octets.put_slice(method.as_str().as_bytes());
    octets.put_slice(b" ");
    let is_absolute =
        upstream.scheme == Scheme::Http && matches!(endpoint.route, OutboundRoute::HttpProxy(_));
    if is_absolute {
        octets.put_slice(b"http://");
        octets.put_slice(upstream.authority.as_bytes());
    }
    if target != b"*" {
        octets.put_slice(upstream.prefix.as_bytes());
        octets.put_slice(target);
    } else if !is_absolute {
        // `OPTIONS *` asks about the server as a whole: no prefix belongs before it, and in
        // absolute-form it has no path at all (RFC 9112 §3.2.4)
        octets.put_slice(target);
    }
    octets.put_slice(b" HTTP/1.1\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::live;

    #[test]
    fn targets_stay_as_they_are_behind_the_prefix() {
        for (base, target, expected) in [
            (
                "http://a",
                "/v1/messages?beta=true",
                "GET /v1/messages?beta=true HTTP/1.1\r\n",
            ),
            (
                "http://a/p/q",
                "//x/../%2f?",
                "GET /p/q//x/../%2f? HTTP/1.1\r\n",
            ),
            ("http://a/p", "*", "GET * HTTP/1.1\r\n"),
        ] {
            let mut octets = BytesMut::new();
            let live = live(base);
            put_request_line(
                &mut octets,
                &live.endpoints[0],
                &Method::GET,
                target.as_bytes(),
            );
            assert_eq!(octets, expected);
        }
    }
}
