//! An incremental decoder of the chunked coding (RFC 9112 §7.1).

#[derive(Clone, Copy, PartialEq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    Trailer,
    TrailerLine,
    End,
    Done,
}

/// A body that is being decoded.
pub struct Chunked {
    state: State,
    left: u64,
}

impl Chunked {
    /// The beginning of a body.
    pub fn new() -> Self {
        Self {
            state: State::Size,
            left: 0,
        }
    }

    /// Whether the last chunk and the trailers were read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Gives content to `take` and returns how many octets were used.
    pub fn feed(
        &mut self,
        octets: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < octets.len() && !self.is_done() {
            if self.state == State::Data {
                let size = usize::try_from(self.left).map_or(usize::MAX, |left| left);
                let size = size.min(octets.len() - at);
                take(&octets[at..at + size]);
                self.left -= size as u64;
                at += size;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                continue;
            }
            self.state = self.next(octets[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, octet: u8) -> Result<State, &'static str> {
        Ok(match (self.state, octet) {
            (State::Size, b'\r') => State::SizeEnd,
            (State::Size, b';' | b' ') => State::Extension,
            (State::Size, digit) => {
                let digit = (digit as char).to_digit(16).ok_or("bad chunk size")?;
                self.left = self.left * 16 + u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, _) => State::Extension,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::End,
            (State::Trailer, _) => State::TrailerLine,
            (State::TrailerLine, b'\n') => State::Trailer,
            (State::TrailerLine, _) => State::TrailerLine,
            (State::End, b'\n') => State::Done,
            _ => return Err("bad chunk"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_any_pieces_is_decoded() {
        let coded = b"3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\na: b\r\n\r\nGET";
        for size in 1..coded.len() {
            let (mut decoder, mut content, mut used) = (Chunked::new(), Vec::new(), 0);
            for piece in coded.chunks(size) {
                used += decoder
                    .feed(piece, |octets| content.extend_from_slice(octets))
                    .unwrap_or(usize::MAX);
            }
            assert!(decoder.is_done());
            assert_eq!(content, b"abc0123456789abcdef");
            assert_eq!(used, coded.len() - 3);
        }
    }

    #[test]
    fn what_is_not_chunked_is_an_error() {
        for octets in ["x\r\n", "1\r\nab\r\n", "1\rx"] {
            assert!(Chunked::new().feed(octets.as_bytes(), |_| ()).is_err());
        }
    }
}
