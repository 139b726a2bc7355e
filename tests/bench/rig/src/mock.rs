//! The mock upstream.
//!
//! - `POST /v1/messages`: a message of 1 KB, or a stream whose events carry the time at which they
//!   were written; the fields `x-mock-events` and `x-mock-delay-ms` say how many and how far apart.
//! - `GET /bytes/N`: N octets. Downloads take turns, so that small answers do not wait for them.
//! - Everything else: a list of one model.

use std::{io, sync::Arc, time::Duration};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    chunked::Chunked,
    events::{MARK, write_time},
    now,
};

#[derive(clap::Args)]
pub struct Options {
    /// The port; 0: the kernel chooses.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Answers until the process is ended.
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], options.port).into())?;
        let listener = socket.listen(8192)?;
        println!("{}", listener.local_addr()?.port());
        let answers = Arc::new(Answers::new());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    tokio::spawn(serve(stream, Arc::clone(&answers)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
}

/// What is answered, written once.
struct Answers {
    message: Vec<u8>,
    models: Vec<u8>,
    /// Head and first events of a stream.
    begin: Vec<u8>,
    delta: Vec<u8>,
    /// Where the time stands in `delta`.
    time_at: usize,
    end: Vec<u8>,
    /// The turn of the download that may write now.
    turns: Semaphore,
}

impl Answers {
    fn new() -> Self {
        let text = "Here is what I found in the repository and what I would change. ".repeat(11);
        let json = |content: &str| {
            let length = content.len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{FIELDS}\r\n{content}"
            )
            .into_bytes()
        };
        let mut begin = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
             cache-control: no-cache\r\ntransfer-encoding: chunked\r\n{FIELDS}\r\n"
        )
        .into_bytes();
        begin.extend(chunk(START));
        begin.extend(chunk(BLOCK));
        let delta = chunk(DELTA);
        let mut end = chunk(END);
        end.extend_from_slice(b"0\r\n\r\n");
        Self {
            message: json(&MESSAGE.replace("TEXT", &text)),
            models: json(MODELS),
            begin,
            time_at: memmem::find(&delta, MARK).unwrap_or_default() + MARK.len(),
            delta,
            end,
            turns: Semaphore::new(1),
        }
    }
}

/// What the mock needs of a request's head.
#[derive(Default)]
struct Request {
    is_post: bool,
    path: String,
    is_last: bool,
    content_length: usize,
    is_chunked: bool,
    expects_continue: bool,
    events: u64,
    delay: Duration,
}

async fn serve(mut stream: TcpStream, answers: Arc<Answers>) {
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut content = Vec::new();
    // a client that goes away is no error
    while let Ok(Some(request)) = read(&mut stream, &mut buffer, &mut content).await {
        let is_answered = answer(&mut stream, &request, &content, &answers).await;
        if is_answered.is_err() || request.is_last {
            break;
        }
    }
}

