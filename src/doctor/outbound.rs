//! The way through an outbound proxy, and the remedy where it fails.

use super::{
    check::{Check, CheckGroup},
    run::{PATIENCE, bounded, told},
};
use crate::{
    config::{Endpoint, OutboundRoute, ProxyAddress, Resolve, Scheme},
    error::{ProxyFault, UpstreamError},
    upstream::dial::Dialer,
    wire::origin::is_loopback_host,
};

/// The outbound proxy of an upstream in words; none for a direct way.
pub(super) fn proxy_of(endpoint: &Endpoint) -> Option<String> {
    match &endpoint.route {
        OutboundRoute::Direct => None,
        OutboundRoute::HttpProxy(proxy) => Some(format!("HTTP proxy {proxy:?}")),
        OutboundRoute::Socks5 { proxy, .. } => Some(format!("SOCKS5 proxy {proxy:?}")),
    }
}

/// The way through an outbound proxy, up to the upstream.
pub(super) async fn outbound(group: CheckGroup, dialer: &Dialer, endpoint: &Endpoint) -> Check {
    const ID: &str = "outbound_proxy";
    let proxy = proxy_of(endpoint).unwrap_or_default();
    let authority = &endpoint.upstream.authority;
    if group == CheckGroup::Client && is_loopback_host(authority) {
        return Check::fail(
            group,
            ID,
            format!(
                "{authority} is this machine, and Claude Code sends requests to it through the {proxy}"
            ),
            "set NO_PROXY=127.0.0.1,localhost, added to what it has, where Claude Code is started, or in `env` of \
             ~/.claude/settings.json: it then asks the proxy of this machine directly",
        );
    }
    let dial = dialer.dial_in_clear(endpoint.http, &endpoint.upstream, &endpoint.route, PATIENCE);
    let (done, took) = bounded(Box::pin(dial)).await;
    let outcome = done.unwrap_or(Err(UpstreamError::ConnectionTimeout));
    let check = match outcome {
        Ok(_) if is_absolute(endpoint) => {
            Check::ok(group, ID, format!("{proxy} takes connections"))
        }
        Ok(_) => Check::ok(group, ID, format!("{proxy} connects to {authority}")),
        Err(error) => {
            let why = told(&error);
            let fix = outbound_remedy(&error, endpoint).unwrap_or_default();
            Check::fail(group, ID, format!("{proxy}: {why}"), fix)
        }
    };
    check.took(took)
}

/// An HTTP proxy that is asked for a clear-text upstream is told its URL with each request.
fn is_absolute(endpoint: &Endpoint) -> bool {
    endpoint.upstream.scheme == Scheme::Http
        && matches!(endpoint.route, OutboundRoute::HttpProxy(_))
}

/// Remedy of a failure on the way through an outbound proxy; none for a direct way, and for failures behind it.
pub fn outbound_remedy(error: &UpstreamError, endpoint: &Endpoint) -> Option<String> {
    let authority = &endpoint.upstream.authority;
    let (proxy, scheme, other) = match &endpoint.route {
        OutboundRoute::Direct => return None,
        OutboundRoute::HttpProxy(proxy) => (proxy, "http", "socks5h"),
        OutboundRoute::Socks5 { proxy, resolve } => match resolve {
            Resolve::Locally => (proxy, "socks5", "http"),
            Resolve::AtProxy => (proxy, "socks5h", "http"),
        },
    };
    let bare = ProxyAddress {
        credentials: None,
        ..proxy.clone()
    };
    const NAMES: &str = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY";
    Some(match error {
        UpstreamError::DnsError(_) | UpstreamError::DnsTimeout => format!(
            "write socks5h://{bare:?} in place of socks5://: the proxy then resolves the name, which this machine \
             cannot"
        ),
        UpstreamError::ConnectionTimeout => format!(
            "correct host and port in {NAMES}, and let a firewall pass TCP to {bare:?}; if that port speaks another \
             protocol, write {other}://{bare:?}"
        ),
        UpstreamError::ProxyConnectionRefused(fault, _) => match fault {
            ProxyFault::Login if proxy.credentials.is_some() => format!(
                "correct the user and password in {NAMES}, which the proxy refuses (in them, @ is %40 and : is %3A), \
                 or ask its operator if they may reach {authority}"
            ),
            ProxyFault::Login => format!(
                "put user and password into {NAMES} ({scheme}://user:password@{bare:?}; in them, @ is %40 and : is \
                 %3A)"
            ),
            ProxyFault::Scheme => "a user and password in the URL are in vain: it wants NTLM or Kerberos; run a local \
                 helper that speaks it (cntlm, px), and set HTTPS_PROXY or HTTP_PROXY to that, as \
                 http://127.0.0.1:3128"
                .to_owned(),
            ProxyFault::Policy => format!(
                "have the proxy's operator permit {authority}, or name the host in NO_PROXY to go there directly"
            ),
            ProxyFault::Protocol => format!(
                "if {bare:?} speaks another protocol, write {other}://{bare:?} in {NAMES}; otherwise correct the port"
            ),
            ProxyFault::Other => format!(
                "correct {NAMES}, let the proxy connect to {authority}, or name the host in NO_PROXY to go there \
                 directly"
            ),
        },
        _ => return None,
    })
}
