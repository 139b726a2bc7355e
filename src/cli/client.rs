//! A client of the API: one blocking request on one connection, all of it before one deadline.

use std::{
    io::{self, Read, Write},
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::{
    healthcheck::{
        exchange::{HealthTarget, Transfer},
        trust,
    },
    operator::{operator, user_name},
};
use crate::{
    audit::AuditFilter,
    config::{InvalidUpstream, Scheme, Upstream},
    registry::{Call, KeyFilter},
};

/// Time for an answer: a hundred thousand keys may be applied.
const PATIENCE: Duration = Duration::from_secs(120);

/// The API, below the server's URL.
pub(super) const API: &str = "/admin/api/v1";

/// Octets of an answer.
const LARGEST: usize = 256 << 20;

/// Characters that stand in a segment of a path as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A server whose API is asked.
pub(super) struct ApiClient {
    targets: Vec<HealthTarget>,
    authority: String,
    prefix: String,
    /// The dashboard's key; none on the socket.
    key: Option<String>,
    /// True once the server has shown that it has the API: whatever else stands there gets no key.
    is_known: AtomicBool,
}

/// Answer of the API.
pub(super) struct ApiAnswer {
    pub(super) status: u16,
    pub(super) content: Value,
}

/// Reason for which the server gives no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("--server: {0}")]
    Url(#[from] InvalidUpstream),
    #[error("--server: {0} is not a name that a certificate can have")]
    Name(String),
    #[error("--server: {0}")]
    Trust(String),
    #[error("--server: could not resolve {0}: {1}")]
    Resolve(String, #[source] io::Error),
    #[error(
        "--server: {0} does not show the admin API, so the key was not sent: it is no anthropic-proxy, or one without \
         ENABLE_DASHBOARD and ADMIN_LISTEN; correct the URL, or set one of them there"
    )]
    Stranger(String),
    #[error(
        "{path} is the socket of a server, which this user may not use{owner}; run this as that user \
         (sudo -u {user}), or give --server",
        path = .0.display(), owner = owner_of(.0), user = owner(.0).as_deref().unwrap_or("USER")
    )]
    Denied(PathBuf),
    #[error("no answer from {0}: {1}; see that the server runs, and that this is its address")]
    Unread(String, #[source] io::Error),
    #[error(
        "no answer from {0}: {1}; nothing is known of the change; look with keys list or audit tail"
    )]
    NoAnswer(String, #[source] io::Error),
}

