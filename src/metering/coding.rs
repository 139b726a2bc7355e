//! Undoes content codings (RFC 9110 §8.4.1, RFC 7932, RFC 8878) of a copy, chunk by chunk.
//!
//! What a chunk completes is shown at once, in pieces of a scratch on the stack. Content that grows
//! beyond reason (a bomb) is given up.
//!
//! # What a decoder takes
//!
//! Measured: gzip and deflate by a counting allocator, br the same, zstd by `ZSTD_sizeof_DCtx` and the
//! resident set of 30 decoders at once, fed with events of 200 bytes, each flushed.
//!
//! | coding | when begun | 60 KB decoded | 5 MB and more decoded |
//! |---|---|---|---|
//! | gzip, deflate | 46.4 KiB | 46.4 KiB | 46.4 KiB |
//! | br | 3.5 KiB | 77 KiB (109 KiB while it grows) | its window + 48 to 63 KiB (1.5 windows while it grows) |
//! | zstd | 22 to 37 KiB | 79 to 86 KiB | its window + 77 to 143 KiB |
//!
//! The window is the sender's choice: 32 KiB for gzip and deflate, 1 KiB to 16 MiB for br (4 MiB by
//! default), up to 8 MiB for zstd (512 KiB at its level 1, 2 MiB at 3, 4 MiB at 9). All decoders of the
//! process share one [`Budget`]. gzip and deflate are charged as they begin. A decoder of br has what it
//! asks for from [`ChargedAllocator`], so it is charged exactly. zstd asks for its window and [`ZSTD_OWN`] at once,
//! but memory that nothing was written to is none: it is charged for what it has written, and for the block
//! of which a part has come, which it keeps until it can be decoded: as if all that has come were in it.

use brotli_decompressor::{
    Allocator, BrotliDecoderErrorCode, BrotliDecompressStream, BrotliResult, BrotliState,
    SliceWrapper, SliceWrapperMut,
};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

use crate::{
    exchange::MeteringFailure,
    memory::{Budget, BudgetShare},
};

/// Memory of all decoders together: 256 MiB. That is about 5,400 streams in gzip (48 KiB each,
/// whatever their length), 1,400 in zstd or 2,300 in br that have come to 60 KB of events, and 250
/// in zstd or 60 in br of megabytes that fill windows of 512 KiB and 4 MiB.
pub(super) static DECODERS: Budget = Budget::new(256 << 20);

/// Decoder of one content coding.
pub(super) struct ContentDecoder {
    state: DecoderState,
    share: BudgetShare,
    /// Bytes taken as input, and bytes given as output.
    taken: u64,
    given: u64,
}

type Brotli = BrotliState<ChargedAllocator, ChargedAllocator, ChargedAllocator>;

