//! The checks of one upstream: names, addresses, the outbound proxy, TLS, the clock; then its contract
//! (`contract`).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use rustls::CertificateError;

use super::{
    check::{Check, CheckGroup},
    contract::contract_checks,
    examination::Examination,
    exchange::{Answered, Door, Inquiry, of_upstream},
    peer::{self, PeerTrust},
    run::{PATIENCE, bounded, bounded_blocking, told},
};
use crate::{
    config::{CERTIFICATE_ENDS_SOON, Endpoint, Live, OutboundRoute, Scheme},
    error::UpstreamError,
    upstream::dial::{self, Dialer, Trust},
    wire::origin::is_loopback_host,
};

/// An upstream, and what is needed to reach it.
pub struct UpstreamPlace<'a> {
    /// The HTTP client of a worker.
    pub door: &'a dyn Door,
    /// The configuration.
    pub live: &'a Live,
    /// Number of the upstream in it.
    pub endpoint: usize,
    /// `UPSTREAM_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// Listeners of this process.
    pub listeners: std::sync::Arc<[SocketAddr]>,
    /// Group of the checks: that of upstreams, or that of a client.
    pub group: CheckGroup,
}

/// Addresses that are tried.
const ADDRESSES: usize = 8;
/// Difference of clocks that is a warning, and one with which certificates and tokens fail.
const CLOCKS: (u64, u64) = (30, 300);

/// Checks an upstream.
pub async fn upstream_checks(place: UpstreamPlace<'_>, asked: &Examination) -> Vec<Check> {
    let group = place.group;
    let endpoint = &place.live.endpoints[place.endpoint];
    let dialer = Dialer::new(Trust::new(place.ca_file.clone()))
        .that_refuses(std::sync::Arc::clone(&place.listeners));
    let mut checks = match &endpoint.route {
        OutboundRoute::Direct => direct(group, &dialer, endpoint).await,
        route => vec![Box::pin(outbound(group, &dialer, endpoint, route)).await],
    };
    let is_reached = checks.iter().any(|check| {
        matches!(&*check.id, "tcp" | "outbound_proxy")
            && check.status != super::check::CheckStatus::Fail
    });
    if !is_reached {
        checks.push(Check::skip(
            group,
            "tls",
            "not tried: there is no connection to the upstream",
        ));
        return named(checks, endpoint);
    }
    if endpoint.upstream.scheme == Scheme::Https {
        let tls = Box::pin(tls(&place, &dialer, endpoint)).await;
        let is_broken = tls.status == super::check::CheckStatus::Fail;
        checks.push(tls);
        if is_broken {
            let why = "not tried: the handshake of TLS fails";
            checks.push(Check::skip(group, "models", why));
            return named(checks, endpoint);
        }
    }
    let inquiry = Inquiry {
        door: place.door,
        live: place.live,
        endpoint: place.endpoint,
        credential: asked.credential.as_ref(),
    };
    let (contract, first) = Box::pin(contract_checks(group, inquiry, asked)).await;
    checks.extend(first.as_ref().map(|answer| clock(group, answer)));
    checks.extend(contract);
    named(checks, endpoint)
}

fn named(mut checks: Vec<Check>, endpoint: &Endpoint) -> Vec<Check> {
    for check in &mut checks {
        check.subject = Some(endpoint.name.to_string());
        if check.group == CheckGroup::Client {
            check.fix = check.fix.take().map(|fix| for_client(&fix));
        }
    }
    checks
}

/// A remedy with the names of a client's variables.
fn for_client(fix: &str) -> String {
    fix.replace("API_BASE_URL", "ANTHROPIC_BASE_URL")
        .replace("UPSTREAM_CA_FILE", "NODE_EXTRA_CA_CERTS")
}

