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
    outbound::{outbound, proxy_of},
    peer::{self, PeerTrust},
    run::{PATIENCE, bounded, bounded_blocking, told},
};
use crate::{
    config::{CERTIFICATE_ENDS_SOON, Endpoint, Live, OutboundRoute, Scheme},
    error::UpstreamError,
    upstream::dial::{self, Dialer, Trust},
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
        _ => vec![Box::pin(outbound(group, &dialer, endpoint)).await],
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
        let tls = Box::pin(tls(group, place.ca_file.clone(), &dialer, endpoint)).await;
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
            1 if host.parse::<std::net::IpAddr>().is_ok() => {
                format!("{host} is an address: no name is looked up")
            }
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
    let has_ipv4 = addresses.iter().any(std::net::IpAddr::is_ipv4);
    let mut checks = vec![dns];
    for (address, done, took) in tried {
        let check = match done {
            Ok(()) => Check::ok(group, "tcp", format!("{address} takes connections")),
            Err(error) => {
                let why = format!("{address}: {}", of_upstream(&error));
                let fix = unreached(&error, address, has_ipv4);
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

/// Remedy for an address that takes no connections. `has_ipv4`: the host has addresses of IPv4, too.
fn unreached(error: &UpstreamError, address: SocketAddr, has_ipv4: bool) -> String {
    match error {
        UpstreamError::LoopDetected(_) => {
            "API_BASE_URL leads back to this proxy: set it to the upstream".to_owned()
        }
        UpstreamError::ConnectionRefused(_) => format!(
            "start the upstream, or correct the port in API_BASE_URL: nothing listens on port {}; where a proxy leads \
             outside, set HTTPS_PROXY, and see that NO_PROXY does not name the host",
            address.port()
        ),
        UpstreamError::ConnectionFailed(_) if address.is_ipv6() => match has_ipv4 {
            true => {
                "this machine has no way to IPv6 addresses: give it one, or leave it: the proxy uses IPv4 then"
            }
            false => {
                "this machine has no way to IPv6 addresses, and the host has no others: give it one, name a host with \
                 an IPv4 address in API_BASE_URL, or set HTTPS_PROXY where a proxy leads outside"
            }
        }
        .to_owned(),
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

/// The handshake, and the certificate.
async fn tls(
    group: CheckGroup,
    ca_file: Option<PathBuf>,
    dialer: &Dialer,
    endpoint: &Endpoint,
) -> Check {
    const ID: &str = "tls";
    let host = endpoint.upstream.host.as_str();
    let named = ca_file.clone();
    let (store, _) = bounded_blocking(move || dial::store(named.as_deref())).await;
    let store = match store {
        Some(Ok(store)) => store,
        Some(Err(error)) => {
            let fix = match &ca_file {
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
            if !chain.is_public(host) && ca_file.is_none() {
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
            let seen = PeerSeen {
                host,
                names: &names,
                authority: &authority,
                is_public: chain.is_public(host),
                proxy: proxy_of(endpoint),
            };
            let (why, fix) = distrusted(&error, &seen, ca_file.as_deref());
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

/// Finding on the certificate of an upstream that this process does not trust, and the remedy; none where the
/// handshake succeeds.
pub async fn tls_fault(endpoint: &Endpoint, ca_file: Option<PathBuf>) -> Option<(String, String)> {
    let dialer = Dialer::new(Trust::new(ca_file.clone()));
    let check = tls(CheckGroup::Upstream, ca_file, &dialer, endpoint).await;
    let is_broken = check.status == super::check::CheckStatus::Fail;
    is_broken.then(|| (check.detail, check.fix.unwrap_or_default()))
}

/// The peer of a handshake, as far as it is known.
struct PeerSeen<'a> {
    host: &'a str,
    /// Names of its certificate.
    names: &'a str,
    /// Name of the authority that signed it.
    authority: &'a str,
    /// A public authority signed it.
    is_public: bool,
    /// The outbound proxy on the way.
    proxy: Option<String>,
}

/// A handshake that failed: the reason, and the remedy.
fn distrusted(
    error: &std::io::Error,
    seen: &PeerSeen<'_>,
    ca_file: Option<&Path>,
) -> (String, String) {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let PeerSeen {
        host,
        names,
        authority,
        is_public,
        proxy,
    } = seen;
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
            match (is_public, proxy) {
                (true, _) => "have the upstream's operator renew it; if it has not, correct this machine's clock"
                    .to_owned(),
                (false, None) => format!(
                    "have the operator of {authority}, which signed it, renew it: that may be something on the way that \
                     reads TLS; if it has not expired, correct this machine's clock"
                ),
                (false, Some(proxy)) => format!(
                    "have the operator of {authority}, which signed it, renew it: that may be the {proxy}, which reads \
                     TLS then; if it has not expired, correct this machine's clock"
                ),
            },
        ),
        Some(NotValidYet | NotValidYetContext { .. }) => (
            "the certificate is not valid yet".to_owned(),
            "correct this machine's clock (timedatectl, chrony)".to_owned(),
        ),
        Some(NotValidForName | NotValidForNameContext { .. }) => (
            match *names {
                "" => format!("the certificate is not for {host}: it has no names"),
                names => format!("the certificate is not for {host}, but for {names}"),
            },
            match proxy {
                None => "set API_BASE_URL to a name that the certificate has, if that is the same server; if it is not, \
                         look in DNS and /etc/hosts for what leads there"
                    .to_owned(),
                Some(proxy) => format!(
                    "ask the operator of the {proxy}: it may answer in the place of {host}, with a page that blocks it; if \
                     that is the same server, set API_BASE_URL to a name that the certificate has"
                ),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_no_way_out_for_a_host_that_has_none() {
        let error =
            || UpstreamError::ConnectionFailed(std::io::ErrorKind::NetworkUnreachable.into());
        let address = "[2001:db8::1]:443".parse().unwrap();
        assert!(unreached(&error(), address, true).contains("the proxy uses IPv4 then"));
        let alone = unreached(&error(), address, false);
        assert!(alone.contains("the host has no others") && !alone.contains("leave it"));
    }

    #[test]
    fn a_certificate_behind_an_outbound_proxy_is_asked_of_its_operator() {
        let told = |fault, proxy: Option<&str>| {
            let error = rustls::Error::InvalidCertificate(fault);
            let seen = PeerSeen {
                host: "api.test",
                names: "block.test",
                authority: "Corp CA",
                is_public: false,
                proxy: proxy.map(str::to_owned),
            };
            distrusted(&std::io::Error::other(error), &seen, None).1
        };
        let proxy = Some("HTTP proxy p:1");
        let other = told(CertificateError::NotValidForName, proxy);
        assert!(other.contains("operator of the HTTP proxy p:1"), "{other}");
        assert!(!other.contains("/etc/hosts"), "{other}");
        assert!(told(CertificateError::NotValidForName, None).contains("/etc/hosts"));
        let expired = told(CertificateError::Expired, proxy);
        assert!(
            expired.contains("Corp CA") && expired.contains("p:1"),
            "{expired}"
        );
        assert!(!expired.contains("upstream's operator"), "{expired}");
    }
}
