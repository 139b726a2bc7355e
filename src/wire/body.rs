//! Framing of message bodies (RFC 9112 §6 and §7.1).
//!
//! [`Decoder`] takes octets from the front of a buffer and gives content; it never copies, never
//! holds content back, and refuses everything that deviates from the RFC.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    limits::{MAX_FIELDS, MAX_HEAD},
    role::may_trail,
};

/// Framing of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends with the connection (responses only).
    UntilClose,
}

/// Output of the decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Some content.
    Content(Bytes),
    /// The buffer is empty.
    NeedMore,
    /// The body is complete, with the raw trailer section if it has one.
    End(Option<Bytes>),
}

/// Error of a malformed chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked coding")]
pub struct Malformed;

/// Incremental decoder of one body.
#[derive(Debug)]
pub struct Decoder {
    state: DecodeState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecodeState {
    Length(u64),
    UntilClose,
    /// Reading a chunk size: value so far and digits so far.
    Size(u64, u8),
    /// White space after a size: only an extension or the line end may follow (RFC 9112 §7.1.1).
    Space(u64),
    /// Between size and line end: chunk extensions, which are passed over.
    Extension(u64, u32),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// Reading the trailer section: octets of it that were searched.
    Trailers(usize),
    Done,
    /// Malformed: nothing after it has a meaning.
    Broken,
}

/// Digits of a chunk size: 15 hex digits are 2^60 octets, and cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;
/// Most octets of one chunk's extensions; they are not in use, so only abuse is longer.
const MAX_EXTENSION: u32 = 4096;

impl Decoder {
    /// Makes a decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => DecodeState::Done,
            Framing::Length(length) => DecodeState::Length(length),
            Framing::Chunked => DecodeState::Size(0, 0),
            Framing::UntilClose => DecodeState::UntilClose,
        };
        Self { state }
    }

    /// Reports whether the end was seen.
    pub fn is_done(&self) -> bool {
        self.state == DecodeState::Done
    }

    /// Reports whether the end of the connection is the end of this body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, DecodeState::UntilClose | DecodeState::Done)
    }

    /// Octets that must still come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            DecodeState::Length(remaining) => Some(remaining),
            _ => None,
        }
    }

    /// Decodes octets from the front of `buffer`.
    ///
    /// # Errors
    /// Once malformed, always malformed: no octet after the fault is read.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        let decoded = self.advance(buffer);
        if decoded.is_err() {
            self.state = DecodeState::Broken;
        }
        decoded
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self.state {
                DecodeState::Broken => return Err(Malformed),
                DecodeState::Done => return Ok(Decoded::End(None)),
                _ if buffer.is_empty() => return Ok(Decoded::NeedMore),
                DecodeState::UntilClose => return Ok(Decoded::Content(buffer.split().freeze())),
                DecodeState::Length(remaining) => {
                    let content = take(buffer, remaining);
                    let rest = remaining - content.len() as u64;
                    self.state = if rest == 0 {
                        DecodeState::Done
                    } else {
                        DecodeState::Length(rest)
                    };
                    return Ok(Decoded::Content(content));
                }
                DecodeState::Data(remaining) => {
                    let content = take(buffer, remaining);
                    let rest = remaining - content.len() as u64;
                    self.state = if rest == 0 {
                        DecodeState::DataCr
                    } else {
                        DecodeState::Data(rest)
                    };
                    return Ok(Decoded::Content(content));
                }
                DecodeState::Trailers(searched) => return self.trailers(buffer, searched),
                _ => self.step(buffer.get_u8())?,
            }
        }
    }

    /// One octet of the chunked coding outside of content and trailers.
    fn step(&mut self, octet: u8) -> Result<(), Malformed> {
        self.state = match (self.state, octet) {
            (DecodeState::Size(size, digits), octet) if octet.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(Malformed);
                }
                let digit = (octet as char).to_digit(16).ok_or(Malformed)?;
                DecodeState::Size(size * 16 + u64::from(digit), digits + 1)
            }
            (DecodeState::Size(size, 1..), b'\r') => DecodeState::SizeLf(size),
            (DecodeState::Size(size, 1..) | DecodeState::Space(size), b' ' | b'\t') => {
                DecodeState::Space(size)
            }
            (DecodeState::Size(size, 1..) | DecodeState::Space(size), b';') => {
                DecodeState::Extension(size, 0)
            }
            (DecodeState::Space(size), b'\r') => DecodeState::SizeLf(size),
            (DecodeState::Extension(size, _), b'\r') => DecodeState::SizeLf(size),
            // a lone LF here is how smuggling by chunk extensions begins
            (DecodeState::Extension(..), b'\n' | 0) => return Err(Malformed),
            (DecodeState::Extension(size, seen), _) if seen < MAX_EXTENSION => {
                DecodeState::Extension(size, seen + 1)
            }
            (DecodeState::SizeLf(0), b'\n') => DecodeState::Trailers(0),
            (DecodeState::SizeLf(size), b'\n') => DecodeState::Data(size),
            (DecodeState::DataCr, b'\r') => DecodeState::DataLf,
            (DecodeState::DataLf, b'\n') => DecodeState::Size(0, 0),
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// The trailer section, up to and with the empty line.
    fn trailers(&mut self, buffer: &mut BytesMut, searched: usize) -> Result<Decoded, Malformed> {
        match &buffer[..] {
            [b'\r', b'\n', ..] => {
                buffer.advance(2);
                self.state = DecodeState::Done;
                return Ok(Decoded::End(None));
            }
            [b'\r', other, ..] if *other != b'\n' => return Err(Malformed),
            [b'\r'] => return Ok(Decoded::NeedMore),
            _ => {}
        }
        let start = searched.saturating_sub(3);
        if let Some(at) = memchr::memmem::find(&buffer[start..], b"\r\n\r\n") {
            let raw = buffer.split_to(start + at + 4).freeze();
            // the parser takes a bare LF for a line end; others take it for part of a value, and such a
            // section is passed on as it is
            if memchr::memchr_iter(b'\n', &raw).any(|at| at == 0 || raw[at - 1] != b'\r') {
                return Err(Malformed);
            }
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let fields = match httparse::parse_headers(&raw, &mut fields) {
                Ok(httparse::Status::Complete((used, fields))) if used == raw.len() => fields,
                _ => return Err(Malformed),
            };
            let all_pass = fields.iter().all(|field| may_trail(field.name.as_bytes()));
            self.state = DecodeState::Done;
            return Ok(Decoded::End(all_pass.then_some(raw)));
        }
        if buffer.len() > MAX_HEAD {
            return Err(Malformed);
        }
        self.state = DecodeState::Trailers(buffer.len());
        Ok(Decoded::NeedMore)
    }
}