/// Names and addresses.
async fn direct(group: CheckGroup, dialer: &Dialer, endpoint: &Endpoint) -> Vec<Check> {
    let (host, port) = (endpoint.upstream.host.as_str(), endpoint.upstream.port);
    let (found, took) = bounded(dialer.addresses(host, PATIENCE)).await;
    let addresses = match found.unwrap_or(Err(UpstreamError::DnsTimeout)) {
        Ok(addresses) => addresses,
        Err(error) => {
            let why = of_upstream(&error);
            let fix = match error {
                UpstreamError::DnsTimeout => {
                    "check /etc/resolv.conf, and that its name servers can be reached from here (UDP and TCP, \
                     port 53); behind a company's proxy, set HTTPS_PROXY (and name the host in no NO_PROXY)"
                }
                _ => {
                    "correct the host in API_BASE_URL, or check /etc/resolv.conf and /etc/hosts; behind a \
                     company's proxy, set HTTPS_PROXY (and name the host in no NO_PROXY)"
                }
            };
            return vec![Check::fail(group, "dns", format!("{host}: {why}"), fix).took(took)];
        }
    };
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let mut dns = Check::ok(
        group,
        "dns",
        match addresses.len() {
            1 => format!("{host} is {}", shown[0]),
            many => format!("{host} has {many} addresses"),
        },
    )
    .took(took);
    dns.evidence = shown;
    let tries = addresses.iter().take(ADDRESSES).map(|ip| async move {
        let address = SocketAddr::new(*ip, port);
        let (done, took) = bounded(dialer.try_address(address, PATIENCE)).await;
        let done = done.unwrap_or(Err(UpstreamError::ConnectionTimeout));
        (address, done, took)
    });
    let tried = join_all(tries).await;
    let works = tried.iter().any(|(_, done, _)| done.is_ok());
    let mut checks = vec![dns];
    for (address, done, took) in tried {
        let check = match done {
            Ok(()) => Check::ok(group, "tcp", format!("{address} takes connections")),
            Err(error) => {
                let why = format!("{address}: {}", of_upstream(&error));
                let fix = unreached(&error, address);
                match works {
                    true => Check::warn(group, "tcp", why, fix),
                    false => Check::fail(group, "tcp", why, fix),
                }
            }
        };
        checks.push(check.took(took));
    }
    checks
}

fn unreached(error: &UpstreamError, address: SocketAddr) -> String {
    match error {
        UpstreamError::LoopDetected(_) => {
            "API_BASE_URL leads back to this proxy: set it to the upstream".to_owned()
        }
        UpstreamError::ConnectionRefused(_) => format!(
            "start the upstream, or correct the port in API_BASE_URL: nothing listens on port {}; where a proxy leads \
             outside, set HTTPS_PROXY, and see that NO_PROXY does not name the host",
            address.port()
        ),
        UpstreamError::ConnectionFailed(_) if address.is_ipv6() => {
            "this machine has no way to IPv6 addresses: give it one, or leave it: the proxy uses IPv4 then"
                .to_owned()
        }
        UpstreamError::DescriptorsExhausted(_) => {
            "raise the limit of open files (`ulimit -n`, LimitNOFILE=)".to_owned()
        }
        _ => format!(
            "let a firewall pass TCP to port {}, or set HTTPS_PROXY where a proxy leads outside, and see that NO_PROXY \
             does not name the host",
            address.port()
        ),
    }
}

