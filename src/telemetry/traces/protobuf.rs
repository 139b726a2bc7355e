//! The wire format of protocol buffers, as far as spans need it: varints, fixed 64-bit and 32-bit numbers, and
//! what has a length. <https://protobuf.dev/programming-guides/encoding/>

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
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        varint(out, value);
    }
}

pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Octets or a text.
pub(super) fn octets(out: &mut Vec<u8>, field: u32, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    tag(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message, which `write` writes. Its length stands before it, and is known after it.
pub(super) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    let start = out.len();
    write(out);
    let end = out.len();
    varint(out, (end - start) as u64);
    let length = out.len() - end;
    out[start..].rotate_right(length);
}

/// Value of an attribute (`AnyValue`).
#[derive(Debug, Clone, Copy)]
pub(super) enum AttributeValue<'a> {
    Text(&'a str),
    Number(u64),
    Fraction(f64),
    Flag(bool),
    /// A list of one text.
    Texts(&'a str),
}

/// An attribute (`KeyValue`).
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: AttributeValue<'_>) {
    message(out, field, |out| {
        octets(out, 1, key);
        message(out, 2, |out| any(out, value));
    });
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
            message(out, 5, |out| message(out, 1, |out| octets(out, 1, text)))
        }
    }
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
    fn a_long_message_has_a_long_length() {
        let long = written(|out| message(out, 1, |out| octets(out, 1, vec![b'x'; 300])));
        // 300 octets, a tag and a length of two
        assert_eq!(long[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 306);
    }
}
