//! A digest of the settings in effect, by which replicas are compared.
//!
//! It is made of values as they may be shown: no secret is in it, so none can be guessed from it. Two replicas whose
//! keys differ, and are of one length, have one digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use ring::digest::{SHA256, digest};

use super::origin::Setting;

/// Settings of a machine or a process, which differ between replicas that are alike.
const OWN: [&str; 12] = [
    "HOST",
    "PORT",
    "TLS_PORT",
    "UNIX_SOCKET",
    "WORKERS",
    "ADMIN_LISTEN",
    "DATA_DIR",
    "ACCESS_LOG",
    "ACCESS_LOG_MAX_SIZE",
    "ACCESS_LOG_KEEP",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
];

/// Digests of the settings that replicas have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsDigest {
    /// Digest of all: 12 hexadecimal digits.
    pub all: String,
    /// Digests of those that are not at their defaults, by variable: 8 hexadecimal digits.
    pub each: BTreeMap<String, String>,
}

impl SettingsDigest {
    /// The digests of settings in effect.
    pub fn of(settings: &[Setting]) -> Self {
        let (mut text, mut each) = (String::new(), BTreeMap::new());
        let common = settings.iter().map(|it| (it.variable.name, it));
        for (name, setting) in common.filter(|(name, _)| !OWN.contains(name)) {
            // a value has no line break that is not escaped: it would end the line of its file
            let line = format!("{name}={:?}", setting.shown());
            // a default that one of them says is no difference
            let said = setting.text.as_deref().unwrap_or_default();
            if said != setting.variable.default {
                each.insert(name.to_owned(), short(&line, 4));
            }
            let _ = writeln!(text, "{line}");
        }
        Self {
            all: short(&text, 6),
            each,
        }
    }
}

/// The first octets of a text's digest.
fn short(text: &str, octets: usize) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let octets = digest.as_ref().iter().take(octets);
    octets.fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// Variables whose digests are not the same in all of these, in order of name.
pub fn settings_that_differ<'a>(
    each: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
) -> Vec<&'a str> {
    let each: Vec<_> = each.into_iter().collect();
    let names: BTreeSet<&str> = each
        .iter()
        .flat_map(|it| it.keys())
        .map(|it| &**it)
        .collect();
    let differs = |name: &&str| {
        let mut digests = each.iter().map(|it| it.get(*name));
        let first = digests.next().flatten();
        digests.any(|digest| digest != first)
    };
    names.into_iter().filter(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{env, origin::Origin};

    fn setting(name: &str, text: &str) -> Setting {
        Setting {
            variable: env::variable(name).unwrap(),
            origin: Origin::Environment,
            text: Some(text.to_owned()),
        }
    }

    #[test]
    fn it_differs_with_what_replicas_have_in_common() {
        let of = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, text)| setting(name, text));
            SettingsDigest::of(&settings.collect::<Vec<_>>()).all
        };
        let before = of(&[("PORT", "1"), ("STREAM_IDLE_TIMEOUT", "1m")]);
        assert_eq!(before.len(), 12);
        assert_ne!(before, of(&[("PORT", "1"), ("STREAM_IDLE_TIMEOUT", "2m")]));
        assert_eq!(before, of(&[("PORT", "2"), ("STREAM_IDLE_TIMEOUT", "1m")]));
        // nothing of a secret but what is shown of it
        let key = |text: &str| of(&[("DASHBOARD_API_KEY", text)]);
        assert_eq!(key("0123456789abcdef"), key("fedcba9876543210"));
    }

    #[test]
    fn settings_that_differ_are_named() {
        let of = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, text)| setting(name, text));
            SettingsDigest::of(&settings.collect::<Vec<_>>()).each
        };
        let one = of(&[
            ("PORT", "1"),
            ("STREAM_IDLE_TIMEOUT", "1m"),
            ("REPLICAS", "2"),
        ]);
        let other = of(&[
            ("PORT", "2"),
            ("OTEL_SERVICE_NAME", "b"),
            ("STREAM_IDLE_TIMEOUT", "2m"),
            ("REPLICAS", "2"),
            ("METERING", "true"),
            ("ACCESS", "required"),
        ]);
        assert!(settings_that_differ([&one, &one]).is_empty());
        let named = settings_that_differ([&one, &one, &other]);
        assert_eq!(named, ["ACCESS", "STREAM_IDLE_TIMEOUT"]);
        // a name and eight digits: nothing of the value
        assert!(one.values().all(|it| it.len() == 8), "{one:?}");
    }
}
