//! Undoes content codings (RFC 9110 §8.4.1, RFC 7932, RFC 8878) of a copy, chunk by chunk.
//!
//! What a chunk completes is shown at once, in pieces of a scratch on the stack. A decoder has the memory
//! of its window: 32 KiB for gzip and deflate, up to 16 MiB for br and 8 MiB for zstd as the sender chose.
//! Content that grows beyond reason (a bomb) is given up.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

/// A decoder of one content.
pub(super) struct Decoder {
    state: State,
    /// Octets taken, and octets given.
    taken: u64,
    given: u64,
}

/// The content can not be decoded.
#[derive(Debug)]
pub(super) struct Broken;

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

enum State {
    Gzip(Decompress),
    /// The coding is called so whether it is zlib (RFC 1950), as it should be, or raw (RFC 1951), as
    /// some send it: the first two octets tell.
    Undecided(Option<u8>),
    Deflate(Decompress),
    Brotli(Box<Brotli>),
    Zstd(zstd::stream::raw::Decoder<'static>),
    /// A member of gzip is over; another may follow (RFC 1952 §2.2).
    GzipEnd,
    /// It is over; what follows is no part of it.
    End,
}

/// What a step did.
struct Step {
    read: usize,
    written: usize,
    is_end: bool,
}

impl Decoder {
    /// For the value of `Content-Encoding`: none if we do not know the coding, or there are several;
    /// `Some(None)` if there is nothing to undo.
    #[expect(
        clippy::option_option,
        reason = "unknown and identity are different answers"
    )]
    pub(super) fn of(codings: Option<&[u8]>) -> Option<Option<Self>> {
        let mut codings = codings
            .unwrap_or_default()
            .split(|&octet| octet == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        let Some(coding) = codings.next() else {
            return Some(None);
        };
        if codings.next().is_some() {
            return None;
        }
        let state = match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => State::Gzip(Decompress::new_gzip(WINDOW_BITS)),
            b"deflate" => State::Undecided(None),
            b"br" => State::Brotli(Box::new(BrotliState::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            b"zstd" => {
                let mut decoder = zstd::stream::raw::Decoder::new().ok()?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .ok()?;
                State::Zstd(decoder)
            }
            _ => return None,
        };
        Some(Some(Self {
            state,
            taken: 0,
            given: 0,
        }))
    }

    /// Shows what the next octets complete.
    pub(super) fn decode(
        &mut self,
        mut input: &[u8],
        show: &mut impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        self.taken += input.len() as u64;
        let mut scratch = [0; SCRATCH];
        while !input.is_empty() {
            if let State::Undecided(first) = self.state {
                let Some(both) = first_two(first, &mut input) else {
                    self.state = State::Undecided(input.first().copied());
                    return Ok(());
                };
                self.state = State::Deflate(Decompress::new(is_zlib(both)));
                self.run(&both, &mut scratch, show)?;
                continue;
            }
            input = self.run(input, &mut scratch, show)?;
        }
        Ok(())
    }

    /// Takes octets until they or the content end: what is left of them.
    fn run<'a>(
        &mut self,
        mut input: &'a [u8],
        scratch: &mut [u8],
        show: &mut impl FnMut(&[u8]),
    ) -> Result<&'a [u8], Broken> {
        loop {
            let step = self.state.step(input, scratch)?;
            input = input.get(step.read..).unwrap_or_default();
            self.given += step.written as u64;
            if self.given > SLACK + RATIO * self.taken {
                return Err(Broken);
            }
            show(scratch.get(..step.written).unwrap_or_default());
            if step.is_end {
                self.state = match self.state {
                    State::Gzip(_) => State::GzipEnd,
                    _ => State::End,
                };
                return Ok(input);
            }
            if input.is_empty() && step.written < scratch.len() {
                return Ok(input);
            }
            if step.read == 0 && step.written == 0 {
                return Err(Broken);
            }
        }
    }

    /// Gives the memory back; nothing more is decoded.
    pub(super) fn release(&mut self) {
        self.state = State::End;
    }
}

impl State {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Broken> {
        if matches!(self, Self::GzipEnd) {
            *self = if input.first() == Some(&GZIP_FIRST) {
                Self::Gzip(Decompress::new_gzip(WINDOW_BITS))
            } else {
                Self::End
            };
        }
        match self {
            Self::Gzip(inflate) | Self::Deflate(inflate) => {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(input, output, FlushDecompress::Sync)
                    .map_err(|_| Broken)?;
                Ok(Step {
                    read: (inflate.total_in() - read) as usize,
                    written: (inflate.total_out() - written) as usize,
                    is_end: status == Status::StreamEnd,
                })
            }
            Self::Brotli(brotli) => {
                let (mut left, mut read) = (input.len(), 0);
                let (mut room, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    output,
                    &mut total,
                    brotli,
                );
                match result {
                    BrotliResult::ResultFailure => Err(Broken),
                    BrotliResult::ResultSuccess
                    | BrotliResult::NeedsMoreInput
                    | BrotliResult::NeedsMoreOutput => Ok(Step {
                        read,
                        written,
                        is_end: matches!(result, BrotliResult::ResultSuccess),
                    }),
                }
            }
            Self::Zstd(zstd) => {
                // frames follow one another (RFC 8878 §3.1): the end of one is not the end
                let status = zstd.run_on_buffers(input, output).map_err(|_| Broken)?;
                Ok(Step {
                    read: status.bytes_read,
                    written: status.bytes_written,
                    is_end: false,
                })
            }
            Self::Undecided(_) | Self::GzipEnd | Self::End => Ok(Step {
                read: input.len(),
                written: 0,
                is_end: false,
            }),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("taken", &self.taken)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

/// The first two octets of a content, if they are there: then they are taken from `input`.
fn first_two(first: Option<u8>, input: &mut &[u8]) -> Option<[u8; 2]> {
    let (first, after) = match first {
        Some(first) => (first, *input),
        None => input.split_first().map(|(first, after)| (*first, after))?,
    };
    let (second, rest) = after.split_first()?;
    *input = rest;
    Some([first, *second])
}

/// Whether these begin a zlib stream: deflate, a window of at most 32 KiB, and the check (RFC 1950 §2.2).
fn is_zlib([method, flags]: [u8; 2]) -> bool {
    method & 0x0F == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}

/// Octets decoded in one step.
const SCRATCH: usize = 4096;
/// The largest window of deflate: 32 KiB.
const WINDOW_BITS: u8 = 15;
/// The largest window of zstd as a content coding: 8 MiB (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;
/// The first octet of a member of gzip (RFC 1952 §2.3.1).
const GZIP_FIRST: u8 = 0x1F;
/// Content may always grow to this size…
const SLACK: u64 = 4 * 1024 * 1024;
/// …and then by this factor. Text shrinks to a fifth, a stream that is flushed after each event less.
const RATIO: u64 = 100;