impl ApiClient {
    /// The server at a URL.
    pub(super) fn of_url(url: &str, key: String) -> Result<Self, ClientError> {
        let url: Upstream = url.parse()?;
        let addresses = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .map_err(|error| ClientError::Resolve(url.host.clone(), error))?;
        let targets = match url.scheme {
            Scheme::Http => addresses.map(HealthTarget::Tcp).collect(),
            Scheme::Https => {
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| ClientError::Name(url.host.clone()))?;
                let config = trust::own_or_system(None)
                    .map_err(|error| ClientError::Trust(error.to_string()))?;
                addresses
                    .map(|address| HealthTarget::Tls(address, name.clone(), config.clone()))
                    .collect()
            }
        };
        Ok(Self {
            targets,
            authority: url.authority,
            prefix: url.prefix,
            key: Some(key),
            is_known: AtomicBool::new(false),
        })
    }

    /// The server on a socket, if one listens there.
    ///
    /// # Errors
    /// This user may not use it.
    #[cfg(unix)]
    pub(super) fn of_socket(path: &Path) -> Result<Option<Self>, ClientError> {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Denied(path.to_owned()));
            }
            // what a server that was killed left behind refuses connections
            Err(_) => return Ok(None),
        }
        Ok(Some(Self {
            targets: vec![HealthTarget::Unix(path.to_owned())],
            authority: "localhost".to_owned(),
            prefix: String::new(),
            key: None,
            is_known: AtomicBool::new(true),
        }))
    }

    /// Makes a call.
    pub(super) fn make(&self, call: &Call) -> Result<ApiAnswer, ClientError> {
        let (method, path, content) = request(call);
        self.ask(method, &path, None, content.as_ref())
    }

    /// Sends a request to a path below the API; `version` is the one that it may change.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        version: Option<&str>,
        content: Option<&Value>,
    ) -> Result<ApiAnswer, ClientError> {
        self.send(method, &format!("{API}{path}"), version, content, PATIENCE)
    }

    /// Sends a request to a path below the server's URL, and waits so long for its answer.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        version: Option<&str>,
        content: Option<&Value>,
        patience: Duration,
    ) -> Result<ApiAnswer, ClientError> {
        let deadline = Instant::now() + patience;
        if path.starts_with(API) {
            self.meets(deadline)?;
        }
        let content = content.map(Value::to_string).unwrap_or_default();
        let head = self.head(method, path, version, &content, self.key.as_deref());
        let fault = |place: String, error| match method {
            "GET" => ClientError::Unread(place, error),
            _ => ClientError::NoAnswer(place, error),
        };
        self.open_and_send(&head, &content, deadline, fault)
    }

    /// Sees that the server has the API, before it gets a key: another program that stands there, or an upstream to
    /// which a proxy without the API forwards, must not see it.
    fn meets(&self, deadline: Instant) -> Result<(), ClientError> {
        if self.is_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let head = self.head("GET", &format!("{API}/session"), None, "", None);
        let answer = self.open_and_send(&head, "", deadline, ClientError::Unread)?;
        if answer.status != 200 || !answer.content["authenticated"].is_boolean() {
            return Err(ClientError::Stranger(self.authority.clone()));
        }
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn head(
        &self,
        method: &str,
        path: &str,
        version: Option<&str>,
        content: &str,
        key: Option<&str>,
    ) -> String {
        let mut head = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             User-Agent: anthropic-proxy/{}\r\nX-Proxy-Operator: {}\r\n",
            self.prefix,
            self.authority,
            env!("CARGO_PKG_VERSION"),
            operator()
        );
        if let Some(key) = key {
            head += &format!("Authorization: Bearer {key}\r\n");
        }
        if let Some(version) = version {
            head += &format!("If-Match: \"{version}\"\r\n");
        }
        if method != "GET" {
            head += "Content-Type: application/json\r\n";
            head += &format!("Content-Length: {}\r\n", content.len());
        }
        head + "\r\n"
    }

    fn open_and_send(
        &self,
        head: &str,
        content: &str,
        deadline: Instant,
        fault: impl Fn(String, io::Error) -> ClientError,
    ) -> Result<ApiAnswer, ClientError> {
        let mut last = Err(fault(
            self.authority.clone(),
            io::ErrorKind::NotFound.into(),
        ));
        for target in &self.targets {
            let fault = |error| fault(target.to_string(), error);
            match target.open(deadline) {
                Ok(stream) => return exchange(stream, head, content).map_err(fault),
                Err(error) => last = Err(fault(error)),
            }
        }
        last
    }
}

/// The owner of a socket, or of the folder that hides it, in parentheses.
fn owner_of(path: &Path) -> String {
    owner(path).map_or_else(String::new, |owner| format!(" (it is that of {owner})"))
}

/// The name of the owner of a socket, or of the folder that hides it.
#[cfg(unix)]
pub(super) fn owner(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut places = path.ancestors();
    let found = places.find_map(|place| std::fs::metadata(place).ok())?;
    Some(user_name(found.uid()))
}

#[cfg(not(unix))]
pub(super) fn owner(_: &Path) -> Option<String> {
    None
}

fn exchange(mut stream: Box<dyn Transfer>, head: &str, content: &str) -> io::Result<ApiAnswer> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(content.as_bytes())?;
    stream.flush()?;
    let mut octets = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        if let Some(answer) = answer(&octets)? {
            return Ok(answer);
        }
        if octets.len() > LARGEST {
            return Err(invalid("the answer is too large"));
        }
        match stream.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => octets.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The answer, once it is whole.
fn answer(octets: &[u8]) -> io::Result<Option<ApiAnswer>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head
        .parse(octets)
        .map_err(|_| invalid("the answer is not HTTP/1.1"))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let status = head.code.unwrap_or_default();
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let rest = &octets[length..];
    let content = if let Some(length) = field("content-length") {
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|it| it.trim().parse().ok());
        let length: usize = length.ok_or_else(|| invalid("the answer has no length"))?;
        match rest.get(..length) {
            Some(content) => content.to_vec(),
            None => return Ok(None),
        }
    } else if field("transfer-encoding").is_some() {
        match unchunked(rest)? {
            Some(content) => content,
            None => return Ok(None),
        }
    } else {
        Vec::new()
    };
    let content = match serde_json::from_slice(&content) {
        Ok(content) => content,
        Err(_) if content.is_empty() => Value::Null,
        // the metrics
        Err(_) => Value::String(String::from_utf8_lossy(&content).into_owned()),
    };
    Ok(Some(ApiAnswer { status, content }))
}

