//! The answer of a receiver that took a request in part: `ExportTraceServiceResponse` and
//! `ExportMetricsServiceResponse`, whose fields are the same.

/// The part of a request that a receiver did not take, or its warning about the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartialSuccess {
    /// Spans or data points that it rejected; 0 for a warning.
    pub(super) rejected: u64,
    /// Its message: for people, and of any length.
    pub(super) message: String,
}

/// The partial success in an answer. None where all was taken, and where the answer cannot be read.
pub(super) fn partial_success(answer: &[u8]) -> Option<PartialSuccess> {
    let mut found = PartialSuccess {
        rejected: 0,
        message: String::new(),
    };
    read(answer, &mut |field, value| {
        if let (1, Value::Octets(partial)) = (field, value) {
            read(partial, &mut |field, value| {
                match (field, value) {
                    // a number below 0 is none
                    (1, Value::Number(count)) => {
                        found.rejected = i64::try_from(count).map_or(0, i64::unsigned_abs);
                    }
                    (2, Value::Octets(text)) => {
                        found.message = String::from_utf8_lossy(text).into_owned();
                    }
                    _ => {}
                }
                Some(())
            })?;
        }
        Some(())
    })?;
    (found.rejected > 0 || !found.message.is_empty()).then_some(found)
}

/// Value of a field.
enum Value<'a> {
    Number(u64),
    Octets(&'a [u8]),
}

/// Reads the fields of a message; those of a fixed size mean nothing here. None where it is no message.
fn read<'a>(
    mut octets: &'a [u8],
    take: &mut dyn FnMut(u64, Value<'a>) -> Option<()>,
) -> Option<()> {
    while !octets.is_empty() {
        let tag = varint(&mut octets)?;
        let field = tag >> 3;
        match tag & 7 {
            0 => {
                let number = varint(&mut octets)?;
                take(field, Value::Number(number))?;
            }
            1 => octets = octets.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut octets)?).ok()?;
                let (value, rest) = octets.split_at_checked(length)?;
                octets = rest;
                take(field, Value::Octets(value))?;
            }
            5 => octets = octets.get(4..)?,
            _ => return None,
        }
    }
    Some(())
}

fn varint(octets: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = octets.split_first()?;
        *octets = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::{
        metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse},
        trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse},
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn of_traces(rejected_spans: i64, message: &str) -> Vec<u8> {
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: message.to_owned(),
        });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    }

    #[test]
    fn what_was_rejected_is_read() {
        let found = |rejected, message: &str| {
            Some(PartialSuccess {
                rejected,
                message: message.to_owned(),
            })
        };
        assert_eq!(
            partial_success(&of_traces(300, "too many 太多")),
            found(300, "too many 太多")
        );
        assert_eq!(partial_success(&of_traces(0, "old")), found(0, "old"));
        assert_eq!(partial_success(&of_traces(-1, "odd")), found(0, "odd"));
        let partial = ExportMetricsPartialSuccess {
            rejected_data_points: 7,
            error_message: String::new(),
        };
        let response = ExportMetricsServiceResponse {
            partial_success: Some(partial),
        };
        assert_eq!(partial_success(&response.encode_to_vec()), found(7, ""));
    }

    #[test]
    fn an_answer_without_it_is_a_success() {
        assert_eq!(partial_success(&of_traces(0, "")), None);
        for answer in ["", "ok", "{\"partialSuccess\":{}}", "<html>", "\u{1}"] {
            assert_eq!(partial_success(answer.as_bytes()), None, "{answer}");
        }
        let whole = of_traces(3, "no room");
        for end in 1..whole.len() {
            assert_eq!(partial_success(&whole[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = partial_success(&answer);
        }
    }
}
