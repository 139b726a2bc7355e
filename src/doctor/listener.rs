//! The checks of the proxy's own listeners, or of the address that clients use: do requests arrive, and whole?
//!
//! Small requests over HTTP/1.1, without a credential.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    check::{Check, CheckGroup},
    contract::XML,
    peer::{self, PeerChain, PeerTrust},
    run::{bounded, bounded_blocking, told},
    verdict::UpstreamVerdict,
};
use crate::{
    config::{AccessMode, CERTIFICATE_ENDS_SOON, Endpoint, Live, Scheme, Upstream},
    secret::names_credential,
    upstream::dial,
};

const GROUP: CheckGroup = CheckGroup::Listener;

/// Octets of an answer that are read.
const LARGEST: usize = 64 * 1024;

/// A listener, or the address that clients use.
#[derive(Debug, Clone)]
pub enum ListenerTarget {
    /// In clear.
    Plain(SocketAddr),
    /// With TLS.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// An address in front of the proxy.
    Public(Upstream),
}

impl fmt::Display for ListenerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Public(url) => write!(f, "{url}"),
        }
    }
}

impl ListenerTarget {
    fn authority(&self) -> String {
        match self {
            Self::Plain(address) | Self::Tls(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
            Self::Public(url) => url.authority.clone(),
        }
    }

    fn prefix(&self) -> &str {
        match self {
            Self::Public(url) => &url.prefix,
            _ => "",
        }
    }
}

/// Listeners that are checked.
#[derive(Debug, Clone, Default)]
pub struct ListenerPlaces {
    /// All of them.
    pub targets: Vec<ListenerTarget>,
    /// The certificate in `TLS_CERT_FILE`.
    pub certificate: Option<CertificateDer<'static>>,
    /// Knowledge of a running server.
    pub presence: ServerPresence,
    /// Reason for which the server refuses requests without a credential; those are not sent to it then, since
    /// each would count as an error of a client.
    pub refusal: Option<&'static str>,
    /// False if the listeners are known from defaults alone: no file, and no upstream in the environment.
    pub are_settings_named: bool,
}

/// Knowledge of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerPresence {
    /// One runs: its listeners have to answer.
    Runs,
    /// None runs, so that nothing may listen.
    #[default]
    Absent,
    /// Its socket may not be used by this user.
    Unknown,
}

/// Reason for which a server of this configuration refuses requests without a credential.
pub fn refusal(access: AccessMode, live: &Live) -> Option<&'static str> {
    if access == AccessMode::Required {
        return Some("a request without a key of the proxy is refused");
    }
    let brings_one = |endpoint: &Endpoint| endpoint.has_credential();
    let mut custom = live.custom_fields.iter();
    let has_field = custom.any(|(name, _)| names_credential(name.as_str().as_bytes()));
    match has_field || live.endpoints.iter().all(brings_one) {
        true => None,
        false => Some("clients bring the credential, and a request without one is refused"),
    }
}

/// Checks the listeners of a running server. What an upstream that fails explains is no failure of its own.
pub async fn listener_checks(places: ListenerPlaces, verdict: UpstreamVerdict) -> Vec<Check> {
    if places.targets.is_empty() {
        let why = "not tried: no address is known (PORT is 0, or the sockets are systemd's); at a terminal \
                   `doctor --url URL` names one";
        return vec![Check::skip(GROUP, "round_trip", why)];
    }
    let mut checks = Vec::new();
    for target in &places.targets {
        let of_target = Box::pin(one(target, &places, &verdict)).await;
        checks.extend(of_target.into_iter().map(|mut check| {
            check.subject = Some(target.to_string());
            check
        }));
    }
    checks
}

async fn one(
    target: &ListenerTarget,
    places: &ListenerPlaces,
    verdict: &UpstreamVerdict,
) -> Vec<Check> {
    let (answer, took) = bounded(exchange(target, "GET", "/health", "")).await;
    let late = || Err(Unanswered::Late);
    let (chain, answer) = match answer.unwrap_or_else(late) {
        Ok(found) => found,
        Err(error) => return vec![unanswered(&error, target, places.presence).took(took)],
    };
    let (trip, is_ours) = round_trip(target, &answer, places);
    let mut checks = vec![trip.took(took)];
    checks.extend(chain.map(|chain| certificate(&chain, places, target)));
    if !is_ours {
        return checks;
    }
    if let Some(why) = places.refusal
        && !matches!(target, ListenerTarget::Public(_))
    {
        checks.push(Check::skip(
            GROUP,
            "content",
            format!("not tried: {why}, so that it would count as an error in the server's sums"),
        ));
        return checks;
    }
    let (plain, marked) = (content(PLAIN), content(XML));
    let (plain, marked) = tokio::join!(
        bounded(exchange(target, "POST", COUNT, &plain)),
        bounded(exchange(target, "POST", COUNT, &marked))
    );
    let took = marked.1;
    let answers = plain.0.unwrap_or_else(late).and_then(|(_, plain)| {
        let (_, marked) = marked.0.unwrap_or_else(late)?;
        Ok((plain, marked))
    });
    checks.push(
        match answers {
            Ok((plain, marked)) => {
                let is_explained = marked.status >= 500 && verdict.is_failing().await;
                arrived(&plain, &marked, is_explained)
            }
            Err(error) => Check::fail(
                GROUP,
                "content",
                format!("a POST has no answer: {error}"),
                "look at the log of the proxy, and at what stands before it",
            ),
        }
        .took(took),
    );
    checks
}

