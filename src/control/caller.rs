//! Origin of a request: the proxy's own pages, or those of a foreign site.
//!
//! A request that a foreign page makes a browser send must not pass for its user: a session's cookie goes
//! along with it where both sites have one name, and what needs no key would be read. So the host that
//! was asked for, the origin that asks, and fetch metadata are all looked at; a name that was rebound to this
//! machine (DNS rebinding) is told by its `Host`. None of this gives access that needs the key.

use std::net::IpAddr;

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::header::{self, HeaderMap},
};

use crate::wire::{
    head::{RequestHead, Transport},
    origin::{self, is_loopback_host},
};

/// Client of the admin plane, as its request describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller<'a> {
    /// The client's address; none on a Unix socket.
    pub(super) peer: Option<IpAddr>,
    /// True if the request came over TLS.
    is_tls: bool,
    /// `Host`, or `:authority`; empty where there are several, or none.
    host: &'a str,
    /// `Origin`, if there is one.
    origin: Option<&'a str>,
    /// `Sec-Fetch-Site`, if there is one.
    site: Option<&'a str>,
    /// `Sec-Fetch-Mode`, if there is one.
    mode: Option<&'a str>,
}

impl<'a> Caller<'a> {
    pub(super) fn of(request: &'a HttpRequest) -> Self {
        let extensions = request.extensions();
        let head = extensions.get::<RequestHead>();
        let transport = head.map_or(Transport::Clear, |head| head.transport);
        let peer = request
            .peer_addr()
            .map(|address| address.ip().to_canonical());
        Self::new(request.headers(), peer, transport)
    }

    fn new(fields: &'a HeaderMap, peer: Option<IpAddr>, transport: Transport) -> Self {
        // one that cannot be read, or one of several, is none that we know
        let only = |name: header::HeaderName| {
            let mut values = fields.get_all(name);
            let first = values.next()?.to_str().unwrap_or_default();
            Some(if values.next().is_some() { "" } else { first })
        };
        let named = |name: &'static str| only(header::HeaderName::from_static(name));
        Self {
            peer,
            is_tls: transport == Transport::Tls,
            host: only(header::HOST).unwrap_or_default(),
            origin: only(header::ORIGIN),
            site: named("sec-fetch-site"),
            mode: named("sec-fetch-mode"),
        }
    }

    /// Tells whether a page of a foreign site may have made the request.
    pub(super) fn is_cross_site(&self) -> bool {
        match self.site {
            // the browser knows better than we: who terminates TLS in front of us may have changed `Host`
            Some("same-origin") => false,
            None | Some("none") => self.origin.is_some_and(|origin| !self.is_own(origin)),
            Some(_) => true,
        }
    }

    /// Tells whether the request names this proxy, as far as its names are known: a page whose name was
    /// rebound to this machine does not.
    pub(super) fn knows_us(&self) -> bool {
        let is_here = self.peer.is_none_or(|peer| peer.is_loopback());
        !self.is_cross_site() && (!is_here || is_loopback_host(self.host))
    }

    /// Tells whether cookies come over TLS: here, or in front of the proxy, as the browser's origin says.
    pub(super) fn is_secure(&self) -> bool {
        let is_https = |origin: &str| origin.starts_with("https://");
        self.is_tls || self.origin.is_some_and(is_https)
    }

    /// Tells whether a user follows a link, on any site.
    pub(super) fn navigates(&self) -> bool {
        self.origin.is_none() && matches!(self.mode, None | Some("navigate"))
    }

    /// Tells whether an origin (RFC 6454 §6.1) is that of our own pages.
    fn is_own(&self, origin: &str) -> bool {
        origin::is_same(origin, self.host, self.is_tls)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    const CLEAR: Transport = Transport::Clear;
    const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    #[test]
    fn a_name_that_was_rebound_to_this_machine_does_not_know_us() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8088", true),
            ("127.0.0.1", true),
            ("127.1.2.3:1", true),
            ("[::1]:8088", true),
            ("[0:0:0:0:0:0:0:1]", true),
            ("", false),
            ("localhost.", false),
            ("localhost.evil.test", false),
            ("evil.test", false),
            ("127.0.0.1.evil.test", false),
            ("127.1", false),
            ("0.0.0.0", false),
            ("192.168.0.1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[::2]", false),
            ("localhost:x", false),
            ("localhost:99999", false),
            ("user@localhost", false),
        ] {
            let map = fields(&[("host", host)]);
            for (peer, is_here) in [
                (None, true),
                (Some("127.0.0.1"), true),
                (Some("::1"), true),
                (Some("192.0.2.1"), false),
            ] {
                let peer = peer.map(|peer| peer.parse().unwrap());
                let found = Caller::new(&map, peer, CLEAR).knows_us();
                assert_eq!(found, expected || !is_here, "{host} {peer:?}");
            }
        }
        let twice = fields(&[("host", "localhost"), ("host", "localhost")]);
        assert!(!Caller::new(&twice, HERE, CLEAR).knows_us());
    }

    #[test]
    fn a_browser_that_says_same_origin_is_believed() {
        let foreign = ("origin", "https://proxy.test");
        for (site, expected) in [
            (Some("same-origin"), false),
            (Some("none"), true),
            (Some("same-site"), true),
            (None, true),
        ] {
            let mut pairs = vec![("host", "127.0.0.1:8088"), foreign];
            pairs.extend(site.map(|site| ("sec-fetch-site", site)));
            let map = fields(&pairs);
            let caller = Caller::new(&map, None, CLEAR);
            assert_eq!(caller.is_cross_site(), expected, "{site:?}");
            assert!(caller.is_secure());
        }
    }

    #[test]
    fn other_origins_are_told_from_ours() {
        let ours = ("host", "proxy.test:8088");
        for (pair, clear, tls) in [
            (("x", "y"), false, false),
            (("origin", "http://proxy.test:8088"), false, true),
            (("origin", "https://PROXY.test:8088"), false, false),
            (("origin", "http://proxy.test"), true, true),
            (("origin", "http://evil.test:8088"), true, true),
            (("origin", "null"), true, true),
            (("origin", ""), true, true),
            (("origin", "http://"), true, true),
            (("sec-fetch-site", "same-origin"), false, false),
            (("sec-fetch-site", "none"), false, false),
            (("sec-fetch-site", "same-site"), true, true),
            (("sec-fetch-site", "cross-site"), true, true),
            (("sec-fetch-site", "x"), true, true),
        ] {
            let map = fields(&[ours, pair]);
            assert_eq!(
                Caller::new(&map, None, CLEAR).is_cross_site(),
                clear,
                "{pair:?}"
            );
            assert_eq!(
                Caller::new(&map, None, Transport::Tls).is_cross_site(),
                tls,
                "{pair:?} TLS"
            );
        }
    }
}
