//! One raw connection, seen from outside: octets out, octets in, and just enough HTTP/1.1 to find
//! where a message ends.
//!
//! Nothing is retried, merged or repaired. A read that takes longer than the deadline is a failed
//! test. The chunk reader takes only what RFC 9112 §7.1 allows, so it checks the proxy too.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use super::DEADLINE;

/// One end of a connection to or from the proxy.
pub(crate) struct Wire<S = TcpStream> {
    stream: S,
    /// Read, but not yet taken.
    pending: Vec<u8>,
    /// Everything that was ever read.
    seen: Vec<u8>,
}

/// How a peer ended its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// An orderly close.
    Fin,
    /// An abort.
    Reset,
}

/// A message head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The octets, with the empty line.
    pub(crate) octets: Vec<u8>,
    /// The start line, without its line end.
    pub(crate) line: String,
    /// Names as they were spelt, values as they were.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

/// The framing and content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// None by definition (HEAD, 1xx, 204, 304, a request without framing).
    None,
    /// As many octets as `Content-Length` says.
    Length(Vec<u8>),
    /// Chunks that ended with the last chunk.
    Chunked(Vec<u8>),
    /// Octets up to an orderly close.
    Close(Vec<u8>),
    /// Octets up to an end that came too early.
    Cut(Vec<u8>, End),
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// Its head.
    pub(crate) head: Head,
    /// Its body.
    pub(crate) body: Body,
}

impl Wire<TcpStream> {
    /// Takes a connected socket and gives it a deadline.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self::new(stream)
    }

    /// Ends our direction only.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Aborts the connection with a RST.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Waits longer than usual for what is late on purpose.
    pub(crate) fn set_deadline(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// A second handle on the same socket, with nothing read.
    pub(crate) fn clone_writer(&self) -> Self {
        Self::new(self.stream.try_clone().unwrap())
    }

    /// The socket, for its options.
    pub(crate) fn socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&self.stream)
    }

    /// Waits until the peer ends its direction, which takes no longer than this on a machine with
    /// nothing else to do, and returns the octets that came before.
    #[track_caller]
    pub(crate) fn closed_within(&mut self, limit: Duration) -> (Vec<u8>, End) {
        let start = Instant::now();
        let (octets, end) = self.read_to_end();
        super::assert_prompt(start, limit);
        (octets, end)
    }

    /// Whether the peer has not closed yet, without waiting.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let outcome = self.stream.peek(&mut [0; 1]);
        self.stream.set_nonblocking(false).unwrap();
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asserts that the peer neither sends nor closes for a moment.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        assert_eq!(show(&self.pending), "", "octets that nobody asked for");
        self.stream.set_read_timeout(Some(super::QUIET)).unwrap();
        let mut octets = [0; 4096];
        match self.stream.read(&mut octets) {
            Err(error) if waited_in_vain(&error) => {}
            Err(error) => panic!("expected silence, got {error}"),
            Ok(0) => panic!("expected silence, got the end of the connection"),
            Ok(count) => panic!("expected silence, got {:?}", show(&octets[..count])),
        }
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
}