/// The way through an outbound proxy, up to the upstream.
async fn outbound(
    group: CheckGroup,
    dialer: &Dialer,
    endpoint: &Endpoint,
    route: &OutboundRoute,
) -> Check {
    const ID: &str = "outbound_proxy";
    let proxy = match route {
        OutboundRoute::Direct => String::new(),
        OutboundRoute::HttpProxy(proxy) => format!("HTTP proxy {proxy:?}"),
        OutboundRoute::Socks5 { proxy, .. } => format!("SOCKS5 proxy {proxy:?}"),
    };
    let dial = dialer.dial_in_clear(endpoint.http, &endpoint.upstream, route, PATIENCE);
    let (done, took) = bounded(Box::pin(dial)).await;
    let authority = &endpoint.upstream.authority;
    let outcome = done.unwrap_or(Err(UpstreamError::ConnectionTimeout));
    if group == CheckGroup::Client && is_loopback_host(&endpoint.upstream.authority) {
        return Check::fail(
            group,
            ID,
            format!("{authority} is this machine, and requests to it go to the {proxy}"),
            "set NO_PROXY=127.0.0.1,localhost where Claude Code is started: it then asks the proxy of this \
             machine directly",
        )
        .took(took);
    }
    let check = match outcome {
        Ok(_) if is_absolute(endpoint) => {
            Check::ok(group, ID, format!("{proxy} takes connections"))
        }
        Ok(_) => Check::ok(group, ID, format!("{proxy} connects to {authority}")),
        Err(error) => {
            let why = of_upstream(&error);
            let has_login = match route {
                OutboundRoute::HttpProxy(proxy) => proxy.credentials.is_some(),
                OutboundRoute::Socks5 { proxy, .. } => proxy.credentials.is_some(),
                OutboundRoute::Direct => false,
            };
            let fix = match error.is_permanent() {
                true if has_login => format!(
                    "correct the user and password in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, which the proxy refuses \
                     (in them, @ is %40 and : is %3A), or ask its operator if they may reach {authority}"
                ),
                true => "put user and password into HTTPS_PROXY, HTTP_PROXY or ALL_PROXY \
                         (http://user:password@host:port)"
                    .to_owned(),
                false => format!(
                    "correct HTTPS_PROXY or HTTP_PROXY, let the proxy connect to {authority}, or name the host \
                     in NO_PROXY to go there directly"
                ),
            };
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

/// The handshake, and the certificate.
async fn tls(place: &UpstreamPlace<'_>, dialer: &Dialer, endpoint: &Endpoint) -> Check {
    const ID: &str = "tls";
    let (group, host) = (place.group, endpoint.upstream.host.as_str());
    let ca_file = place.ca_file.clone();
    let (store, _) = bounded_blocking(move || dial::store(ca_file.as_deref())).await;
    let store = match store {
        Some(Ok(store)) => store,
        Some(Err(error)) => {
            let fix = match &place.ca_file {
                Some(path) => format!(
                    "correct UPSTREAM_CA_FILE ({}): PEM certificates of the authorities to trust beside the \
                     system's; unset it if the upstream's authority is public",
                    path.display()
                ),
                None => "correct SSL_CERT_FILE or SSL_CERT_DIR, or unset them".to_owned(),
            };
            return Check::fail(group, ID, told(&error), fix);
        }
        None => {
            return Check::fail(
                group,
                ID,
                "the store of certificates could not be read within 5 s",
                "check the file system of SSL_CERT_FILE and SSL_CERT_DIR",
            );
        }
    };
    let shake = async {
        let dial =
            dialer.dial_in_clear(endpoint.http, &endpoint.upstream, &endpoint.route, PATIENCE);
        let tcp = dial.await.map_err(|error| of_upstream(&error))?;
        Ok::<_, String>(peer::shake_hands(tcp, host, PeerTrust::Authorities(store)).await)
    };
    let (done, took) = bounded(Box::pin(shake)).await;
    let silent = "the peer does not finish the handshake within 5 s".to_owned();
    let (chain, outcome) = match done.unwrap_or(Err(silent)) {
        Ok(done) => done,
        Err(why) => {
            let fix = "check that API_BASE_URL is https:// on the right port, and that no firewall stops TLS";
            return Check::fail(group, ID, why, fix).took(took);
        }
    };
    let leaf = chain.leaf();
    let days = leaf.as_ref().map(|leaf| leaf.days_left(peer::now()));
    let issuer = leaf
        .as_ref()
        .map_or("(unknown)", |leaf| leaf.issuer.as_str());
    let authority = chain.authority().unwrap_or_else(|| issuer.to_owned());
    let check = match outcome {
        Ok(_) => {
            let left = days.unwrap_or_default();
            let found = format!("certificate by {issuer}, {left} days left");
            if !chain.is_public(host) && place.ca_file.is_none() {
                Check::warn(
                    group,
                    ID,
                    format!(
                        "{found}; {authority} is no public authority, and this system trusts it: something on \
                             the way may read and hold back all traffic"
                    ),
                    format!(
                        "ask who runs {authority}; to go past it, have {host} excepted from TLS inspection; to keep \
                         it, put its certificate into UPSTREAM_CA_FILE, and this is no warning any more"
                    ),
                )
            } else if left < CERTIFICATE_ENDS_SOON {
                Check::warn(
                    group,
                    ID,
                    found,
                    "have the upstream's operator renew its certificate",
                )
            } else {
                Check::ok(group, ID, found)
            }
        }
        Err(error) => {
            let names = leaf.as_ref().map(|leaf| leaf.names.join(", "));
            let names = names.unwrap_or_default();
            let ca_file = place.ca_file.as_deref();
            let (why, fix) = distrusted(&error, host, &names, &authority, ca_file);
            Check::fail(group, ID, why, fix)
        }
    };
    let mut check = check.took(took);
    if let Some(leaf) = leaf {
        check = check
            .with_evidence(format!("holder: {}", leaf.subject))
            .with_evidence(format!("issuer: {}", leaf.issuer));
        check = check.with_evidence(format!("top of the chain: {authority}"));
    }
    check
}

/// A handshake that failed: the reason, and the remedy.
fn distrusted(
    error: &std::io::Error,
    host: &str,
    names: &str,
    authority: &str,
    ca_file: Option<&Path>,
) -> (String, String) {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match peer::certificate_error(error) {
        Some(UnknownIssuer) => (
            format!("{authority} signed the certificate, and is not trusted here: an interceptor, or a private authority"),
            match ca_file {
                Some(path) => format!(
                    "UPSTREAM_CA_FILE ({}) does not have it: if {authority} is your company's or your gateway's, add \
                     its certificate in PEM to that file; otherwise do not send keys there",
                    path.display()
                ),
                None => format!(
                    "if {authority} is your company's or your gateway's, save its certificate in PEM and set \
                     UPSTREAM_CA_FILE to that file; otherwise do not send keys there"
                ),
            },
        ),
        Some(Expired | ExpiredContext { .. }) => (
            "the certificate has expired".to_owned(),
            "have the upstream's operator renew it; if it has not, correct this machine's clock".to_owned(),
        ),
        Some(NotValidYet | NotValidYetContext { .. }) => (
            "the certificate is not valid yet".to_owned(),
            "correct this machine's clock (timedatectl, chrony)".to_owned(),
        ),
        Some(NotValidForName | NotValidForNameContext { .. }) => (
            match names {
                "" => format!("the certificate is not for {host}: it has no names"),
                names => format!("the certificate is not for {host}, but for {names}"),
            },
            "set API_BASE_URL to a name that the certificate has, if that is the same server; if it is not, look in \
             DNS and /etc/hosts for what leads there"
                .to_owned(),
        ),
        Some(other) => (
            format!("the certificate is refused: {other}"),
            "have the upstream's operator correct it".to_owned(),
        ),
        None => (
            format!("the handshake fails: {}", told(error)),
            "check that API_BASE_URL is https:// on a port that speaks TLS 1.2 or 1.3, and look for a firewall or \
             proxy that breaks TLS"
                .to_owned(),
        ),
    }
}

/// This machine's clock against the `Date` of an answer.
fn clock(group: CheckGroup, answer: &Answered) -> Check {
    const ID: &str = "clock";
    let date = answer.field("date");
    let there = date
        .as_deref()
        .and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(there) = there else {
        return Check::skip(group, ID, "the upstream sends no Date");
    };
    // a date has whole seconds
    let here = answer.at;
    let (apart, word) = match here.duration_since(there) {
        Ok(ahead) => (ahead.as_secs().saturating_sub(1), "ahead of"),
        Err(behind) => (behind.duration().as_secs(), "behind"),
    };
    let found = format!("this machine's clock is {apart} s {word} the upstream's");
    let fix = "synchronise this machine's clock (timedatectl set-ntp true, or chrony)";
    match apart {
        _ if apart >= CLOCKS.1 => Check::fail(group, ID, found, fix),
        _ if apart >= CLOCKS.0 => Check::warn(group, ID, found, fix),
        _ => Check::ok(group, ID, "within 30 s of the upstream's"),
    }
    .with_evidence(format!("Date: {}", httpdate::fmt_http_date(there)))
}
