//! A digest of the settings in effect, by which replicas are compared.
//!
//! It is made of values as they may be shown: no secret is in it, so none can be guessed from it. Two replicas whose
//! keys differ, and are of one length, have one digest.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use super::origin::Setting;

/// Settings of a machine or a process, which differ between replicas that are alike.
const OWN: [&str; 10] = [
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
];

/// The digest: 12 hexadecimal digits.
pub fn settings_digest(settings: &[Setting]) -> String {
    let mut text = String::new();
    let common = settings.iter().map(|it| (it.variable.name, it));
    for (name, setting) in common.filter(|(name, _)| !OWN.contains(name)) {
        // a value has no line break that is not escaped: it would end the line of its file
        let _ = writeln!(text, "{name}={:?}", setting.shown());
    }
    let digest = digest(&SHA256, text.as_bytes());
    let octets = digest.as_ref().iter().take(6);
    octets.fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
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
            settings_digest(&settings.collect::<Vec<_>>())
        };
        let before = of(&[("PORT", "1"), ("STREAM_IDLE_TIMEOUT", "1m")]);
        assert_eq!(before.len(), 12);
        assert_ne!(before, of(&[("PORT", "1"), ("STREAM_IDLE_TIMEOUT", "2m")]));
        assert_eq!(before, of(&[("PORT", "2"), ("STREAM_IDLE_TIMEOUT", "1m")]));
        // nothing of a secret but what is shown of it
        let key = |text: &str| of(&[("DASHBOARD_API_KEY", text)]);
        assert_eq!(key("0123456789abcdef"), key("fedcba9876543210"));
    }
}
