//! Scanner of HTTP/2 frames as they pass (RFC 9113 §4.1): kinds, flags and streams, and the payload
//! on request.
//!
//! The h2 crate reads the frames; this scanner reads the same octets for facts that h2 does not
//! report: frames of each kind, an unfinished frame, the stream that a GOAWAY names. It keeps at
//! most 13 octets and makes no decisions.

/// `DATA`.
pub const DATA: u8 = 0;
/// `HEADERS`.
pub const HEADERS: u8 = 1;
/// `PRIORITY`.
pub const PRIORITY: u8 = 2;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 3;
/// `SETTINGS`.
pub const SETTINGS: u8 = 4;
/// `PUSH_PROMISE`.
pub const PUSH_PROMISE: u8 = 5;
/// `PING`.
pub const PING: u8 = 6;
/// `GOAWAY`.
pub const GOAWAY: u8 = 7;
/// `WINDOW_UPDATE`.
pub const WINDOW_UPDATE: u8 = 8;
/// `CONTINUATION`.
pub const CONTINUATION: u8 = 9;

/// The flag `ACK` of `SETTINGS` and `PING`.
pub const ACK: u8 = 1;
/// The flag `END_STREAM` of `DATA` and `HEADERS`.
pub const END_STREAM: u8 = 1;
/// The flag `END_HEADERS` of `HEADERS` and `CONTINUATION`.
pub const END_HEADERS: u8 = 4;
/// The flag `PADDED` of `DATA` and `HEADERS`.
pub const PADDED: u8 = 8;
/// The flag `PRIORITY` of `HEADERS`.
pub const PRIORITY_FLAG: u8 = 0x20;

/// The bits of a stream's identifier: the first one is reserved.
pub const STREAM_BITS: u32 = u32::MAX >> 1;

/// Header of a frame (RFC 9113 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// Octets of its payload.
    pub length: u32,
    /// The first four octets of the payload as a number, without the reserved bit; fewer, if it is
    /// shorter. For `GOAWAY` the last stream that may have been processed.
    pub first: u32,
}

/// A part of a frame.
#[derive(Debug)]
pub enum FramePart<'a> {
    /// The header and the first octets of the payload.
    Head(Frame),
    /// Octets of its payload, from the first one on, as they come.
    Payload(&'a [u8]),
}

/// Scanner of the frames of one direction of a connection, after its preface.
#[derive(Debug, Default)]
pub struct Frames {
    /// The frame's header and the first octets of its payload.
    head: [u8; HEAD],
    filled: usize,
    /// Octets of payload that are still to come.
    rest: u32,
}

impl Frames {
    /// Scans octets that arrived; calls `seen` for each frame whose beginning is complete.
    pub fn scan(&mut self, octets: &[u8], mut seen: impl FnMut(Frame)) {
        self.scan_parts(octets, |part| {
            if let FramePart::Head(frame) = part {
                seen(frame);
            }
        });
    }

    /// Scans octets that arrived; calls `seen` for each part of a frame.
    pub fn scan_parts(&mut self, mut octets: &[u8], mut seen: impl FnMut(FramePart<'_>)) {
        loop {
            let passed = octets.len().min(self.rest as usize);
            if passed > 0 {
                seen(FramePart::Payload(&octets[..passed]));
            }
            octets = &octets[passed..];
            self.rest -= passed as u32;
            if octets.is_empty() {
                return;
            }
            let wanted = self.wanted();
            let taken = octets.len().min(wanted - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&octets[..taken]);
            self.filled += taken;
            octets = &octets[taken..];
            // the header may just have become complete, and then says how much more is wanted
            if self.filled < HEADER || self.filled < self.wanted() {
                continue;
            }
            let frame = self.frame();
            let filled = std::mem::take(&mut self.filled);
            self.rest = frame.length - (filled - HEADER) as u32;
            seen(FramePart::Head(frame));
            if filled > HEADER {
                seen(FramePart::Payload(&self.head[HEADER..filled]));
            }
        }
    }

    /// Reports whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.filled > 0 || self.rest > 0
    }

    /// Reports whether the payload of a frame that was reported has not ended.
    pub fn is_inside_payload(&self) -> bool {
        self.rest > 0
    }

    fn wanted(&self) -> usize {
        if self.filled < HEADER {
            return HEADER;
        }
        HEADER + (self.length() as usize).min(HEAD - HEADER)
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn frame(&self) -> Frame {
        let number = |at: usize, end: usize| {
            let octets = &self.head[at..end];
            octets
                .iter()
                .fold(0, |number, octet| number << 8 | u32::from(*octet))
        };
        Frame {
            kind: self.head[3],
            flags: self.head[4],
            stream: number(5, 9) & STREAM_BITS,
            length: self.length(),
            first: number(HEADER, self.filled) & STREAM_BITS,
        }
    }
}

const HEADER: usize = 9;
const HEAD: usize = HEADER + 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        octets.extend([kind, flags]);
        octets.extend(stream.to_be_bytes());
        octets.extend(payload);
        octets
    }

    #[test]
    fn a_goaway_names_its_last_stream() {
        let mut seen = Vec::new();
        let mut frames = Frames::default();
        let octets = frame(GOAWAY, 0, 0, &[0x80, 0, 0, 7, 0, 0, 0, 0, b'x']);
        frames.scan(&octets, |frame| seen.push((frame.kind, frame.first)));
        assert_eq!(seen, [(GOAWAY, 7)]);
        assert!(!frames.is_inside());
    }

    #[test]
    fn half_a_frame_is_inside() {
        let octets = frame(HEADERS, 0, 1, &[0; 20]);
        for cut in 1..octets.len() {
            let mut frames = Frames::default();
            frames.scan(&octets[..cut], |_| {});
            assert!(frames.is_inside(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_split_changes_what_is_seen(
            sent in prop::collection::vec(
                (0_u8..12, any::<u8>(), 0_u32..99, prop::collection::vec(any::<u8>(), 0..20)),
                0..8,
            ),
            splits in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut octets = Vec::new();
            for (kind, flags, stream, payload) in &sent {
                octets.extend(frame(*kind, *flags, *stream, payload));
            }
            let mut cuts: Vec<usize> = splits.iter().map(|cut| cut % (octets.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(octets.len());
            let (mut frames, mut seen, mut at) = (Frames::default(), Vec::new(), 0);
            let mut payloads: Vec<Vec<u8>> = Vec::new();
            for cut in cuts {
                frames.scan_parts(&octets[at..cut], |part| match part {
                    FramePart::Head(frame) => {
                        seen.push(frame);
                        payloads.push(Vec::new());
                    }
                    FramePart::Payload(octets) => payloads.last_mut().unwrap().extend(octets),
                });
                at = cut;
            }
            let sent_payloads: Vec<Vec<u8>> =
                sent.iter().map(|(.., payload)| payload.clone()).collect();
            prop_assert_eq!(payloads, sent_payloads);
            prop_assert!(!frames.is_inside());
            let expected: Vec<Frame> = sent
                .iter()
                .map(|(kind, flags, stream, payload)| Frame {
                    kind: *kind,
                    flags: *flags,
                    stream: *stream,
                    length: payload.len() as u32,
                    first: payload
                        .iter()
                        .take(4)
                        .fold(0, |number, octet| number << 8 | u32::from(*octet))
                        & STREAM_BITS,
                })
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
