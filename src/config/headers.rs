//! The custom fields of `env/.env.headers.json`: a JSON object of strings, in the order of the file.
//! `null` instead of a string removes the client's field.
//!
//! It refuses names that frame a message or belong to one connection (RFC 9110 §7.6.1), because a
//! custom value would break the exchange, and `Host`, which has a variable of its own. A fault
//! names the key and never the value.

use std::{fmt, path::Path};

use actix_web::http::header::{HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{
    error::{ConfigError, Warning},
    origin::Origin,
};

/// Custom fields of the file, and fields that it removes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CustomFields {
    /// Fields that replace the client's.
    pub(super) set: Vec<(HeaderName, HeaderValue)>,
    /// Fields of the client that do not travel on.
    pub(super) removed: Vec<HeaderName>,
}

/// The fields, or every fault of the text. Of two keys for one name the last counts.
pub(super) fn parse(
    text: &str,
    path: &Path,
    warnings: &mut Vec<Warning>,
) -> Result<CustomFields, Vec<ConfigError>> {
    let Pairs(pairs) = serde_json::from_str(text).map_err(|error| {
        let line = (error.line() > 0).then_some(error.line());
        let problem = match error.classify() {
            serde_json::error::Category::Data => "is not a JSON object".to_owned(),
            serde_json::error::Category::Eof => "is not valid JSON: it ends too early".to_owned(),
            _ => format!("is not valid JSON (column {})", error.column()),
        };
        let path = path.to_owned();
        vec![ConfigError::at(
            Origin::File { path, line },
            problem,
            EXPECTED_OBJECT,
        )]
    })?;
    let mut fields = CustomFields::default();
    let mut faults = Vec::new();
    let origin = Origin::File {
        path: path.to_owned(),
        line: None,
    };
    for (key, value) in pairs {
        if key.starts_with("__") {
            continue;
        }
        match field(&key, &value) {
            Ok((name, value)) => {
                let before = fields.set.len() + fields.removed.len();
                fields.set.retain(|(other, _)| *other != name);
                fields.removed.retain(|other| *other != name);
                if fields.set.len() + fields.removed.len() < before {
                    let message = "duplicate of an earlier field; the last value wins";
                    warnings.push(Warning::of(key, origin.clone(), message));
                }
                match value {
                    Some(value) => fields.set.push((name, value)),
                    None => fields.removed.push(name),
                }
            }
            Err(RefusedField {
                problem,
                expected,
                fix,
            }) => faults.push(ConfigError {
                variable: Some(printable(&key)),
                fix: fix.map(str::to_owned),
                ..ConfigError::at(origin.clone(), problem, expected)
            }),
        }
    }
    if faults.is_empty() {
        Ok(fields)
    } else {
        Err(faults)
    }
}

struct RefusedField {
    problem: &'static str,
    expected: &'static str,
    fix: Option<&'static str>,
}

/// The name, and the value unless the field is removed.
fn field(key: &str, value: &Value) -> Result<(HeaderName, Option<HeaderValue>), RefusedField> {
    let refuse = |problem, expected, fix| {
        Err(RefusedField {
            problem,
            expected,
            fix,
        })
    };
    let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
        return refuse(
            "is not a field name",
            "letters, digits and - (RFC 9110 token)",
            None,
        );
    };
    let lower = name.as_str();
    if lower == "host" {
        return refuse(
            "cannot be set here",
            "an end-to-end field",
            Some("Host follows API_BASE_URL; PRESERVE_HOST=true keeps the client's"),
        );
    }
    if RESERVED.contains(&lower) || lower.starts_with("proxy-") {
        return refuse(
            "frames a message or belongs to one connection, and the proxy sets it itself",
            "an end-to-end field",
            Some("remove it"),
        );
    }
    if value.is_null() {
        return Ok((name, None));
    }
    let Value::String(text) = value else {
        return refuse(
            "has a value that is neither a string nor null",
            EXPECTED_VALUE,
            Some("put it in quotes"),
        );
    };
    // White space around a value is not part of it (RFC 9110 §5.5).
    let text = text.trim_matches([' ', '\t']);
    let Ok(mut value) = HeaderValue::from_bytes(text.as_bytes()) else {
        return refuse("has a control character in its value", EXPECTED_VALUE, None);
    };
    value.set_sensitive(true);
    Ok((name, Some(value)))
}