impl<S: Read + Write> Wire<S> {
    /// Takes any stream.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// What it reads from and writes to.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Every octet read so far.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Sends octets; the peer must take them.
    #[track_caller]
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.try_send(octets).expect("the peer takes what is sent");
    }

    /// Sends octets, if the peer takes them.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(octets.as_ref())?;
        self.stream.flush()
    }

    /// Sends each octet alone.
    pub(crate) fn send_split(&mut self, octets: &[u8]) {
        for octet in octets {
            self.send([*octet]);
        }
    }

    /// Sends one chunk.
    #[track_caller]
    pub(crate) fn send_chunk(&mut self, content: &[u8]) {
        self.send(chunk(content));
    }

    /// Reads a request head.
    #[track_caller]
    pub(crate) fn read_request_head(&mut self) -> Head {
        Head::of_request(self.read_head_octets())
    }

    /// Reads a response head; 1xx is one too.
    #[track_caller]
    pub(crate) fn read_response_head(&mut self) -> Head {
        Head::of_response(self.read_head_octets())
    }

    /// Reads a whole request.
    #[track_caller]
    pub(crate) fn read_request(&mut self) -> (Head, Body) {
        let head = self.read_request_head();
        let body = if head.is_chunked() {
            self.read_chunked()
        } else if let Some(length) = head.length() {
            self.read_length(length)
        } else {
            Body::None
        };
        (head, body)
    }

    /// Reads a whole request, if one comes: a peer that ends, or gives up a handshake, sends none.
    pub(crate) fn try_read_request(&mut self) -> Option<(Head, Body)> {
        let head = self.try_read_request_head()?;
        let body = self.try_read_body(head.length().unwrap_or(0))?;
        Some((head, body))
    }

    /// Reads a request head, if one comes.
    pub(crate) fn try_read_request_head(&mut self) -> Option<Head> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                return Some(Head::of_request(self.pending.drain(..at + 4).collect()));
            }
            self.try_fill()?;
        }
    }

    /// Reads a body of this length, if it comes whole.
    pub(crate) fn try_read_body(&mut self, length: usize) -> Option<Body> {
        while self.pending.len() < length {
            self.try_fill()?;
        }
        Some(Body::Length(self.pending.drain(..length).collect()))
    }

    fn try_fill(&mut self) -> Option<()> {
        let mut octets = [0; 4096];
        let count = self
            .stream
            .read(&mut octets)
            .ok()
            .filter(|count| *count > 0)?;
        self.pending.extend_from_slice(&octets[..count]);
        Some(())
    }

    /// Reads a whole response to a request with this method.
    #[track_caller]
    pub(crate) fn read_response(&mut self, method: &str) -> Response {
        let head = self.read_response_head();
        let body = self.read_response_body(method, &head);
        Response { head, body }
    }

    /// Reads the body of a response whose head was read.
    #[track_caller]
    pub(crate) fn read_response_body(&mut self, method: &str, head: &Head) -> Body {
        let status = head.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            Body::None
        } else if head.is_chunked() {
            self.read_chunked()
        } else if let Some(length) = head.length() {
            self.read_length(length)
        } else {
            match self.read_to_end() {
                (octets, End::Fin) => Body::Close(octets),
                (octets, End::Reset) => Body::Cut(octets, End::Reset),
            }
        }
    }

    /// Reads exactly so many octets.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, count: usize) -> Vec<u8> {
        match self.read_length(count) {
            Body::Length(octets) => octets,
            body => panic!("wanted {count} octets, got {body:?}"),
        }
    }

    /// Reads one chunk; an empty one is the last.
    #[track_caller]
    pub(crate) fn read_chunk(&mut self) -> Vec<u8> {
        self.try_read_chunk()
            .unwrap_or_else(|end| panic!("{end:?} inside a chunk"))
    }

    /// Reads chunks until they hold at least so many octets together.
    #[track_caller]
    pub(crate) fn read_chunks(&mut self, count: usize) -> Vec<u8> {
        let mut content = Vec::new();
        while content.len() < count {
            let chunk = self.read_chunk();
            assert!(!chunk.is_empty(), "the last chunk came after {content:?}");
            content.extend(chunk);
        }
        content
    }

    /// Reads the last chunk and gives its trailer section as it stands.
    #[track_caller]
    pub(crate) fn read_trailers(&mut self) -> String {
        let cut = |end: End| -> String { panic!("{end:?} before the last chunk") };
        assert_eq!(self.read_line().unwrap_or_else(cut), "0");
        let mut trailers = String::new();
        loop {
            let line = self.read_line().unwrap_or_else(cut);
            if line.is_empty() {
                return trailers;
            }
            trailers += &(line + "\r\n");
        }
    }

    /// Reads everything up to the peer's end.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.pending), end);
            }
        }
    }

    /// Reads chunks to their end.
    #[track_caller]
    pub(crate) fn read_chunked(&mut self) -> Body {
        let mut content = Vec::new();
        loop {
            match self.try_read_chunk() {
                Ok(chunk) if chunk.is_empty() => return Body::Chunked(content),
                Ok(chunk) => content.extend(chunk),
                Err(end) => return Body::Cut(content, end),
            }
        }
    }

    #[track_caller]
    fn read_length(&mut self, length: usize) -> Body {
        while self.pending.len() < length {
            if let Err(end) = self.fill() {
                return Body::Cut(std::mem::take(&mut self.pending), end);
            }
        }
        Body::Length(self.pending.drain(..length).collect())
    }

    /// One chunk, strictly: size in hex digits, CRLF, content, CRLF; the last one with its
    /// trailer section, which is dropped.
    #[track_caller]
    fn try_read_chunk(&mut self) -> Result<Vec<u8>, End> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap();
        assert!(
            !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_hexdigit()),
            "{line:?} is not a chunk size"
        );
        let size = usize::from_str_radix(digits, 16).unwrap();
        if size == 0 {
            while !self.read_line()?.is_empty() {}
            return Ok(Vec::new());
        }
        while self.pending.len() < size + 2 {
            self.fill()?;
        }
        let content = self.pending.drain(..size).collect();
        let end: Vec<u8> = self.pending.drain(..2).collect();
        assert_eq!(end, b"\r\n", "a chunk of {size} octets ends with CRLF");
        Ok(content)
    }

    #[track_caller]
    fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n") {
                let line = self.pending.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8(line).unwrap());
            }
            self.fill()?;
        }
    }

    #[track_caller]
    fn read_head_octets(&mut self) -> Vec<u8> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                return self.pending.drain(..at + 4).collect();
            }
            if let Err(end) = self.fill() {
                panic!("{end:?} before a complete head: {:?}", show(&self.pending));
            }
        }
    }

    #[track_caller]
    fn fill(&mut self) -> Result<(), End> {
        let mut octets = [0; 64 * 1024];
        match self.stream.read(&mut octets) {
            Ok(0) => Err(End::Fin),
            Ok(count) => {
                self.pending.extend_from_slice(&octets[..count]);
                // Enough for every assertion on octets; a 50 MB upload is not kept twice.
                if self.seen.len() < KEPT {
                    self.seen.extend_from_slice(&octets[..count]);
                }
                Ok(())
            }
            Err(error) if waited_in_vain(&error) => {
                panic!(
                    "nothing within the deadline, after {:?}",
                    show(&self.pending)
                )
            }
            // A socket with a deadline is interrupted by a stopped and continued process.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.fill(),
            Err(_) => Err(End::Reset),
        }
    }
}