const COUNT: &str = "/v1/messages/count_tokens";
/// Words, about as many tokens as the marked text has.
const PLAIN: &str = "one two three four five six seven eight nine ten one two three four five six seven eight nine \
     ten one two three four five six seven eight nine ten one two three four five six seven eight nine ten";

fn content(text: &str) -> String {
    json!({"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": text}]})
        .to_string()
}

fn unanswered(error: &Unanswered, target: &ListenerTarget, presence: ServerPresence) -> Check {
    const ID: &str = "round_trip";
    let is_public = matches!(target, ListenerTarget::Public(_));
    match error {
        Unanswered::Io(error)
            if presence != ServerPresence::Runs
                && !is_public
                && matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
        {
            let why = match presence {
                ServerPresence::Unknown => {
                    "nothing listens here, and it is not known if a server runs: its socket may not be used by this \
                     user (the check admin_socket)"
                }
                _ => "not tried: no server runs here; start it with: anthropic-proxy",
            };
            Check::skip(GROUP, ID, why)
        }
        Unanswered::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::fail(
            GROUP,
            ID,
            format!("this user may not open it: {error}"),
            "run doctor as the user of the server (sudo -u USER), or let this user use the socket (its group)",
        ),
        Unanswered::SpeaksTls => Check::fail(
            GROUP,
            ID,
            "it was asked in clear, and speaks TLS",
            "give clients https:// in place of http://, or the port without TLS (PORT)",
        ),
        Unanswered::Tls(why) if is_public => Check::fail(
            GROUP,
            ID,
            format!("the handshake of TLS fails: {why}"),
            "give the server or what stands before it a certificate for this name that clients trust; Claude Code \
             takes a private authority from NODE_EXTRA_CA_CERTS",
        ),
        error => Check::fail(
            GROUP,
            ID,
            format!("no answer: {error}"),
            "start the server, or look at its log; correct HOST and PORT (at a terminal: `doctor --url URL`) if they name \
             another place",
        ),
    }
}

/// The answer to the question about health, and whether it is a proxy of ours that gave it.
fn round_trip(
    target: &ListenerTarget,
    answer: &PlainAnswer,
    places: &ListenerPlaces,
) -> (Check, bool) {
    const ID: &str = "round_trip";
    let health: Value = serde_json::from_slice(&answer.content).unwrap_or(Value::Null);
    if answer.status == 200 && health["service"] == "anthropic-proxy" {
        let version: String = health["version"]
            .as_str()
            .unwrap_or("?")
            .chars()
            .take(30)
            .collect();
        let own = env!("CARGO_PKG_VERSION");
        let is_known =
            places.presence == ServerPresence::Runs || matches!(target, ListenerTarget::Public(_));
        let check = match version == own {
            true if is_known => Check::ok(GROUP, ID, format!("version {version} answers")),
            true if places.are_settings_named => Check::ok(
                GROUP,
                ID,
                format!(
                    "version {version} answers; it is not known if it runs with these settings"
                ),
            ),
            true => Check::warn(
                GROUP,
                ID,
                format!(
                    "version {version} answers, and these settings are defaults alone: it probably runs with others"
                ),
                "run `doctor` in the folder of that server, or `doctor --env-file FILE`",
            ),
            false => Check::warn(
                GROUP,
                ID,
                format!("version {version} answers, and this program is {own}"),
                "restart the server, or hand over to the new program: anthropic-proxy upgrade",
            ),
        };
        return (check, true);
    }
    let check = match answer.status {
        300..=399 => Check::fail(
            GROUP,
            ID,
            format!(
                "redirects with {}: clients lose the content of a POST",
                answer.status
            ),
            match target {
                ListenerTarget::Public(url) if url.scheme == Scheme::Http => {
                    format!("give clients https://{} as their base URL", url.authority)
                }
                _ => "have what stands before the proxy pass requests on instead".to_owned(),
            },
        ),
        503 => Check::warn(
            GROUP,
            ID,
            "answers 503: it is starting, draining or full",
            "wait a moment; raise MAX_CONNECTIONS if it is full",
        ),
        status => Check::fail(
            GROUP,
            ID,
            format!("status {status}: what listens there is not anthropic-proxy"),
            "stop the other program or choose another PORT; before a proxy, have /health passed to it",
        ),
    };
    (check, false)
}

