//! Passes over the inside of a JSON string (RFC 8259 §7), 64 bytes at a time.
//!
//! Nearly all bytes of a request are inside strings, so this loop is what the edit costs. Each
//! block becomes bit masks, and escapes are resolved on the masks: the usual ones (`\n \" \\ \t`)
//! need no branch of their own. Control characters and malformed escapes are refused; whether the
//! bytes are UTF-8, and whether surrogates are paired, is not looked at: that is the upstream's
//! to judge.

use fearless_simd::{Simd, SimdBase, SimdFrom, SimdMask, u8x32, u8x64};

/// Position within a string at the end of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// An unescaped byte, an escape or the closing quote.
    Plain,
    /// The byte after a backslash.
    Escape,
    /// In `\uXXXX`: number of hexadecimal digits yet to come.
    Hex(u8),
}

/// Result of passing over a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StringEnd {
    /// The closing quote was passed.
    Closed {
        /// The index after it.
        next: usize,
        /// `false`: the string has no escape. (`true`: it may have.)
        escapes: bool,
    },
    /// The chunk ended first.
    Open(Within),
    /// The bytes are no JSON string.
    Invalid,
}

/// Passes over `chunk[at..]`, which is inside a string, up to and with its closing quote.
///
/// Most strings are names and words: a look at 32 bytes, the shortest way to a quote, comes first.
#[inline(always)]
pub(super) fn skip<S: Simd>(simd: S, chunk: &[u8], at: usize) -> StringEnd {
    let rest = chunk.get(at..).unwrap_or_default();
    // near the end of the chunk, the look begins before the string
    let look = match rest.first_chunk::<LOOK>() {
        Some(look) => Some((look, 0)),
        None if rest.is_empty() => None,
        None => chunk.last_chunk().map(|look| (look, LOOK - rest.len())),
    };
    if let Some((look, before)) = look {
        let octets = u8x32::simd_from(simd, *look);
        let stops = (octets ^ FLIP).simd_le(FLIPPED_QUOTE) | octets.simd_eq(b'\\');
        let stops = stops.to_bitmask() >> before;
        if stops != 0 {
            let stop = at + stops.trailing_zeros() as usize;
            if chunk.get(stop) == Some(&b'"') {
                return StringEnd::Closed {
                    next: stop + 1,
                    escapes: false,
                };
            }
        }
    }
    skip_long(simd, chunk, at)
}

#[inline(always)]
fn skip_long<S: Simd>(simd: S, chunk: &[u8], mut at: usize) -> StringEnd {
    let mut run = Run::default();
    let (mut blocks, _) = chunk.get(at..).unwrap_or_default().as_chunks::<BLOCK>();
    loop {
        // a loop of its own, so that what it compares with stays in registers
        if run.carry == 0 {
            while let [block, rest @ ..] = blocks
                && !has_stop(simd, block)
            {
                blocks = rest;
                at += BLOCK;
            }
        }
        let [block, rest @ ..] = blocks else {
            break;
        };
        if let Some(end) = run.step(simd, chunk, at, block, BLOCK) {
            return end;
        }
        blocks = rest;
        at += BLOCK;
    }
    run.last(simd, chunk, at)
}

/// Reports whether a block has a byte that may end the string or begin an escape: few blocks of a text do.
#[inline(always)]
fn has_stop<S: Simd>(simd: S, block: &[u8; BLOCK]) -> bool {
    let octets = u8x64::simd_from(simd, *block);
    let stops = (octets ^ FLIP).simd_le(FLIPPED_QUOTE) | octets.simd_eq(b'\\');
    stops.any_true()
}

/// The same for a string of which a part was in the chunk before.
#[inline(never)]
pub(super) fn resume<S: Simd>(simd: S, chunk: &[u8], mut within: Within) -> StringEnd {
    let mut at = 0;
    while within != Within::Plain {
        let Some(&octet) = chunk.get(at) else {
            return StringEnd::Open(within);
        };
        within = match (within, octet) {
            (Within::Escape, b'u') => Within::Hex(4),
            (Within::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Within::Plain
            }
            (Within::Hex(1), digit) if digit.is_ascii_hexdigit() => Within::Plain,
            (Within::Hex(left), digit) if digit.is_ascii_hexdigit() => Within::Hex(left - 1),
            _ => return StringEnd::Invalid,
        };
        at += 1;
    }
    simd.vectorize(
        #[inline(always)]
        || skip_long(simd, chunk, at),
    )
}

/// State carried from one block to the next.
#[derive(Default)]
struct Run {
    /// 1 if the first byte of the next block is escaped.
    carry: u64,
    /// All backslashes seen, those behind the closing quote too.
    backslashes: u64,
}