/// A key as it may stand in a line: short, and without control characters.
fn printable(key: &str) -> String {
    const MOST: usize = 64;
    let short: String = key.chars().take(MOST).collect();
    let dots = if short.len() < key.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

/// The pairs of an object in the order of the text, duplicates included.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;

        impl<'de> Visitor<'de> for Ordered {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Ordered)
    }
}

/// Framing (RFC 9112 §6) and hop-by-hop fields (RFC 9110 §7.6.1); `Expect` is answered hop by hop.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

const EXPECTED_OBJECT: &str = r#"a JSON object of strings, such as {"x-my-field": "value"}"#;
const EXPECTED_VALUE: &str = "a string without CR, LF and NUL, or null to remove the field";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        let path = Path::new("h.json");
        match parse(text, path, &mut Vec::new()) {
            Ok(fields) => Ok(fields
                .set
                .into_iter()
                .map(|(n, v)| {
                    (
                        n.to_string(),
                        String::from_utf8(v.as_bytes().to_vec()).unwrap(),
                    )
                })
                .collect()),
            Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn fields_keep_their_order_and_comments_are_skipped() {
        let text = r#"{"__comment": [1, {"a": null}], "X-Zed": "1", "User-Agent": "claude-cli/2.0.8 (external, cli)",
            "a": " é ", "empty": "", "__": 3}"#;
        let expected = [
            ("x-zed", "1"),
            ("user-agent", "claude-cli/2.0.8 (external, cli)"),
            ("a", "é"),
            ("empty", ""),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("{}").unwrap(), []);
    }

    #[test]
    fn of_two_spellings_the_last_counts_with_a_warning() {
        let mut warnings = Vec::new();
        let fields = parse(
            r#"{"X-A":"1","b":"2","x-a":"3"}"#,
            Path::new("h"),
            &mut warnings,
        );
        let fields = fields.unwrap().set;
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[1].1, "3");
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn null_removes_a_field() {
        let mut warnings = Vec::new();
        let text = r#"{"CF-Connecting-IP": null, "x-a": "1", "cdn-loop": null, "X-A": null, "b": null, "B": "2"}"#;
        let fields = parse(text, Path::new("h"), &mut warnings).unwrap();
        let removed: Vec<&str> = fields.removed.iter().map(HeaderName::as_str).collect();
        assert_eq!(removed, ["cf-connecting-ip", "cdn-loop", "x-a"]);
        let [(name, value)] = &fields.set[..] else {
            panic!("{fields:?}")
        };
        assert_eq!((name.as_str(), value.as_bytes()), ("b", &b"2"[..]));
        assert_eq!(warnings.len(), 2);
        // what frames the message is not removed either
        assert!(read(r#"{"content-length": null}"#).is_err());
        assert!(read(r#"{"host": null}"#).is_err());
    }

    #[test]
    fn every_bad_key_is_named_and_no_value_is() {
        let text = r#"{"Content-Length": "canary", "Transfer-Encoding": "canary", "Connection": "canary",
            "TE": "canary", "Trailer": "canary", "Upgrade": "canary", "Keep-Alive": "canary",
            "Proxy-Authorization": "canary", "Expect": "canary", "Host": "canary",
            "bad name": "canary", "": "canary", "x-number": 7.5, "x-list": ["canary"],
            "x-cr": "canary\r\nx: y", "x-nul": "canary\u0000", "x-good": "canary"}"#;
        let faults = read(text).unwrap_err();
        assert_eq!(faults.len(), 16);
        assert!(
            faults.iter().all(|fault| !fault.contains("canary")),
            "{faults:#?}"
        );
        assert!(faults[9].contains("`Host` (h.json): cannot be set here"));
        assert!(faults[9].contains("PRESERVE_HOST"));
    }

    #[test]
    fn text_that_is_no_object_is_one_fault_without_content() {
        for text in [
            "",
            "[\"canary\"]",
            "\"canary\"",
            "7",
            "{\"canary\": \"x\"",
            "{\"a\":\"canary\",}",
            "{} canary",
        ] {
            let faults = read(text).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}");
            assert!(faults[0].contains("JSON"), "{}", faults[0]);
            assert!(!faults[0].contains("canary"), "{}", faults[0]);
        }
    }
}