/// Content that came in chunks (RFC 9112 §7.1), once it is whole.
fn unchunked(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    loop {
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
            return Ok(None);
        };
        let line = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk has no size"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(Some(content));
        }
        match rest.split_at_checked(size.saturating_add(2)) {
            Some((chunk, after)) => {
                content.extend_from_slice(&chunk[..size]);
                rest = after;
            }
            None => return Ok(None),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A text as a segment of a path, or a value of a query.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Method, path below the API, and content of a call.
fn request(call: &Call) -> (&'static str, String, Option<Value>) {
    let post = |path: String, content: Value| ("POST", path, Some(content));
    match call {
        Call::Keys(KeyFilter {
            q,
            state,
            limit,
            after,
        }) => {
            let limit = limit.map(|limit| limit.to_string());
            let pairs = [
                ("q", q),
                ("state", state),
                ("limit", &limit),
                ("after", after),
            ];
            ("GET", format!("/keys{}", query(&pairs)), None)
        }
        Call::Key(key) => ("GET", format!("/keys/{}", segment(key)), None),
        Call::Create(new) => post("/keys".to_owned(), json!(new)),
        Call::Rotate(key, terms) => post(format!("/keys/{}/rotate", segment(key)), json!(terms)),
        Call::Revoke(key, terms) => post(format!("/keys/{}/revoke", segment(key)), json!(terms)),
        Call::Apply(file) => post("/keys/apply".to_owned(), json!(file)),
        Call::Export => ("GET", "/keys/export".to_owned(), None),
        Call::Import(import) => post("/keys/import".to_owned(), json!(import)),
        Call::Limits(subject) => ("GET", format!("/limits/{}", segment(subject)), None),
        Call::SetLimits(subject, change) => (
            "PUT",
            format!("/limits/{}", segment(subject)),
            Some(json!(change)),
        ),
        Call::Grant(subject, grant) => {
            post(format!("/limits/{}/grant", segment(subject)), json!(grant))
        }
        Call::VerifyLimits(subject) => (
            "GET",
            format!("/limits/verify{}", query(&[("subject", subject)])),
            None,
        ),
        Call::UsedLimits(most) => {
            let most = most.map(|most| most.to_string());
            (
                "GET",
                format!("/limits{}", query(&[("limit", &most)])),
                None,
            )
        }
        Call::Spend(by) => ("GET", format!("/spend?by={}", by.label()), None),
        Call::Audit(AuditFilter {
            actor,
            action,
            target,
            // the server finds them
            target_ids: _,
            text,
            since,
            limit,
        }) => {
            let limit = Some(limit.to_string());
            let pairs = [
                ("actor", actor),
                ("action", action),
                ("target", target),
                ("q", text),
                ("since", since),
                ("limit", &limit),
            ];
            ("GET", format!("/audit{}", query(&pairs)), None)
        }
        Call::VerifyAudit => ("GET", "/audit/verify".to_owned(), None),
    }
}

fn query(pairs: &[(&str, &Option<String>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            query.push(if query.is_empty() { '?' } else { '&' });
            query += &format!("{name}={}", utf8_percent_encode(value, SEGMENT));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_requests_of_the_api() {
        let line = |call: &Call| {
            let (method, path, _) = request(call);
            format!("{method} {path}")
        };
        let filter = KeyFilter {
            q: Some("a b&c".to_owned()),
            limit: Some(5),
            ..KeyFilter::default()
        };
        assert_eq!(line(&Call::Keys(filter)), "GET /keys?q=a%20b%26c&limit=5");
        assert_eq!(line(&Call::Key("a/b".to_owned())), "GET /keys/a%2Fb");
        assert_eq!(
            line(&Call::Limits("team:ä".to_owned())),
            "GET /limits/team%3A%C3%A4"
        );
        assert_eq!(line(&Call::VerifyLimits(None)), "GET /limits/verify");
        assert_eq!(line(&Call::UsedLimits(Some(5))), "GET /limits?limit=5");
    }

    #[test]
    fn an_answer_is_whole_by_its_length_or_its_chunks() {
        let whole = |text: &str| {
            answer(text.as_bytes())
                .unwrap()
                .map(|it| (it.status, it.content))
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
        assert!(whole(&head[..20]).is_none());
        assert!(whole(&format!("{head}{{\"a\":")).is_none());
        assert_eq!(
            whole(&format!("{head}{{\"a\":1}}")),
            Some((200, json!({"a": 1})))
        );
        let head = "HTTP/1.1 409 Conflict\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(whole(&format!("{head}5\r\n{{\"a\":\r\n")).is_none());
        let chunks = "5\r\n{\"a\":\r\n2;x=y\r\n1}\r\n0\r\n\r\n";
        assert_eq!(
            whole(&format!("{head}{chunks}")),
            Some((409, json!({"a": 1})))
        );
        assert_eq!(
            whole("HTTP/1.1 204 No Content\r\n\r\n"),
            Some((204, Value::Null))
        );
        assert!(answer(b"SSH-2.0-x\r\n").is_err());
    }
}