enum DecoderState {
    Gzip(Decompress),
    /// `deflate` before its first two bytes, which tell zlib (RFC 1950), the standard, from raw
    /// deflate (RFC 1951), which some servers send.
    Undecided(Option<u8>),
    Deflate(Decompress),
    Brotli(Box<Brotli>),
    Zstd(zstd::stream::raw::Decoder<'static>, ZstdFrame),
    /// A member of gzip is over; another may follow (RFC 1952 §2.2).
    GzipEnd,
    /// The content has ended; bytes after it do not belong to it.
    End,
}

/// Progress of one decoding step.
struct DecoderStep {
    read: usize,
    written: usize,
    is_end: bool,
}

impl ContentDecoder {
    /// Makes the decoders for a value of `Content-Encoding`, in order of use; none if the content
    /// is not coded.
    ///
    /// # Errors
    /// A coding is unknown, there are more than two, or the memory budget is exhausted.
    pub(super) fn of(
        codings: Option<&[u8]>,
        budget: &'static Budget,
    ) -> Result<Vec<Self>, MeteringFailure> {
        // they are listed in the order in which they were applied (RFC 9110 §8.4)
        let codings = codings
            .unwrap_or_default()
            .rsplit(|&octet| octet == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        let mut decoders = Vec::new();
        for coding in codings {
            if decoders.len() == MOST_CODINGS {
                return Err(MeteringFailure::Coding);
            }
            decoders.push(Self::of_one(coding, budget)?);
        }
        Ok(decoders)
    }

    fn of_one(coding: &[u8], budget: &'static Budget) -> Result<Self, MeteringFailure> {
        let coding = coding.to_ascii_lowercase();
        let mut share = BudgetShare::of(budget);
        let octets = match coding.as_slice() {
            b"gzip" | b"x-gzip" | b"deflate" => INFLATE,
            // more as they grow
            b"br" => BROTLI,
            b"zstd" => ZSTD_CONTEXT,
            _ => return Err(MeteringFailure::Coding),
        };
        if !share.grow_to(octets) {
            return Err(MeteringFailure::Memory);
        }
        let state = match coding.as_slice() {
            b"br" => {
                let bounded = ChargedAllocator {
                    budget,
                    bound: Bound::Strict,
                };
                let forced = ChargedAllocator {
                    budget,
                    bound: Bound::Loose,
                };
                DecoderState::Brotli(Box::new(BrotliState::new_strict(bounded, forced, forced)))
            }
            b"zstd" => {
                let mut decoder =
                    zstd::stream::raw::Decoder::new().map_err(|_| MeteringFailure::Memory)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(|_| MeteringFailure::Coding)?;
                DecoderState::Zstd(decoder, ZstdFrame::default())
            }
            b"deflate" => DecoderState::Undecided(None),
            _ => DecoderState::Gzip(Decompress::new_gzip(WINDOW_BITS)),
        };
        Ok(Self {
            state,
            share,
            taken: 0,
            given: 0,
        })
    }

    /// Decodes the next bytes and shows the output.
    pub(super) fn decode(
        &mut self,
        mut input: &[u8],
        show: &mut impl FnMut(&[u8]),
    ) -> Result<(), MeteringFailure> {
        self.taken += input.len() as u64;
        let mut scratch = [0; SCRATCH];
        while !input.is_empty() {
            if let DecoderState::Undecided(first) = self.state {
                let Some(both) = first_two(first, &mut input) else {
                    self.state = DecoderState::Undecided(input.first().copied());
                    return Ok(());
                };
                self.state = DecoderState::Deflate(Decompress::new(is_zlib(both)));
                self.run(&both, &mut scratch, show)?;
                continue;
            }
            input = self.run(input, &mut scratch, show)?;
        }
        Ok(())
    }

    /// Takes bytes until they or the content end: what is left of them.
    fn run<'a>(
        &mut self,
        mut input: &'a [u8],
        scratch: &mut [u8],
        show: &mut impl FnMut(&[u8]),
    ) -> Result<&'a [u8], MeteringFailure> {
        loop {
            let step = self.state.step(input, scratch)?;
            input = input.get(step.read..).unwrap_or_default();
            self.given += step.written as u64;
            if self.given > SLACK + RATIO * self.taken {
                return Err(MeteringFailure::Broken);
            }
            if let DecoderState::Zstd(_, frame) = &self.state
                && !self.share.grow_to(frame.charge(self.taken, self.given))
            {
                return Err(MeteringFailure::Memory);
            }
            show(scratch.get(..step.written).unwrap_or_default());
            if step.is_end {
                self.state = match self.state {
                    DecoderState::Gzip(_) => DecoderState::GzipEnd,
                    _ => DecoderState::End,
                };
                return Ok(input);
            }
            if input.is_empty() && step.written < scratch.len() {
                return Ok(input);
            }
            if step.read == 0 && step.written == 0 {
                return Err(MeteringFailure::Broken);
            }
        }
    }
}

impl ContentDecoder {
    /// Reports whether the content has ended, as the coding says, or has not begun.
    pub(super) fn is_complete(&self) -> bool {
        match &self.state {
            DecoderState::Gzip(_)
            | DecoderState::Deflate(_)
            | DecoderState::Brotli(_)
            | DecoderState::Undecided(_) => self.taken == 0,
            DecoderState::Zstd(_, frame) => frame.len == 0,
            DecoderState::GzipEnd | DecoderState::End => true,
        }
    }
}

