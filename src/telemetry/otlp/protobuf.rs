//! The wire format of protocol buffers, as far as spans and metrics need it: varints, fixed 64-bit and 32-bit
//! numbers, and what has a length. <https://protobuf.dev/programming-guides/encoding/>

/// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from((field << 3) | wire_type));
}

/// A number. Of 0, which is the default, nothing is written.
pub(in crate::telemetry) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        varint(out, value);
    }
}

pub(in crate::telemetry) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(in crate::telemetry) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Octets or a text.
pub(in crate::telemetry) fn octets(out: &mut Vec<u8>, field: u32, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    tag(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A text of several parts.
pub(in crate::telemetry) fn text(out: &mut Vec<u8>, field: u32, parts: &[&str]) {
    tag(out, field, LENGTH);
    varint(out, parts.iter().map(|part| part.len() as u64).sum());
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A message, which `write` writes. Its length stands before it, and is known after it: there is room for one of two
/// octets, as those of spans have.
pub(in crate::telemetry) fn message(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>),
) {
    tag(out, field, LENGTH);
    let start = out.len();
    out.extend_from_slice(&ROOM);
    write(out);
    let length = (out.len() - start - ROOM.len()) as u64;
    if let (0x80..0x4000, [low, high, ..]) = (length, &mut out[start..]) {
        *low = (length as u8) | 0x80;
        *high = (length >> 7) as u8;
        return;
    }
    let mut octets = Vec::new();
    varint(&mut octets, length);
    drop(out.splice(start..start + ROOM.len(), octets));
}

const ROOM: [u8; 2] = [0; 2];

/// A packed list of fixed 64-bit numbers.
pub(in crate::telemetry) fn packed64(
    out: &mut Vec<u8>,
    field: u32,
    values: impl ExactSizeIterator<Item = u64>,
) {
    tag(out, field, LENGTH);
    varint(out, 8 * values.len() as u64);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Value of an attribute (`AnyValue`).
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) enum AttributeValue<'a> {
    Text(&'a str),
    Number(u64),
    Fraction(f64),
    Flag(bool),
    /// A list of one text.
    Texts(&'a str),
}

impl AttributeValue<'_> {
    /// Octets of the value as a message.
    fn length(self) -> u64 {
        match self {
            Self::Text(text) => with_length(text.len() as u64),
            Self::Number(number) => 1 + varint_length(number),
            Self::Fraction(_) => 9,
            Self::Flag(_) => 2,
            Self::Texts(text) => with_length(with_length(with_length(text.len() as u64))),
        }
    }
}

/// An attribute (`KeyValue`). A span has dozens of them, so their lengths are found before they are written.
pub(in crate::telemetry) fn attribute(
    out: &mut Vec<u8>,
    field: u32,
    key: &str,
    value: AttributeValue<'_>,
) {
    let length = value.length();
    tag(out, field, LENGTH);
    varint(out, with_length(key.len() as u64) + with_length(length));
    octets(out, 1, key);
    tag(out, 2, LENGTH);
    varint(out, length);
    any(out, value);
}

fn any(out: &mut Vec<u8>, value: AttributeValue<'_>) {
    match value {
        AttributeValue::Text(text) => octets(out, 1, text),
        // written in any case: one that is not there is no value
        AttributeValue::Flag(flag) => {
            tag(out, 2, VARINT);
            varint(out, u64::from(flag));
        }
        AttributeValue::Number(number) => {
            tag(out, 3, VARINT);
            varint(out, number);
        }
        AttributeValue::Fraction(fraction) => fixed64(out, 4, fraction.to_bits()),
        AttributeValue::Texts(text) => {
            let text_length = with_length(text.len() as u64);
            tag(out, 5, LENGTH);
            varint(out, with_length(text_length));
            tag(out, 1, LENGTH);
            varint(out, text_length);
            octets(out, 1, text);
        }
    }
}

/// Octets of something with a length, its length and a tag of one octet.
fn with_length(length: u64) -> u64 {
    1 + varint_length(length) + length
}

fn varint_length(value: u64) -> u64 {
    u64::from((value | 1).ilog2()) / 7 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn values_are_those_of_the_specification() {
        // its own examples
        assert_eq!(written(|out| number(out, 1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(
            written(|out| octets(out, 2, "testing")),
            *b"\x12\x07testing"
        );
        let nested = written(|out| message(out, 3, |out| number(out, 1, 150)));
        assert_eq!(nested, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert!(written(|out| number(out, 1, 0)).is_empty());
        assert_eq!(written(|out| fixed32(out, 16, 1)), [0x85, 0x01, 1, 0, 0, 0]);
    }

    #[test]
    fn a_message_of_any_length_has_its_length_before_it() {
        for length in [
            0, 1, 125, 126, 127, 128, 300, 16_379, 16_380, 16_381, 70_000,
        ] {
            let content = vec![b'x'; length];
            let whole = written(|out| {
                octets(out, 1, "before");
                message(out, 1, |out| octets(out, 2, &content));
                octets(out, 1, "behind");
            });
            let inner = written(|out| octets(out, 2, &content));
            let expected = written(|out| {
                octets(out, 1, "before");
                octets(out, 1, &inner);
                octets(out, 1, "behind");
            });
            assert_eq!(whole, expected, "{length}");
        }
    }

    #[test]
    fn an_attribute_is_a_message_of_its_key_and_its_value() {
        let long = "x".repeat(200);
        let mut values = vec![
            AttributeValue::Flag(false),
            AttributeValue::Flag(true),
            AttributeValue::Fraction(0.25),
        ];
        for text in ["", "x", &long[..122], &long[..126], &long] {
            values.extend([AttributeValue::Text(text), AttributeValue::Texts(text)]);
        }
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::MAX];
        values.extend(numbers.map(AttributeValue::Number));
        for value in values {
            for key in ["a", &long] {
                let expected = written(|out| {
                    message(out, 9, |out| {
                        octets(out, 1, key);
                        message(out, 2, |out| match value {
                            AttributeValue::Texts(text) => message(out, 5, |out| {
                                message(out, 1, |out| octets(out, 1, text));
                            }),
                            value => any(out, value),
                        });
                    });
                });
                let found = written(|out| attribute(out, 9, key, value));
                assert_eq!(found, expected, "{value:?}");
            }
        }
        assert_eq!(
            written(|out| text(out, 5, &["GET", " ", "/x"])),
            written(|out| octets(out, 5, "GET /x"))
        );
    }
}