fn certificate(chain: &PeerChain, places: &ListenerPlaces, target: &ListenerTarget) -> Check {
    const ID: &str = "certificate";
    let Some(leaf) = chain.leaf() else {
        return Check::fail(
            GROUP,
            ID,
            "the certificate cannot be read",
            "make a new one: TLS_CERT_FILE",
        );
    };
    let left = leaf.days_left(peer::now());
    let found = format!("certificate of {}, {left} days left", leaf.subject);
    let is_own = matches!(target, ListenerTarget::Tls(_));
    let is_other = places
        .certificate
        .as_ref()
        .is_some_and(|own| is_own && !chain.is(own));
    let check = if left < 0 {
        Check::fail(
            GROUP,
            ID,
            format!("the certificate of {} has expired", leaf.subject),
            "renew it in TLS_CERT_FILE: it is read again by itself",
        )
    } else if is_other {
        Check::warn(
            GROUP,
            ID,
            format!("{found}; TLS_CERT_FILE has another one"),
            "look at the server's log: it keeps the last pair that was valid; correct the files, then send it SIGHUP",
        )
    } else if left < CERTIFICATE_ENDS_SOON {
        Check::warn(
            GROUP,
            ID,
            found,
            "renew it in TLS_CERT_FILE: it is read again by itself",
        )
    } else {
        Check::ok(GROUP, ID, found)
    };
    check.with_evidence(format!("issuer: {}", leaf.issuer))
}

/// A text with markup against one without: both must have the same fate, and the first must stay whole.
/// `is_explained`: a check of an upstream fails.
fn arrived(plain: &PlainAnswer, marked: &PlainAnswer, is_explained: bool) -> Check {
    const ID: &str = "content";
    let facts = [
        format!("plain text: status {}", plain.status),
        format!("text with XML: status {}", marked.status),
    ];
    let mut check = match (plain.tokens(), marked.tokens()) {
        _ if (300..=399).contains(&marked.status) => Check::fail(
            GROUP,
            ID,
            format!(
                "a POST is redirected ({}): clients lose its content",
                marked.status
            ),
            "give clients the address that it leads to",
        ),
        (Some(plain), Some(marked)) if marked * 2 < plain => Check::fail(
            GROUP,
            ID,
            format!("a text with XML arrives altered: {marked} tokens of it are counted"),
            "have what stands before the proxy leave content as it is (a sanitiser of HTML)",
        ),
        (Some(_), Some(_)) => Check::ok(GROUP, ID, "a text with XML in it passes whole"),
        _ if plain.status == marked.status && marked.status >= 500 && is_explained => Check::skip(
            GROUP,
            ID,
            format!(
                "not known: the running server answers {}, as the upstream does not work now",
                marked.status
            ),
        ),
        _ if plain.status == marked.status && marked.status >= 500 => Check::fail(
            GROUP,
            ID,
            format!("the running server answers {} to clients", marked.status),
            "its log says why; a setting that was changed since its start may need a restart, and its environment \
             may be another one than that of this shell",
        ),
        _ if plain.status == marked.status => Check::ok(
            GROUP,
            ID,
            format!(
                "a text with XML in it passes as any other ({})",
                marked.status
            ),
        ),
        _ => Check::fail(
            GROUP,
            ID,
            format!(
                "a text with XML in it is answered {}, and another one {}: a firewall reads the content",
                marked.status, plain.status
            ),
            "except /v1/ from its rules on content (SQL, scripts, HTML): prompts look like that",
        ),
    };
    check.evidence.extend(facts);
    check
}

/// Reason for which there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the handshake of TLS fails: {0}")]
    Tls(String),
    #[error("it speaks TLS")]
    SpeaksTls,
    #[error("{0}")]
    Name(String),
    #[error("nothing within 5 s")]
    Late,
}

/// An answer over HTTP/1.1.
struct PlainAnswer {
    status: u16,
    content: Vec<u8>,
}

