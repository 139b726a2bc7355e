//! Outbound proxy for an upstream, from `HTTP_PROXY` and related variables.
//!
//! Users of curl, `requests` and httpx have these variables set already, so the meaning is the same
//! here; if those three differ, the comment at the rule names the one that is followed. This file
//! only reads: it opens no connection, and an error never repeats a value, since a value may hold a
//! password.

use percent_encoding::percent_decode_str;

use self::{authority::host_and_port, no_proxy::excepts};
use super::upstream::{Scheme, Upstream};

mod authority;
mod no_proxy;

/// Way to an upstream: direct or by an outbound proxy (`HTTP_PROXY` and related variables).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OutboundRoute {
    /// Straight to the upstream.
    Direct,
    /// To an HTTP proxy: absolute-form for `http`, CONNECT for `https`.
    HttpProxy(ProxyAddress),
    /// Through a SOCKS5 proxy.
    Socks5 {
        /// Address of the proxy.
        proxy: ProxyAddress,
        /// Side that resolves the upstream's name: this process (`socks5://`) or the proxy (`socks5h://`).
        resolve: Resolve,
    },
}

/// Side that resolves the name of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolve {
    /// This process.
    Locally,
    /// The SOCKS proxy.
    AtProxy,
}

/// Address of an outbound proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyAddress {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password, percent-decoded.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        if self.credentials.is_some() {
            f.write_str(" (with credentials)")?;
        }
        Ok(())
    }
}

/// A variable that names no proxy we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {message}")]
pub struct RouteError {
    /// The variable at fault, spelled as it was found.
    pub variable: &'static str,
    /// The problem. Never the value itself.
    pub message: String,
    /// The form that would be right.
    pub expected: &'static str,
}

/// The road to `upstream`, with `lookup` as the environment.
///
/// The first variable that is set and not empty counts: `http_proxy`, `HTTP_PROXY` for an `http`
/// upstream, `https_proxy`, `HTTPS_PROXY` for an `https` one, then `all_proxy`, `ALL_PROXY`. Lower
/// case first is the order of curl and of Python's `urllib` (hence `requests` and httpx). curl
/// ignores the upper-case `HTTP_PROXY` because a CGI program would take it from a request field;
/// we are no CGI program.
///
/// `no_proxy`, `NO_PROXY` make exceptions. A loopback upstream is none by itself: curl, `requests`
/// and httpx follow the variables there too (Go does not), and a proxy may well be what makes
/// `127.0.0.1` reachable. `NO_PROXY=localhost,127.0.0.0/8,::1` is how one says otherwise.
pub fn resolve(
    upstream: &Upstream,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<OutboundRoute, RouteError> {
    let Some((variable, value)) = deciding(upstream, lookup) else {
        return Ok(OutboundRoute::Direct);
    };
    parse(&value).map_err(|message| RouteError {
        variable,
        message,
        expected: EXPECTED,
    })
}

/// The variable that leads to `upstream` by a proxy, and its value; none for a direct way.
pub fn deciding(
    upstream: &Upstream,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let variables = match upstream.scheme {
        Scheme::Http => HTTP_VARIABLES,
        Scheme::Https => HTTPS_VARIABLES,
    };
    let found = first_set(&variables, lookup)?;
    let exceptions = first_set(&NO_PROXY_VARIABLES, lookup).map(|(_, list)| list);
    (!exceptions.is_some_and(|list| excepts(&list, upstream))).then_some(found)
}

/// The first of `variables` that says something, trimmed.
fn first_set(
    variables: &[&'static str],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    variables.iter().find_map(|&variable| {
        let value = lookup(variable)?.trim().to_owned();
        (!value.is_empty()).then_some((variable, value))
    })
}

/// `[scheme://][user[:password]@]host[:port][/]`; the error is the message of a [`RouteError`].
fn parse(value: &str) -> Result<OutboundRoute, String> {
    // No scheme means http in curl, requests and httpx.
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    // The last `@` ends the credentials, so that an unescaped one in a password does no harm.
    let (credentials, location) = match rest.rsplit_once('@') {
        Some((credentials, location)) => (Some(credentials), location),
        None => (None, rest),
    };
    let begin = location.find(['/', '?', '#']).unwrap_or(location.len());
    let (authority, rest) = location.split_at(begin);
    let is_file = rest.split(['?', '#']).next().unwrap_or_default();
    if is_file.to_ascii_lowercase().ends_with(".pac") {
        return Err(
            "a PAC file is no proxy: open it, and take the host and port that it names".into(),
        );
    }
    if !matches!(rest, "" | "/") {
        return Err("the URL of a proxy has no path: write scheme, host and port alone".into());
    }
    let proxy = |default_port| -> Result<ProxyAddress, String> {
        let (host, port) = host_and_port(authority)?;
        let credentials = credentials.map(decode_credentials).transpose()?.flatten();
        Ok(ProxyAddress {
            host,
            port: port.unwrap_or(default_port),
            credentials,
        })
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {
            let proxy = proxy(HTTP_DEFAULT_PORT)?;
            check_basic(proxy.credentials.as_ref())?;
            Ok(OutboundRoute::HttpProxy(proxy))
        }
        "socks5" => socks5(proxy(SOCKS_DEFAULT_PORT)?, Resolve::Locally),
        // GNOME and Clash write `socks://`; it comes from Chromium, where it is SOCKS5 with the
        // names resolved by the proxy.
        "socks5h" | "socks" => socks5(proxy(SOCKS_DEFAULT_PORT)?, Resolve::AtProxy),
        "https" => Err(
            "TLS to the proxy itself is not supported. Most proxies that are written \
                        https:// speak plain HTTP and carry https upstreams by CONNECT: try http://"
                .to_owned(),
        ),
        "socks4" | "socks4a" => Err("SOCKS4 is not supported".to_owned()),
        _ => Err("unknown proxy scheme".to_owned()),
    }
}

