//! One connection of the load generator.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{chunked::Chunked, now};

/// A client that keeps its connection.
pub struct Client {
    port: u16,
    stream: Option<TcpStream>,
    buffer: Box<[u8]>,
    /// Connections that had to be opened anew.
    pub reconnects: u64,
}

/// The response to a request, without its content.
pub struct Answer {
    pub status: u16,
    pub length: u64,
    is_kept: bool,
}

/// A request that failed, and whether anything of its response had arrived.
struct Failed {
    what: String,
    has_begun: bool,
}

/// The head of a response.
struct Head {
    /// Octets in the buffer that belong to it.
    length: usize,
    status: u16,
    content_length: Option<u64>,
    is_chunked: bool,
    is_kept: bool,
}

impl Client {
    /// A client without a connection.
    pub fn new(port: u16, buffer: usize) -> Self {
        Self {
            port,
            stream: None,
            buffer: vec![0; buffer].into_boxed_slice(),
            reconnects: 0,
        }
    }

    /// Sends a request and gives its content to `take`, each piece with the time of its arrival.
    ///
    /// A kept connection that closed before anything arrived is replaced, as clients do.
    pub async fn send(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[u8], u64),
    ) -> Result<Answer, String> {
        loop {
            let (mut stream, is_new) = match self.stream.take() {
                Some(stream) => (stream, false),
                None => (
                    self.connect()
                        .await
                        .map_err(|cause| format!("connect: {cause}"))?,
                    true,
                ),
            };
            match exchange(&mut stream, &mut self.buffer, request, &mut take).await {
                Ok(answer) => {
                    if answer.is_kept {
                        self.stream = Some(stream);
                    } else {
                        self.reconnects += 1;
                    }
                    return Ok(answer);
                }
                Err(failed) if is_new || failed.has_begun => return Err(failed.what),
                Err(_) => self.reconnects += 1,
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    request: &[u8],
    take: &mut impl FnMut(&[u8], u64),
) -> Result<Answer, Failed> {
    let failed = |what: String, has_begun| Failed { what, has_begun };
    stream
        .write_all(request)
        .await
        .map_err(|cause| failed(format!("write: {}", cause.kind()), false))?;
    let mut filled = 0;
    let mut time;
    let head = loop {
        let read = stream.read(&mut buffer[filled..]).await;
        time = now();
        match read {
            Ok(0) => return Err(failed("end before a head".into(), filled > 0)),
            Ok(read) => filled += read,
            Err(cause) => return Err(failed(format!("read: {}", cause.kind()), filled > 0)),
        }
        if let Some(head) = head(buffer, &mut filled).map_err(|what| failed(what, true))? {
            break head;
        }
        if filled == buffer.len() {
            return Err(failed("head too long".into(), true));
        }
    };
    let mut decoder = head.is_chunked.then(Chunked::new);
    let (mut from, mut length) = (head.length, 0);
    loop {
        let arrived = &buffer[from..filled];
        let is_complete = match (&mut decoder, head.content_length) {
            (Some(decoder), _) => {
                decoder
                    .feed(arrived, |content| {
                        length += content.len() as u64;
                        take(content, time);
                    })
                    .map_err(|what| failed(what.into(), true))?;
                decoder.is_done()
            }
            (None, expected) => {
                length += arrived.len() as u64;
                if !arrived.is_empty() {
                    take(arrived, time);
                }
                expected.is_some_and(|expected| length >= expected)
            }
        };
        if is_complete {
            break;
        }
        let read = stream.read(buffer).await;
        time = now();
        (from, filled) = match read {
            Ok(0) if decoder.is_none() && head.content_length.is_none() => break,
            Ok(0) => return Err(failed("end inside of a body".into(), true)),
            Ok(read) => (0, read),
            Err(cause) => return Err(failed(format!("read: {}", cause.kind()), true)),
        };
    }
    let is_framed = decoder.is_some() || head.content_length.is_some();
    Ok(Answer {
        status: head.status,
        length,
        is_kept: head.is_kept && is_framed,
    })
}

/// The head of a final response, if it is complete; interim ones are cut out of the buffer.
fn head(buffer: &mut [u8], filled: &mut usize) -> Result<Option<Head>, String> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 96];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(&buffer[..*filled]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(cause) => return Err(format!("bad head: {cause}")),
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            buffer.copy_within(length..*filled, 0);
            *filled -= length;
            continue;
        }
        let mut head = Head {
            length,
            status,
            content_length: None,
            is_chunked: false,
            is_kept: response.version == Some(1),
        };
        for field in response.headers.iter() {
            let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                head.content_length = value.parse().ok();
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                head.is_chunked = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                head.is_kept = !value.eq_ignore_ascii_case("close");
            }
        }
        return Ok(Some(head));
    }
}