impl PlainAnswer {
    fn tokens(&self) -> Option<u64> {
        let json: Value = serde_json::from_slice(&self.content).ok()?;
        json["input_tokens"].as_u64().filter(|_| self.status == 200)
    }
}

type Trip = Result<(Option<PeerChain>, PlainAnswer), Unanswered>;

async fn exchange(target: &ListenerTarget, method: &str, path: &str, content: &str) -> Trip {
    let mut request = format!(
        "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nUser-Agent: anthropic-proxy/{} (doctor)\r\n\
         anthropic-version: 2023-06-01\r\nAccept-Encoding: identity\r\n",
        target.prefix(),
        target.authority(),
        env!("CARGO_PKG_VERSION")
    );
    if method == "POST" {
        let length = content.len();
        request += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    request = request + "\r\n" + content;
    match target {
        ListenerTarget::Plain(address) => {
            let tcp = TcpStream::connect(address).await?;
            in_clear(tcp, &request).await
        }
        ListenerTarget::Tls(address) => {
            let tcp = TcpStream::connect(address).await?;
            secured(tcp, &address.ip().to_string(), PeerTrust::Any, &request).await
        }
        #[cfg(unix)]
        ListenerTarget::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok((None, over(stream, &request).await?))
        }
        #[cfg(not(unix))]
        ListenerTarget::Unix(_) => Err(Unanswered::Name("no Unix sockets here".to_owned())),
        ListenerTarget::Public(url) => {
            let addresses = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
            let addresses = addresses.map_err(|error| {
                Unanswered::Name(format!("could not resolve {}: {error}", url.host))
            })?;
            let mut last = Err(io::ErrorKind::NotFound.into());
            for address in addresses {
                last = TcpStream::connect(address).await;
                if last.is_ok() {
                    break;
                }
            }
            let tcp = last?;
            match url.scheme {
                Scheme::Http => in_clear(tcp, &request).await,
                Scheme::Https => {
                    let (store, _) = bounded_blocking(|| dial::store(None)).await;
                    let store = match store {
                        Some(Ok(store)) => store,
                        Some(Err(error)) => return Err(Unanswered::Tls(told(&error))),
                        None => return Err(Unanswered::Late),
                    };
                    secured(tcp, &url.host, PeerTrust::Authorities(store), &request).await
                }
            }
        }
    }
}

async fn in_clear(tcp: TcpStream, request: &str) -> Trip {
    match over(tcp, request).await {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(Unanswered::SpeaksTls),
        outcome => Ok((None, outcome?)),
    }
}

async fn secured(tcp: TcpStream, host: &str, trust: PeerTrust, request: &str) -> Trip {
    let (chain, tls) = peer::shake_hands(tcp, host, trust).await;
    let tls = tls.map_err(|error| Unanswered::Tls(told(&error)))?;
    Ok((Some(chain), over(tls, request).await?))
}

async fn over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<PlainAnswer> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut octets = Vec::new();
    // the peer closes after its answer; one that does not close cleanly under TLS has answered all the same
    loop {
        match stream.read_buf(&mut octets).await {
            Ok(0) => break,
            Ok(_) if octets.len() > LARGEST => break,
            Ok(_) => {}
            Err(error) if octets.is_empty() => return Err(error),
            Err(_) => break,
        }
        if is_whole(&octets) {
            break;
        }
    }
    // an alert, or nginx' answer to a request in clear
    let is_tls = octets.starts_with(ALERT) || memchr::memmem::find(&octets, CLEAR_TO_TLS).is_some();
    if is_tls {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    match (head.parse(&octets), head.code) {
        (Ok(httparse::Status::Complete(length)), Some(status)) => {
            let is_chunked = head
                .headers
                .iter()
                .any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
            let content = &octets[length..];
            Ok(PlainAnswer {
                status,
                content: match is_chunked {
                    true => unchunked(content),
                    false => content.to_vec(),
                },
            })
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is not HTTP/1.1",
        )),
    }
}

/// The begin of a record of TLS that holds an alert (RFC 8446 §5.1), and the words of nginx and its likes.
const ALERT: &[u8] = &[0x15, 0x03];
const CLEAR_TO_TLS: &[u8] = b"HTTP request was sent to HTTPS port";

/// Content that came in chunks, as far as it came.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = rest.get(end + 2..(end + 2).saturating_add(size)) else {
            break;
        };
        if size == 0 {
            break;
        }
        content.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    content
}

/// True once as much content has come as the head announces.
fn is_whole(octets: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(octets) else {
        return false;
    };
    let mut fields = head.headers.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let announced =
        field.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    announced.is_some_and(|announced: usize| octets.len() - length >= announced)
}
