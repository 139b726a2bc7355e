//! Numbers and random texts in base62: digits, then upper-case, then lower-case letters.

use ring::{error::Unspecified, rand::SecureRandom};

/// The number of digits.
const RADIX: u64 = 62;

/// The digits in the order of ASCII, so that texts of one length sort as their numbers do.
const DIGITS: &[u8; RADIX as usize] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of a text of at most ten digits.
pub(super) fn decode(text: &[u8]) -> Option<u64> {
    // more may not fit into 64 bits
    if text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, octet| {
        let digit = u64::from(VALUES[usize::from(*octet)]);
        (digit < RADIX).then_some(number * RADIX + digit)
    })
}

/// Values of the digits; 255 for what is none.
static VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Writes a number, its last digits if it has more than there is room for.
pub(super) fn encode(mut number: u64, into: &mut [u8]) {
    for place in into.iter_mut().rev() {
        *place = DIGITS[(number % RADIX) as usize];
        number /= RADIX;
    }
}

/// Fills a text with random digits, each with the same probability.
pub(super) fn randomize(into: &mut [u8], random: &dyn SecureRandom) -> Result<(), Unspecified> {
    let mut octets = [0; 64];
    let mut places = into.iter_mut();
    loop {
        random.fill(&mut octets)?;
        for octet in octets.iter().filter(|octet| **octet < UNBIASED) {
            let Some(place) = places.next() else {
                return Ok(());
            };
            *place = DIGITS[usize::from(*octet) % RADIX as usize];
        }
    }
}

/// Octets below it stand for each digit equally often.
const UNBIASED: u8 = (256 / RADIX * RADIX) as u8;

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 61, 62, 3843, u64::from(u32::MAX), 62_u64.pow(10) - 1] {
            let mut text = [0; 10];
            encode(number, &mut text);
            assert_eq!(decode(&text), Some(number));
        }
        assert_eq!(decode(b"00000-0000"), None);
        assert_eq!(decode(b"zzzzzzzzzzzz"), None, "more than 64 bits");
        for octet in u8::MIN..=u8::MAX {
            let digit = DIGITS.iter().position(|digit| *digit == octet);
            assert_eq!(decode(&[octet]), digit.map(|digit| digit as u64));
        }
    }

    #[test]
    fn random_digits_are_equally_frequent() {
        let mut text = vec![0; 62 * 1000];
        randomize(&mut text, &SystemRandom::new()).unwrap();
        let mut counts = [0_u32; 256];
        text.iter()
            .for_each(|octet| counts[usize::from(*octet)] += 1);
        for digit in DIGITS {
            // 1000 ± 32 (σ); ten σ away in one of 10^21 runs
            let count = counts[usize::from(*digit)];
            assert!((680..1320).contains(&count), "{} {count}", *digit as char);
        }
    }
}
