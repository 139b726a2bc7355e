//! The fields `traceparent` and `tracestate` (W3C Trace Context).

/// A client's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParentSpan {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) is_sampled: bool,
}

/// The span that a `traceparent` names; none if it is invalid.
pub(super) fn parent(value: &[u8]) -> Option<ParentSpan> {
    let parts: Vec<&[u8]> = value.splitn(5, |octet| *octet == b'-').collect();
    let [version, trace, span, flags, rest @ ..] = &parts[..] else {
        return None;
    };
    let [version] = hex(version)?;
    // later versions may have more parts; 255 is forbidden
    if version == 0xff || (version == 0 && !rest.is_empty()) {
        return None;
    }
    let (trace, span, [flags]) = (hex(trace)?, hex(span)?, hex(flags)?);
    let is_none = trace == [0; 16] || span == [0; 8];
    (!is_none).then_some(ParentSpan {
        trace,
        span,
        is_sampled: flags & 1 == 1,
    })
}

/// A `tracestate` that can be passed on.
pub(super) fn state(value: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(value).ok()?;
    let is_printable = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    (is_printable && !text.is_empty() && text.len() <= LONGEST_STATE).then(|| text.into())
}

/// Bytes of a state that the standard asks for at least.
const LONGEST_STATE: usize = 512;

/// Octets in hexadecimal, lower case alone as the standard has it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
        *octet = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_valid_parent_is_taken() {
        let found = parent(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        assert_eq!(found.trace[..2], [0x0a, 0xf7]);
        assert_eq!(found.span[7], 0x31);
        assert!(found.is_sampled);
        let unsampled = parent(format!("00-{TRACE}-{SPAN}-00").as_bytes()).unwrap();
        assert!(!unsampled.is_sampled);
        // a later version
        assert!(parent(format!("01-{TRACE}-{SPAN}-03-more-of-it").as_bytes()).is_some());
    }

    #[test]
    fn an_invalid_parent_is_none() {
        let upper = TRACE.to_uppercase();
        let zeros = "0".repeat(32);
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("0x-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parent(value.as_bytes()), None, "{value}");
        }
        assert_eq!(parent(b"\xff\xfe"), None);
    }

    #[test]
    fn a_state_is_short_and_printable() {
        assert_eq!(state(b"a=1,b=2").as_deref(), Some("a=1,b=2"));
        for value in [&b""[..], b"a\n", b"\xff", &[b'x'; 513]] {
            assert_eq!(state(value), None);
        }
    }
}