impl DecoderState {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecoderStep, MeteringFailure> {
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
                    .map_err(|_| MeteringFailure::Broken)?;
                Ok(DecoderStep {
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
                    BrotliResult::ResultFailure => Err(brotli_failure(brotli.error_code)),
                    BrotliResult::ResultSuccess
                    | BrotliResult::NeedsMoreInput
                    | BrotliResult::NeedsMoreOutput => Ok(DecoderStep {
                        read,
                        written,
                        is_end: matches!(result, BrotliResult::ResultSuccess),
                    }),
                }
            }
            Self::Zstd(zstd, frame) => {
                // frames follow one another (RFC 8878 §3.1): the end of one is not the end
                let status = zstd
                    .run_on_buffers(input, output)
                    .map_err(|_| MeteringFailure::Broken)?;
                frame.passes(input.get(..status.bytes_read).unwrap_or_default());
                if status.remaining == 0 {
                    frame.end();
                }
                Ok(DecoderStep {
                    read: status.bytes_read,
                    written: status.bytes_written,
                    is_end: false,
                })
            }
            Self::Undecided(_) | Self::GzipEnd | Self::End => Ok(DecoderStep {
                read: input.len(),
                written: 0,
                is_end: false,
            }),
        }
    }
}

impl std::fmt::Debug for ContentDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentDecoder")
            .field("taken", &self.taken)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

/// Position of zstd content in its frames (RFC 8878 §3.1.1), and the window that they declare.
#[derive(Debug, Default)]
struct ZstdFrame {
    /// The first bytes of the frame, as far as they came.
    head: [u8; FRAME_HEAD],
    len: usize,
    /// The largest window that a frame named; the decoder keeps what it once had.
    window: usize,
}

impl ZstdFrame {
    /// The decoder has taken these bytes.
    fn passes(&mut self, octets: &[u8]) {
        for octet in octets.iter().take(FRAME_HEAD - self.len) {
            if let Some(slot) = self.head.get_mut(self.len) {
                *slot = *octet;
                self.len += 1;
            }
        }
        if self.len == FRAME_HEAD {
            self.window = self.window.max(window(self.head));
        }
    }

    /// The decoder has come to the end of the frame.
    fn end(&mut self) {
        self.len = 0;
    }

    /// Memory to charge for these numbers of bytes taken and given: in steps, so that the counter
    /// is not touched with every event.
    fn charge(&self, taken: u64, given: u64) -> usize {
        let octets = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let input = octets(taken).min(ZSTD_INPUT);
        let output = octets(given).min(self.window + ZSTD_OWN - ZSTD_CONTEXT - ZSTD_INPUT);
        ZSTD_CONTEXT + (input + output).next_multiple_of(ZSTD_STEP)
    }
}

/// The window that the head of a frame names, or the largest where that is left to the length of its
/// content, which bounds it anyway.
fn window(head: [u8; FRAME_HEAD]) -> usize {
    const LARGEST: usize = 1 << ZSTD_WINDOW_LOG;
    let [magic @ .., descriptor, window] = head;
    let is_single_segment = descriptor & 0x20 != 0;
    if u32::from_le_bytes(magic) != ZSTD_MAGIC || is_single_segment {
        return LARGEST;
    }
    // RFC 8878 §3.1.1.1.2
    let base = 1_usize << (10 + u32::from(window >> 3));
    let sum = base + base / 8 * usize::from(window & 7);
    sum.min(LARGEST)
}

/// Allocator of a br decoder: each allocation is charged until it is freed.
#[derive(Clone, Copy)]
struct ChargedAllocator {
    budget: &'static Budget,
    bound: Bound,
}

/// Policy at the end of the budget.
#[derive(Clone, Copy)]
enum Bound {
    /// Refused at the end of the budget: for the window and the context maps.
    Strict,
    /// Charged, but never refused: for the code tables, about 30 KiB, 3 MiB at most. The decoder's
    /// handling of a refusal is tested for the former alone.
    Loose,
}