fn take(buffer: &mut BytesMut, limit: u64) -> Bytes {
    let length = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    buffer.split_to(length).freeze()
}

/// The line before a chunk's content: its size in hex and CRLF.
pub fn chunk_size_line(size: usize) -> Bytes {
    let mut line = [0_u8; 18]; // 16 hex digits of 64 bits, CR, LF
    let mut at = 16;
    line[16..].copy_from_slice(b"\r\n");
    let mut rest = size;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    Bytes::copy_from_slice(&line[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Outcome = Result<(Vec<u8>, Option<Vec<u8>>, Vec<u8>), Malformed>;

    /// Feeds `input` in pieces; gives content, trailers and what follows the body.
    fn decode(framing: Framing, input: &[u8], splits: &[usize]) -> Outcome {
        let mut decoder = Decoder::new(framing);
        let (mut buffer, mut content, mut at) = (BytesMut::new(), Vec::new(), 0);
        let mut cuts: Vec<usize> = splits.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        for cut in cuts {
            buffer.extend_from_slice(&input[at..cut]);
            at = cut;
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Content(chunk) => content.extend_from_slice(&chunk),
                    Decoded::NeedMore => break,
                    Decoded::End(trailers) => {
                        buffer.extend_from_slice(&input[at..]);
                        return Ok((content, trailers.map(|raw| raw.to_vec()), buffer.to_vec()));
                    }
                }
            }
        }
        Err(Malformed) // incomplete, for these tests
    }

    #[test]
    fn chunked_bodies_end_where_the_rfc_says() {
        let done = |content: &[u8], rest: &[u8]| Ok((content.to_vec(), None, rest.to_vec()));
        for (input, expected) in [
            (&b"0\r\n\r\n"[..], done(b"", b"")),
            (b"5\r\nhello\r\n0\r\n\r\nGET", done(b"hello", b"GET")),
            (b"5;a=b\r\nhello\r\n00\r\n\r\n", done(b"hello", b"")),
            (b"A\r\n0123456789\r\n0\r\n\r\n", done(b"0123456789", b"")),
            (b"", Err(Malformed)),
            (b"\r\n\r\n", Err(Malformed)),
            (b"0x5\r\nhello\r\n0\r\n\r\n", Err(Malformed)),
            (b"5\nhello\r\n0\r\n\r\n", Err(Malformed)),
            (b"5 \r\nhello\r\n0\r\n\r\n", done(b"hello", b"")),
            (b"5 ;a\r\nhello\r\n0\r\n\r\n", done(b"hello", b"")),
            (b"5 5\r\nhello\r\n0\r\n\r\n", Err(Malformed)),
            (b"5;a\nb\r\nhello\r\n0\r\n\r\n", Err(Malformed)),
            (b"-5\r\nhello\r\n0\r\n\r\n", Err(Malformed)),
            (b"5\r\nhelloXX0\r\n\r\n", Err(Malformed)),
            (b"5\r\nhello\n0\r\n\r\n", Err(Malformed)),
            (b"FFFFFFFFFFFFFFFF\r\n", Err(Malformed)),
            (b"0\r\n\rX", Err(Malformed)),
            (b"0\r\nbad trailer\r\n\r\n", Err(Malformed)),
            (b"0\r\nx: y\nz: w\r\n\r\n", Err(Malformed)),
            (b"0\r\n\nx: y\r\n\r\n", Err(Malformed)),
            (b"0\r\nx: y\n\r\n\r\n", Err(Malformed)),
        ] {
            assert_eq!(
                decode(Framing::Chunked, input, &[]),
                expected,
                "{}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn nothing_is_decoded_after_a_fault() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buffer = BytesMut::from("5 5\r\nhello\r\n0\r\n\r\n");
        for _ in 0..9 {
            assert_eq!(decoder.decode(&mut buffer), Err(Malformed));
        }
        assert!(!decoder.is_done());
    }

    #[test]
    fn trailers_are_kept_raw() {
        let (content, trailers, rest) = decode(
            Framing::Chunked,
            b"1\r\nx\r\n0\r\nX-Sum: 1\r\nb:\r\n\r\nrest",
            &[],
        )
        .unwrap();
        assert_eq!((&content[..], &rest[..]), (&b"x"[..], &b"rest"[..]));
        assert_eq!(trailers.unwrap(), b"X-Sum: 1\r\nb:\r\n\r\n");
        let (_, trailers, _) =
            decode(Framing::Chunked, b"0\r\nContent-Length: 1\r\n\r\n", &[]).unwrap();
        assert_eq!(trailers, None, "framing fields do not pass");
    }

    #[test]
    fn size_lines_are_hex() {
        for (size, line) in [
            (0, "0\r\n"),
            (10, "a\r\n"),
            (255, "ff\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(chunk_size_line(size), line);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..9),
            splits in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(&chunk_size_line(chunk.len()));
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire.extend_from_slice(&rest);
            prop_assert_eq!(
                decode(Framing::Chunked, &wire, &splits),
                Ok((chunks.concat(), None, rest))
            );
        }

        #[test]
        fn no_split_changes_the_outcome(
            input in prop::collection::vec(prop::sample::select(&b"0123aF;\r\n\r\nx: "[..]), 0..40),
            splits in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(
                decode(Framing::Chunked, &input, &splits),
                decode(Framing::Chunked, &input, &[])
            );
        }

        #[test]
        fn a_length_takes_exactly_its_octets(
            input in prop::collection::vec(any::<u8>(), 1..60),
            splits in prop::collection::vec(any::<usize>(), 0..6),
            length in 1_usize..60,
        ) {
            prop_assume!(length <= input.len());
            let (content, _, rest) =
                decode(Framing::Length(length as u64), &input, &splits).unwrap();
            prop_assert_eq!(&content[..], &input[..length]);
            prop_assert_eq!(&rest[..], &input[length..]);
        }
    }
}