impl Head {
    fn of_request(octets: Vec<u8>) -> Self {
        let mut fields = vec![httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(&octets);
        assert_eq!(
            parsed,
            Ok(httparse::Status::Complete(octets.len())),
            "{:?}",
            show(&octets)
        );
        let fields = own(request.headers);
        Self::new(octets, fields)
    }

    fn of_response(octets: Vec<u8>) -> Self {
        let mut fields = vec![httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&octets);
        assert_eq!(
            parsed,
            Ok(httparse::Status::Complete(octets.len())),
            "{:?}",
            show(&octets)
        );
        let fields = own(response.headers);
        Self::new(octets, fields)
    }

    fn new(octets: Vec<u8>, fields: Vec<(String, Vec<u8>)>) -> Self {
        let at = memchr::memmem::find(&octets, b"\r\n").unwrap();
        let line = String::from_utf8(octets[..at].to_vec()).unwrap();
        Self {
            octets,
            line,
            fields,
        }
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap()
    }

    /// The request target.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The values of all fields of this name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let same = |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    /// The value of the only field of this name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(
            values.len() <= 1,
            "more than one {name}: {:?}",
            show(&self.octets)
        );
        values
            .first()
            .map(|value| std::str::from_utf8(value).unwrap())
    }

    /// Whether there is such a field.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The names, in lower case and order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .fields
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort();
        names
    }

    fn length(&self) -> Option<usize> {
        self.one("content-length")
            .map(|value| value.parse().unwrap())
    }

    fn is_chunked(&self) -> bool {
        self.one("transfer-encoding")
            .is_some_and(|value| value == "chunked")
    }
}

impl Body {
    /// The content, however it was framed.
    pub(crate) fn content(&self) -> &[u8] {
        match self {
            Self::None => b"",
            Self::Length(content)
            | Self::Chunked(content)
            | Self::Close(content)
            | Self::Cut(content, _) => content,
        }
    }
}

impl Response {
    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// The content, which must have come whole.
    #[track_caller]
    pub(crate) fn content(&self) -> &[u8] {
        assert!(
            !matches!(self.body, Body::Cut(..)),
            "the answer was cut: {:?}",
            self.body
        );
        self.body.content()
    }
}

/// One chunk with its framing; of nothing, the last chunk.
pub(crate) fn chunk(content: &[u8]) -> Vec<u8> {
    let mut octets = format!("{:x}\r\n", content.len()).into_bytes();
    octets.extend_from_slice(content);
    octets.extend_from_slice(b"\r\n");
    octets
}

/// Asserts identity, and shows where it ends.
#[track_caller]
pub(crate) fn assert_octets(
    actual: impl AsRef<[u8]>,
    expected: impl AsRef<[u8]>,
    what: impl std::fmt::Display,
) {
    let (actual, expected) = (actual.as_ref(), expected.as_ref());
    if actual == expected {
        return;
    }
    let at = actual
        .iter()
        .zip(expected)
        .take_while(|(one, other)| one == other)
        .count();
    panic!(
        "{what}: {} octets, not {}; they differ from {at} on:\n  left: {}\n right: {}",
        actual.len(),
        expected.len(),
        show(&actual[at.saturating_sub(80)..]),
        show(&expected[at.saturating_sub(80)..]),
    );
}

/// Octets for a failure message, at most the first few kilobytes.
pub(crate) fn show(octets: &[u8]) -> String {
    let octets = octets[..octets.len().min(4096)].escape_ascii().to_string();
    octets.replace("\\\"", "\"")
}

fn own(fields: &[httparse::Header<'_>]) -> Vec<(String, Vec<u8>)> {
    fields
        .iter()
        .map(|field| (field.name.to_owned(), field.value.to_owned()))
        .collect()
}

fn waited_in_vain(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// More than the proxy may ever send, so that the test sees what it sent.
const MOST_FIELDS: usize = 400;

/// How much of what was read is kept for [`Wire::seen`].
const KEPT: usize = 1 << 20;