/// Memory of a br decoder.
struct ChargedMemory<T> {
    cells: Box<[T]>,
    _share: Option<BudgetShare>,
}

impl<T: Clone + Default> Allocator<T> for ChargedAllocator {
    type AllocatedMemory = ChargedMemory<T>;

    /// Allocates `len` cells, or none if the budget is exhausted.
    fn alloc_cell(&mut self, len: usize) -> ChargedMemory<T> {
        let mut share = BudgetShare::of(self.budget);
        let octets = len.saturating_mul(size_of::<T>());
        match self.bound {
            Bound::Strict if !share.grow_to(octets) => return ChargedMemory::default(),
            Bound::Strict => {}
            Bound::Loose => share.force_to(octets),
        }
        ChargedMemory {
            cells: vec![T::default(); len].into_boxed_slice(),
            _share: Some(share),
        }
    }

    fn free_cell(&mut self, _: ChargedMemory<T>) {}
}

impl<T> Default for ChargedMemory<T> {
    fn default() -> Self {
        Self {
            cells: Box::default(),
            _share: None,
        }
    }
}

impl<T> SliceWrapper<T> for ChargedMemory<T> {
    fn slice(&self) -> &[T] {
        &self.cells
    }
}

impl<T> SliceWrapperMut<T> for ChargedMemory<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.cells
    }
}

fn brotli_failure(code: BrotliDecoderErrorCode) -> MeteringFailure {
    match code {
        BrotliDecoderErrorCode::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES
        | BrotliDecoderErrorCode::BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MAP
        | BrotliDecoderErrorCode::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_1
        | BrotliDecoderErrorCode::BROTLI_DECODER_ERROR_ALLOC_RING_BUFFER_2 => {
            MeteringFailure::Memory
        }
        _ => MeteringFailure::Broken,
    }
}

/// The first two bytes of a content, if they are there: then they are taken from `input`.
fn first_two(first: Option<u8>, input: &mut &[u8]) -> Option<[u8; 2]> {
    let (first, after) = match first {
        Some(first) => (first, *input),
        None => input.split_first().map(|(first, after)| (*first, after))?,
    };
    let (second, rest) = after.split_first()?;
    *input = rest;
    Some([first, *second])
}

/// Reports whether these bytes begin a zlib stream: deflate, a window of at most 32 KiB, and the
/// check (RFC 1950 §2.2).
fn is_zlib([method, flags]: [u8; 2]) -> bool {
    method & 0x0F == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}

/// Most codings of one content that are decoded; no upstream is known to apply more than one.
const MOST_CODINGS: usize = 2;
/// Bytes decoded in one step.
const SCRATCH: usize = 4096;
/// The largest window of deflate: 32 KiB.
const WINDOW_BITS: u8 = 15;
/// The largest window of zstd as a content coding: 8 MiB (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;
/// Memory of a gzip or deflate decoder: 47,552 bytes, rounded up.
const INFLATE: usize = 48 * 1024;
/// Memory of a br decoder besides that of [`ChargedAllocator`]: 3,584 bytes, rounded up.
const BROTLI: usize = 4 * 1024;
/// The first bytes of a frame of zstd: magic number, descriptor, window.
const FRAME_HEAD: usize = 6;
/// Magic number of a zstd frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// Memory that a zstd decoder allocates besides its window: 489,256 bytes, rounded up.
const ZSTD_OWN: usize = 480 * 1024;
/// Part of it that is used from the beginning: 95,976 bytes.
const ZSTD_CONTEXT: usize = 96 * 1024;
/// Part of it for the largest block, which is kept until all of it has come (RFC 8878 §3.1.1.2.4):
/// 128 KiB.
const ZSTD_INPUT: usize = 128 * 1024;
const ZSTD_STEP: usize = 16 * 1024;
/// The first byte of a member of gzip (RFC 1952 §2.3.1).
const GZIP_FIRST: u8 = 0x1F;
/// Size to which content may always grow.
const SLACK: u64 = 4 * 1024 * 1024;
/// Largest growth factor beyond that size. Text shrinks to a fifth, a stream that is flushed after
/// each event less.
const RATIO: u64 = 100;
