//! TZ to a time zone. Systems set it, too, so a value that names none is remarked and not refused.

use jiff::tz::TimeZone;

use super::reader::Reader;
use crate::config::{env::Settings, origin::Origin};

impl Reader {
    pub(super) fn zone(&mut self, settings: &Settings) -> TimeZone {
        let Some(text) = settings.tz.as_deref() else {
            return TimeZone::UTC;
        };
        named(text).unwrap_or_else(|| {
            let setting = self.merged.setting("TZ");
            let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
            let message =
                "names no IANA time zone; days are those of UTC; write it as Europe/Berlin";
            self.merged.warn("TZ", origin, message);
            TimeZone::UTC
        })
    }
}

/// The zone of a name, also in the forms of POSIX that name a file: `:Europe/Berlin`, or its path.
fn named(text: &str) -> Option<TimeZone> {
    let text = text.trim();
    let text = text.strip_prefix(':').unwrap_or(text);
    let name = text.rsplit_once("zoneinfo/").map_or(text, |(_, name)| name);
    let zone = TimeZone::get(name).ok()?;
    // an offset or a rule of POSIX is a zone without a name
    zone.iana_name().is_some().then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_named_as_systems_do() {
        for (text, expected) in [
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            (":Asia/Shanghai", Some("Asia/Shanghai")),
            ("/usr/share/zoneinfo/Asia/Shanghai", Some("Asia/Shanghai")),
            ("UTC", Some("UTC")),
            ("CET-1CEST", None),
            (":/etc/localtime", None),
            ("Mars/Olympus", None),
            ("+02:00", None),
            ("", None),
        ] {
            let found = named(text);
            let name = found.as_ref().and_then(TimeZone::iana_name);
            assert_eq!(name, expected, "{text}");
        }
    }
}