impl Run {
    /// One block, of which the last `len` bytes are of the string, from `chunk[at]`; `Some` if the pass ends in
    /// it.
    #[inline(always)]
    fn step<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        at: usize,
        block: &[u8; BLOCK],
        len: usize,
    ) -> Option<StringEnd> {
        let octets = u8x64::simd_from(simd, *block);
        let before = BLOCK - len;
        let mut stops = (octets ^ FLIP).simd_le(FLIPPED_QUOTE).to_bitmask() >> before;
        let backslashes = octets.simd_eq(b'\\').to_bitmask() >> before;
        self.backslashes |= backslashes;

        if backslashes | self.carry != 0 {
            let (escaped, carry) = escaped(backslashes, self.carry, len);
            self.carry = carry;
            stops &= !escaped;
            let inside = stops.wrapping_sub(1) & !stops;
            let usual = octets.simd_eq(b'n') | octets.simd_eq(b'"') | octets.simd_eq(b't');
            let usual = usual.to_bitmask() >> before;
            let unusual = escaped & inside & !(usual | backslashes);
            if unusual != 0
                && let Some(end) = unusual_escapes(chunk, at, unusual)
            {
                return Some(end);
            }
        }
        if stops == 0 {
            return None;
        }
        let stop = at + stops.trailing_zeros() as usize;
        Some(match chunk.get(stop) {
            Some(b'"') => StringEnd::Closed {
                next: stop + 1,
                escapes: self.backslashes != 0,
            },
            _ => StringEnd::Invalid,
        })
    }

    /// The rest of the chunk, shorter than a block.
    #[inline(never)]
    fn last<S: Simd>(mut self, simd: S, chunk: &[u8], at: usize) -> StringEnd {
        let rest = chunk.get(at..).unwrap_or_default();
        let mut padded = [b' '; BLOCK];
        let block = chunk.last_chunk().unwrap_or_else(|| {
            let (_, last) = padded.split_at_mut(BLOCK - rest.len());
            last.copy_from_slice(rest);
            &padded
        });
        if !rest.is_empty()
            && let Some(end) = simd.vectorize(
                #[inline(always)]
                || self.step(simd, chunk, at, block, rest.len()),
            )
        {
            return end;
        }
        StringEnd::Open(if self.carry == 0 {
            Within::Plain
        } else {
            Within::Escape
        })
    }
}

/// The bytes that follow an active backslash, and whether the byte after the `len`th does.
///
/// A run of backslashes that begins at an odd bit is told from one that begins at an even bit by
/// a subtraction that ripples through the run (the method of simdjson).
#[inline(always)]
fn escaped(backslashes: u64, carried: u64, len: usize) -> (u64, u64) {
    let starts = backslashes & !carried;
    let ripple = ((starts << 1) | ODD).wrapping_sub(starts) ^ ODD;
    let escaped = ripple ^ (backslashes | carried);
    let escaping = ripple & backslashes;
    (escaped, (escaping >> (len - 1)) & 1)
}

/// Looks at escapes other than the usual ones; `Some` if the pass ends here.
#[inline(never)]
fn unusual_escapes(chunk: &[u8], at: usize, mut unusual: u64) -> Option<StringEnd> {
    while unusual != 0 {
        let escape = at + unusual.trailing_zeros() as usize;
        match chunk.get(escape) {
            Some(b'/' | b'b' | b'f' | b'r') => {}
            Some(b'u') => {
                let there = chunk.get(escape + 1..).unwrap_or_default();
                if let Some(digits) = there.first_chunk::<4>() {
                    if !digits
                        .iter()
                        .fold(true, |all, digit| all & digit.is_ascii_hexdigit())
                    {
                        return Some(StringEnd::Invalid);
                    }
                } else if there.iter().all(u8::is_ascii_hexdigit) {
                    return Some(StringEnd::Open(Within::Hex(4 - there.len() as u8)));
                } else {
                    return Some(StringEnd::Invalid);
                }
            }
            Some(_) => return Some(StringEnd::Invalid),
            // the padding of a last block: the escaped byte is in the next chunk
            None => return None,
        }
        unusual &= unusual - 1;
    }
    None
}

/// Flipping this bit exchanges `"` (0x22) for 0x20 and keeps 0x00..=0x1F among themselves, so that
/// one comparison finds both what closes a string and what may not stand in one.
const FLIP: u8 = 0x02;
const FLIPPED_QUOTE: u8 = b'"' ^ FLIP;
/// Bytes in the first look.
const LOOK: usize = 32;
/// Bytes in a block: one bit of a `u64` each.
const BLOCK: usize = 64;
/// The odd bits.
const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
