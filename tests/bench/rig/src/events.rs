//! Reads a stream of events and tells how long each was on its way.

use memchr::memmem;

/// The mark before the time at which the mock wrote an event, in [`DIGITS`] digits.
pub const MARK: &[u8] = b"@@T";
/// Digits of that time.
pub const DIGITS: usize = 16;

/// A stream that is being read.
#[derive(Default)]
pub struct Events {
    /// The beginning of a line that is not complete.
    carry: Vec<u8>,
    /// Events with a time.
    pub timed: u64,
    /// Whether the last event was seen.
    pub is_complete: bool,
    /// When the first event was read.
    pub first: Option<u64>,
}

impl Events {
    /// Reads octets that arrived at `time`; `lag` is given each event's nanoseconds on the way.
    pub fn feed(&mut self, octets: &[u8], time: u64, mut lag: impl FnMut(u64)) {
        if self.carry.is_empty() {
            let used = self.lines(octets, time, &mut lag);
            self.carry.extend_from_slice(&octets[used..]);
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(octets);
            let used = self.lines(&carry, time, &mut lag);
            carry.drain(..used);
            self.carry = carry;
        }
    }

    fn lines(&mut self, octets: &[u8], time: u64, lag: &mut impl FnMut(u64)) -> usize {
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', octets) {
            let line = &octets[at..end];
            at = end + 1;
            if !line.starts_with(b"data:") {
                continue;
            }
            self.first.get_or_insert(time);
            if let Some(written) = written(line) {
                self.timed += 1;
                lag(time.saturating_sub(written));
            } else if memmem::find(line, b"message_stop").is_some() {
                self.is_complete = true;
            }
        }
        at
    }
}

/// The time that stands in a line.
fn written(line: &[u8]) -> Option<u64> {
    let at = memmem::find(line, MARK)? + MARK.len();
    let digits = line.get(at..at + DIGITS)?;
    Some(digits.iter().fold(0, |time, digit| {
        time * 10 + u64::from(digit.wrapping_sub(b'0'))
    }))
}

/// Writes a time over the digits of an event.
pub fn write_time(event: &mut [u8], at: usize, mut time: u64) {
    for digit in event[at..at + DIGITS].iter_mut().rev() {
        *digit = b'0' + (time % 10) as u8;
        time /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_any_pieces_are_counted_and_timed() {
        let mut text =
            b"event: a\ndata: {\"x\":\"@@T0000000000000000\"}\n\ndata: message_stop\n".to_vec();
        let at = memmem::find(&text, MARK).unwrap_or_default() + MARK.len();
        write_time(&mut text, at, 1_234_567);
        for size in 1..text.len() {
            let (mut events, mut lags) = (Events::default(), Vec::new());
            for piece in text.chunks(size) {
                events.feed(piece, 2_234_567, |lag| lags.push(lag));
            }
            assert_eq!((events.timed, events.is_complete), (1, true));
            assert_eq!(lags, [1_000_000]);
        }
    }
}