/// Reads the next request with its content; what follows stays in the buffer.
async fn read(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    content: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let (length, request) = loop {
        if let Some(parsed) = parse(buffer)? {
            break parsed;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    if request.expects_continue {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    buffer.drain(..length);
    content.clear();
    let mut decoder = request.is_chunked.then(Chunked::new);
    loop {
        let used = match &mut decoder {
            Some(decoder) => decoder
                .feed(buffer, |octets| content.extend_from_slice(octets))
                .map_err(io::Error::other)?,
            None => {
                let used = buffer.len().min(request.content_length - content.len());
                content.extend_from_slice(&buffer[..used]);
                used
            }
        };
        buffer.drain(..used);
        let is_complete = match &decoder {
            Some(decoder) => decoder.is_done(),
            None => content.len() == request.content_length,
        };
        if is_complete {
            return Ok(Some(request));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<(usize, Request)>> {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or("/");
    let mut request = Request {
        is_post: parsed.method == Some("POST"),
        path: target.split('?').next().unwrap_or(target).to_owned(),
        is_last: parsed.version == Some(0),
        events: 20,
        ..Request::default()
    };
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            request.content_length = value.parse().map_err(io::Error::other)?;
        } else if is("transfer-encoding") {
            request.is_chunked = true;
        } else if is("connection") {
            request.is_last = value.eq_ignore_ascii_case("close");
        } else if is("expect") {
            request.expects_continue = true;
        } else if is("x-mock-events") {
            request.events = value.parse().map_err(io::Error::other)?;
        } else if is("x-mock-delay-ms") {
            request.delay = Duration::from_millis(value.parse().map_err(io::Error::other)?);
        }
    }
    Ok(Some((length, request)))
}

async fn answer(
    stream: &mut TcpStream,
    request: &Request,
    content: &[u8],
    answers: &Answers,
) -> io::Result<()> {
    if let Some(size) = request.path.strip_prefix("/bytes/") {
        let size = size.parse().map_err(io::Error::other)?;
        download(stream, size, &answers.turns).await
    } else if request.path != "/v1/messages" || !request.is_post {
        stream.write_all(&answers.models).await
    } else if memmem::find(content, b"\"stream\":true").is_some() {
        events(stream, request, answers).await
    } else {
        stream.write_all(&answers.message).await
    }
}

async fn events(stream: &mut TcpStream, request: &Request, answers: &Answers) -> io::Result<()> {
    stream.write_all(&answers.begin).await?;
    let mut delta = answers.delta.clone();
    let mut next = Instant::now();
    for _ in 0..request.events {
        if !request.delay.is_zero() {
            next += request.delay;
            sleep_until(next).await;
        }
        write_time(&mut delta, answers.time_at, now());
        stream.write_all(&delta).await?;
    }
    stream.write_all(&answers.end).await
}

async fn download(stream: &mut TcpStream, size: u64, turns: &Semaphore) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n{FIELDS}\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut left = size;
    while left > 0 {
        stream.writable().await?;
        let _turn = turns.acquire().await.map_err(io::Error::other)?;
        let piece = usize::try_from(left).map_or(OCTETS.len(), |left| left.min(OCTETS.len()));
        match stream.try_write(&OCTETS[..piece]) {
            Ok(written) => left -= written as u64,
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(cause),
        }
        // the runtime looks at its sockets before it goes on here
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn chunk(content: &str) -> Vec<u8> {
    format!("{:x}\r\n{content}\r\n", content.len()).into_bytes()
}

static OCTETS: [u8; 128 * 1024] = [b'x'; 128 * 1024];

const FIELDS: &str = "request-id: req_011CUmockmockmockmockmock\r\n\
    anthropic-organization-id: 00000000-1111-2222-3333-444444444444\r\n\
    anthropic-ratelimit-requests-limit: 4000\r\n\
    anthropic-ratelimit-requests-remaining: 3999\r\n\
    anthropic-ratelimit-tokens-limit: 400000\r\n\
    anthropic-ratelimit-tokens-remaining: 399000\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    via: 1.1 google\r\n\
    cf-cache-status: DYNAMIC\r\n\
    x-robots-tag: none\r\n\
    server: cloudflare\r\n";
const MESSAGE: &str = concat!(
    r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","#,
    r#""model":"claude-sonnet-4-5-20250929","content":[{"type":"text","text":"TEXT"}],"#,
    r#""stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":512,"#,
    r#""cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":128,"#,
    r#""service_tier":"standard"}}"#,
);
const MODELS: &str = concat!(
    r#"{"data":[{"type":"model","id":"claude-sonnet-4-5-20250929","#,
    r#""display_name":"Claude Sonnet 4.5","created_at":"2025-09-29T00:00:00Z"}],"has_more":false,"#,
    r#""first_id":"claude-sonnet-4-5-20250929","last_id":"claude-sonnet-4-5-20250929"}"#,
);
const START: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","#,
    r#""type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[],"#,
    r#""stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":512,"#,
    r#""cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}"#,
    "\n\n",
);
const BLOCK: &str = concat!(
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
);
const DELTA: &str = concat!(
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","#,
    r#""text":"@@T0000000000000000 tokens"}}"#,
    "\n\n",
);
const END: &str = concat!(
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"#,
    r#""usage":{"output_tokens":200}}"#,
    "\n\nevent: message_stop\n",
    r#"data: {"type":"message_stop"}"#,
    "\n\n",
);