fn socks5(proxy: ProxyAddress, resolve: Resolve) -> Result<OutboundRoute, String> {
    let fits = |text: &str| (1..=255).contains(&text.len());
    if proxy
        .credentials
        .as_ref()
        .is_some_and(|(user, password)| !fits(user) || !fits(password))
    {
        return Err("SOCKS5 takes a user and a password of 1 to 255 octets each (RFC 1929)".into());
    }
    Ok(OutboundRoute::Socks5 { proxy, resolve })
}

/// Basic credentials are `user:password` without control characters (RFC 7617 §2).
fn check_basic(credentials: Option<&(String, String)>) -> Result<(), String> {
    let Some((user, password)) = credentials else {
        return Ok(());
    };
    if user.contains(':') {
        return Err("the user holds a colon, which Basic authentication cannot carry".to_owned());
    }
    if user.chars().chain(password.chars()).any(char::is_control) {
        return Err("user or password hold a control character".to_owned());
    }
    Ok(())
}

fn decode_credentials(text: &str) -> Result<Option<(String, String)>, String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && password.is_empty() {
        return Ok(None);
    }
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err("user or password are not UTF-8 after percent-decoding".to_owned()),
    };
    Ok(Some((decode(user)?, decode(password)?)))
}

const HTTP_VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const HTTPS_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
const EXPECTED: &str = "http://[user:password@]host[:port], or socks5:// or socks5h://";
/// The scheme's own port, as in requests (urllib3), httpx and Go; curl alone takes 1080.
const HTTP_DEFAULT_PORT: u16 = 80;
/// Registered for SOCKS; all of them agree.
const SOCKS_DEFAULT_PORT: u16 = 1080;

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Upstream {
        url.parse().unwrap()
    }

    fn route(url: &str, environment: &[(&str, &str)]) -> Result<OutboundRoute, RouteError> {
        resolve(&upstream(url), &|name| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn address(host: &str, port: u16, credentials: Option<(&str, &str)>) -> ProxyAddress {
        let credentials = credentials.map(|(u, p)| (u.to_owned(), p.to_owned()));
        ProxyAddress {
            host: host.to_owned(),
            port,
            credentials,
        }
    }

    fn http(host: &str, port: u16) -> Result<OutboundRoute, RouteError> {
        Ok(OutboundRoute::HttpProxy(address(host, port, None)))
    }

    #[test]
    fn no_variable_is_the_direct_road() {
        assert_eq!(route("https://api.test", &[]), Ok(OutboundRoute::Direct));
        assert_eq!(
            route("https://api.test", &[("https_proxy", " ")]),
            Ok(OutboundRoute::Direct)
        );
    }

    #[test]
    fn each_scheme_has_its_variables_and_lower_case_wins() {
        let all = [
            ("http_proxy", "http://a:1"),
            ("HTTP_PROXY", "http://b:1"),
            ("https_proxy", "http://c:1"),
            ("HTTPS_PROXY", "http://d:1"),
            ("all_proxy", "http://e:1"),
            ("ALL_PROXY", "http://f:1"),
        ];
        for (url, order) in [
            ("http://api.test", [0, 1, 4, 5]),
            ("https://api.test", [2, 3, 4, 5]),
        ] {
            for (skip, &winner) in order.iter().enumerate() {
                let set: Vec<_> = order[skip..].iter().map(|&i| all[i]).collect();
                let host = &all[winner].1["http://".len()..][..1];
                assert_eq!(route(url, &set), http(host, 1), "{url} {set:?}");
            }
        }
        assert_eq!(
            route("https://api.test", &[all[0], all[1]]),
            Ok(OutboundRoute::Direct)
        );
        assert_eq!(
            route(
                "https://api.test",
                &[("https_proxy", ""), ("HTTPS_PROXY", "d:1")]
            ),
            http("d", 1),
            "empty is unset"
        );
    }

    #[test]
    fn values_are_read_as_curl_and_requests_read_them() {
        let socks = |proxy, resolve| Ok(OutboundRoute::Socks5 { proxy, resolve });
        let user = |user, password| {
            Ok(OutboundRoute::HttpProxy(address(
                "p",
                3128,
                Some((user, password)),
            )))
        };
        let table = [
            ("http://p:3128", http("p", 3128)),
            ("p:3128", http("p", 3128)),
            ("p", http("p", 80)),
            ("p:", http("p", 80)),
            ("HTTP://p/", http("p", 80)),
            ("http://p:3128/", http("p", 3128)),
            ("http://127.0.0.1:7890", http("127.0.0.1", 7890)),
            ("http://[::1]:7890/", http("::1", 7890)),
            ("http://[::1]", http("::1", 80)),
            ("http://my_proxy:1", http("my_proxy", 1)),
            ("http://user:pass@p:3128", user("user", "pass")),
            ("user:pass@p:3128", user("user", "pass")),
            ("http://user@p:3128", user("user", "")),
            ("http://@p:3128", http("p", 3128)),
            ("http://:@p:3128", http("p", 3128)),
            (
                "http://us%40er:p%3Aa%2Fss%25@p:3128",
                user("us@er", "p:a/ss%"),
            ),
            ("http://user:p@ss/w#rd@p:3128", user("user", "p@ss/w#rd")),
            ("http://user:100%@p:3128", user("user", "100%")),
            (
                "socks5://p",
                socks(address("p", 1080, None), Resolve::Locally),
            ),
            (
                "socks5h://p:1",
                socks(address("p", 1, None), Resolve::AtProxy),
            ),
            (
                "socks://p:1/",
                socks(address("p", 1, None), Resolve::AtProxy),
            ),
            (
                "socks5://u:%20@p",
                socks(address("p", 1080, Some(("u", " "))), Resolve::Locally),
            ),
        ];
        for (value, expected) in table {
            assert_eq!(
                route("https://api.test", &[("all_proxy", value)]),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn a_fault_names_the_variable_and_never_the_value() {
        let long = format!("socks5://secret:{}@p", "x".repeat(256));
        let table = [
            ("https://secret:secret@p", "try http://"),
            ("socks4://secret@p", "SOCKS4"),
            ("ftp://secret@p", "unknown proxy scheme"),
            ("http://p/secret", "has no path"),
            ("http://p:1/?secret", "has no path"),
            ("http://p/secret/PROXY.PAC?x", "a PAC file is no proxy"),
            ("p:80/wpad.pac", "a PAC file is no proxy"),
            ("secret://p", "unknown proxy scheme"),
            ("http://", "no host"),
            ("http://secret:secret@", "no host"),
            ("http://secret@:3128", "no host"),
            ("http://p:secret", "port"),
            ("http://p:0", "port"),
            ("http://p:65536", "port"),
            ("http://[::1", "port"),
            ("http://::1", "brackets"),
            ("http://se cret", "neither"),
            ("http://p%20secret", "neither"),
            ("http://secret:%ff@p", "UTF-8"),
            ("http://sec%3Aret:x@p", "colon"),
            ("http://secret:%0a@p", "control"),
            ("socks5://secret@p", "RFC 1929"),
            (long.as_str(), "RFC 1929"),
        ];
        for (value, message) in table {
            let fault = route("https://api.test", &[("HTTPS_PROXY", value)]).unwrap_err();
            assert_eq!(fault.variable, "HTTPS_PROXY");
            assert!(
                fault.message.contains(message),
                "{value}: {}",
                fault.message
            );
            for text in [fault.to_string(), format!("{fault:?}")] {
                assert!(!text.contains("secret"), "{text}");
            }
        }
    }

    #[test]
    fn an_ipv6_proxy_is_shown_in_brackets() {
        assert_eq!(format!("{:?}", address("::1", 7890, None)), "[::1]:7890");
        assert_eq!(format!("{:?}", address("p", 1, None)), "p:1");
    }

    #[test]
    fn lower_case_exceptions_win_and_empty_ones_do_not_count() {
        let proxied = http("p", 80);
        let table = [
            (vec![("NO_PROXY", "api.test")], Ok(OutboundRoute::Direct)),
            (
                vec![("no_proxy", "other.test"), ("NO_PROXY", "api.test")],
                proxied.clone(),
            ),
            (
                vec![("no_proxy", ""), ("NO_PROXY", "api.test")],
                Ok(OutboundRoute::Direct),
            ),
            (vec![("no_proxy", "other.test")], proxied),
        ];
        for (mut environment, expected) in table {
            environment.push(("https_proxy", "p"));
            assert_eq!(
                route("https://api.test", &environment),
                expected,
                "{environment:?}"
            );
        }
    }

    #[test]
    fn an_excepted_upstream_does_not_care_about_a_broken_proxy() {
        let environment = [("https_proxy", "ftp://p"), ("no_proxy", "api.test")];
        assert_eq!(
            route("https://api.test", &environment),
            Ok(OutboundRoute::Direct)
        );
    }

    #[test]
    fn loopback_follows_the_variables() {
        for url in ["http://localhost", "http://127.0.0.1", "http://[::1]"] {
            assert_eq!(route(url, &[("http_proxy", "p")]), http("p", 80));
        }
    }
}
