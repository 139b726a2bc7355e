//! Periods of budgets: days, ISO weeks and months of an IANA time zone, and all time.
//!
//! The data of time zones is embedded: the machine's own is neither needed nor read.

use jiff::{
    Timestamp,
    civil::{Date, ISOWeekDate, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

use super::record::Period;

/// A kind of period in a time zone.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    period: Period,
    zone: TimeZone,
}

/// A name that is no IANA time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no IANA time zone")]
pub(super) struct UnknownZone;

/// One period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// Its name: `2026-11-28@Europe/Berlin`, `2026-W48@…`, `2026-11@…`, `total`.
    pub(super) id: String,
    /// Its first second, in Unix time.
    pub(super) start: i64,
    /// The first second after it.
    pub(super) end: i64,
}

impl Calendar {
    /// The periods of a zone; of UTC if none is named.
    pub(super) fn new(period: Period, zone: Option<&str>) -> Result<Self, UnknownZone> {
        let zone = match zone {
            Some(name) => zone_of(name)?,
            None => TimeZone::UTC,
        };
        Ok(Self { period, zone })
    }

    /// The periods of UTC.
    pub(super) fn utc(period: Period) -> Self {
        let zone = TimeZone::UTC;
        Self { period, zone }
    }

    /// Reports whether these are the periods of a zone, in any spelling of its name.
    pub(super) fn is(&self, period: Period, zone: Option<&str>) -> bool {
        self.period == period
            && (period == Period::Total || self.zone().eq_ignore_ascii_case(zone.unwrap_or("UTC")))
    }

    pub(super) fn period(&self) -> Period {
        self.period
    }

    /// The zone's name.
    pub(super) fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The period that a second is in.
    pub(super) fn span(&self, at: i64) -> Span {
        let all = Span {
            id: TOTAL.to_owned(),
            start: i64::MIN,
            end: i64::MAX,
        };
        let date = self.zone.to_datetime(timestamp(at)).date();
        let (id, first, next) = match self.period {
            Period::Total => return all,
            Period::Day => (date.to_string(), date, date.tomorrow()),
            Period::Week => {
                let week = date.iso_week_date();
                let monday = ISOWeekDate::new(week.year(), week.week(), Weekday::Monday)
                    .map_or(date, ISOWeekDate::date);
                let id = format!("{:04}-W{:02}", week.year(), week.week());
                (id, monday, monday.checked_add(jiff::Span::new().days(7)))
            }
            Period::Month => {
                let id = format!("{:04}-{:02}", date.year(), date.month());
                (id, date.first_of_month(), date.last_of_month().tomorrow())
            }
        };
        Span {
            id: format!("{id}@{}", self.zone()),
            start: self.beginning(first),
            // the calendar ends with the year 9999
            end: next.map_or(i64::MAX, |next| self.beginning(next)),
        }
    }

    /// A second as people say it: `1 Dec 00:00 Europe/Berlin`.
    pub(super) fn say(&self, at: i64) -> String {
        say(at, &self.zone)
    }

    /// The first second of a day: not 00:00 where the clocks skip midnight.
    fn beginning(&self, date: Date) -> i64 {
        let midnight = date.to_datetime(jiff::civil::Time::midnight());
        let ambiguous = self.zone.to_ambiguous_timestamp(midnight);
        let is_gap = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let Ok(start) = ambiguous.compatible() else {
            return i64::MAX;
        };
        if !is_gap {
            return start.as_second();
        }
        let after = start
            .checked_add(jiff::Span::new().seconds(1))
            .unwrap_or(start);
        let change = self.zone.preceding(after).next();
        change
            .map_or(start, |change| change.timestamp())
            .as_second()
    }
}

/// A second of UTC as people say it: `1 Dec 00:00 UTC`.
pub(super) fn say_utc(at: i64) -> String {
    say(at, &TimeZone::UTC)
}

fn say(at: i64, zone: &TimeZone) -> String {
    let time = zone.to_datetime(timestamp(at));
    let month = usize::try_from(time.month() - 1).unwrap_or_default();
    format!(
        "{} {} {:02}:{:02} {}",
        time.day(),
        MONTHS.get(month).unwrap_or(&""),
        time.hour(),
        time.minute(),
        zone.iana_name().unwrap_or("UTC"),
    )
}

/// The zone of a name.
fn zone_of(name: &str) -> Result<TimeZone, UnknownZone> {
    // an offset or a POSIX rule is a zone to jiff, but no IANA name
    let zone = TimeZone::get(name).map_err(|_| UnknownZone)?;
    match zone.iana_name() {
        Some(_) => Ok(zone),
        None => Err(UnknownZone),
    }
}

/// The name of the IANA zone that resembles a text most.
pub(super) fn nearest_zone(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let names = jiff::tz::db().available();
    let rated = names.map(|name| {
        let name = name.to_string();
        (strsim::jaro_winkler(&name.to_lowercase(), &text), name)
    });
    rated
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .filter(|(likeness, _)| *likeness > 0.85)
        .map(|(_, name)| name)
}

/// Reports whether a period of this name has ended for sure, in whatever zone.
pub(super) fn has_ended(id: &str, now: i64) -> bool {
    let date = id.split('@').next().unwrap_or_default();
    let last = match date.split_once("-W") {
        Some((year, week)) => week_of(year, week),
        None if date.len() == 7 => format!("{date}-01")
            .parse::<Date>()
            .ok()
            .map(Date::last_of_month),
        None => date.parse().ok(),
    };
    let end = last.and_then(|last| TimeZone::UTC.to_timestamp(last.into()).ok());
    // its last day, and the width of all zones
    end.is_some_and(|end| end.as_second() + 3 * 86_400 < now)
}

/// The Sunday of an ISO week.
fn week_of(year: &str, week: &str) -> Option<Date> {
    let date = ISOWeekDate::new(year.parse().ok()?, week.parse().ok()?, Weekday::Sunday);
    date.ok().map(ISOWeekDate::date)
}

fn timestamp(second: i64) -> Timestamp {
    let bounds = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(second.clamp(bounds.0, bounds.1)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Name of the one period of all time.
const TOTAL: &str = "total";

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    /// Span of the period of an instant: name, hours, and its beginning in UTC.
    fn span(period: Period, zone: &str, at: &str) -> (String, i64, String) {
        let calendar = Calendar::new(period, Some(zone)).unwrap();
        let span = calendar.span(second(at));
        assert!((span.start..span.end).contains(&second(at)), "{span:?}");
        let name = span.id.split('@').next().unwrap().to_owned();
        let start = timestamp(span.start).to_string();
        (name, (span.end - span.start) / 3600, start)
    }

    #[test]
    fn days_have_the_hours_of_their_zone() {
        for (zone, at, expected) in [
            (
                "UTC",
                "2026-11-28T12:00:00Z",
                ("2026-11-28", 24, "2026-11-28T00:00:00Z"),
            ),
            // the evening of the day before is a day already
            (
                "Europe/Berlin",
                "2026-11-27T23:00:00Z",
                ("2026-11-28", 24, "2026-11-27T23:00:00Z"),
            ),
            (
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                ("2026-03-29", 23, "2026-03-28T23:00:00Z"),
            ),
            (
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                ("2026-10-25", 25, "2026-10-24T22:00:00Z"),
            ),
            (
                "Asia/Kathmandu",
                "2026-01-01T18:14:59Z",
                ("2026-01-01", 24, "2025-12-31T18:15:00Z"),
            ),
        ] {
            let (name, hours, start) = span(Period::Day, zone, at);
            assert_eq!(
                (name.as_str(), hours, start.as_str()),
                expected,
                "{zone} {at}"
            );
        }
    }

    #[test]
    fn a_day_whose_midnight_the_clocks_skip_begins_after_the_gap() {
        for (zone, at, expected) in [
            // 00:00 was 01:00
            (
                "America/Sao_Paulo",
                "2018-11-04T12:00:00Z",
                ("2018-11-04", 23, "2018-11-04T03:00:00Z"),
            ),
            (
                "Africa/Cairo",
                "2026-04-24T12:00:00Z",
                ("2026-04-24", 23, "2026-04-23T22:00:00Z"),
            ),
            // 23:30 was 00:30 of the next day
            (
                "America/Toronto",
                "1919-03-31T12:00:00Z",
                ("1919-03-31", 23, "1919-03-31T04:30:00Z"),
            ),
            // the 30th was skipped
            (
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                ("2011-12-29", 24, "2011-12-29T10:00:00Z"),
            ),
            (
                "Pacific/Apia",
                "2011-12-30T10:00:00Z",
                ("2011-12-31", 24, "2011-12-30T10:00:00Z"),
            ),
            // midnight came twice
            (
                "America/Sao_Paulo",
                "2018-02-17T12:00:00Z",
                ("2018-02-17", 25, "2018-02-17T02:00:00Z"),
            ),
            (
                "America/Havana",
                "2020-11-01T12:00:00Z",
                ("2020-11-01", 25, "2020-11-01T04:00:00Z"),
            ),
        ] {
            let (name, hours, start) = span(Period::Day, zone, at);
            assert_eq!(
                (name.as_str(), hours, start.as_str()),
                expected,
                "{zone} {at}"
            );
        }
    }

    #[test]
    fn weeks_are_those_of_iso_8601() {
        for (at, expected) in [
            (
                "2026-11-28T12:00:00Z",
                ("2026-W48", 168, "2026-11-22T23:00:00Z"),
            ),
            // 53 weeks, and days of another year than their week's
            (
                "2026-12-31T12:00:00Z",
                ("2026-W53", 168, "2026-12-27T23:00:00Z"),
            ),
            (
                "2027-01-03T22:59:59Z",
                ("2026-W53", 168, "2026-12-27T23:00:00Z"),
            ),
            (
                "2027-01-03T23:00:00Z",
                ("2027-W01", 168, "2027-01-03T23:00:00Z"),
            ),
            (
                "2024-12-30T12:00:00Z",
                ("2025-W01", 168, "2024-12-29T23:00:00Z"),
            ),
            (
                "2026-03-25T12:00:00Z",
                ("2026-W13", 167, "2026-03-22T23:00:00Z"),
            ),
        ] {
            let (name, hours, start) = span(Period::Week, "Europe/Berlin", at);
            assert_eq!((name.as_str(), hours, start.as_str()), expected, "{at}");
        }
    }

    #[test]
    fn months_have_their_days() {
        for (at, expected) in [
            (
                "2026-11-30T22:59:59Z",
                ("2026-11", 720, "2026-10-31T23:00:00Z"),
            ),
            (
                "2026-11-30T23:00:00Z",
                ("2026-12", 744, "2026-11-30T23:00:00Z"),
            ),
            (
                "2028-02-29T12:00:00Z",
                ("2028-02", 696, "2028-01-31T23:00:00Z"),
            ),
            (
                "2100-02-28T12:00:00Z",
                ("2100-02", 672, "2100-01-31T23:00:00Z"),
            ),
            (
                "2026-03-31T12:00:00Z",
                ("2026-03", 743, "2026-02-28T23:00:00Z"),
            ),
        ] {
            let (name, hours, start) = span(Period::Month, "Europe/Berlin", at);
            assert_eq!((name.as_str(), hours, start.as_str()), expected, "{at}");
        }
    }

    #[test]
    fn names_hold_the_zone_and_all_time_has_none() {
        let at = second("2026-11-28T12:00:00Z");
        let name = |period, zone| Calendar::new(period, zone).unwrap().span(at).id;
        assert_eq!(
            name(Period::Day, Some("Europe/Berlin")),
            "2026-11-28@Europe/Berlin"
        );
        assert_eq!(name(Period::Month, None), "2026-11@UTC");
        assert_eq!(name(Period::Week, Some("UTC")), "2026-W48@UTC");
        assert_eq!(name(Period::Total, Some("Europe/Berlin")), "total");
    }

    #[test]
    fn unknown_zones_are_refused_with_the_nearest_one() {
        for wrong in ["", "Europe/Berln", "+01:00", "CET-1CEST", "../etc/passwd"] {
            assert!(Calendar::new(Period::Day, Some(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(
            nearest_zone("Europe/Berln").as_deref(),
            Some("Europe/Berlin")
        );
        assert_eq!(nearest_zone("here"), None);
    }

    #[test]
    fn a_moment_is_said_in_its_zone() {
        let calendar = Calendar::new(Period::Month, Some("Europe/Berlin")).unwrap();
        let said = calendar.say(second("2026-11-30T23:00:00Z"));
        assert_eq!(said, "1 Dec 00:00 Europe/Berlin");
        assert_eq!(say_utc(0), "1 Jan 00:00 UTC");
    }

    #[test]
    fn old_periods_are_told_by_their_name() {
        let now = second("2026-11-28T12:00:00Z");
        for (id, expected) in [
            ("2026-11-28@UTC", false),
            ("2026-11-27@Pacific/Kiritimati", false),
            ("2026-11-20@UTC", true),
            ("2026-W48@UTC", false),
            ("2026-W46@UTC", true),
            ("2026-11@UTC|claude-*", false),
            ("2026-10@UTC", true),
            ("total", false),
            ("of another version", false),
        ] {
            assert_eq!(has_ended(id, now), expected, "{id}");
        }
    }

    proptest! {
        /// Periods follow each other without a gap, and each instant is in the one that it is told.
        #[test]
        fn periods_cover_time(
            at in -3_000_000_000_i64..5_000_000_000,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Pacific/Apia",
                "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Toronto",
            ]),
            period in prop::sample::select(vec![Period::Day, Period::Week, Period::Month]),
        ) {
            let calendar = Calendar::new(period, Some(zone)).unwrap();
            let span = calendar.span(at);
            prop_assert!((span.start..span.end).contains(&at), "{span:?} {at}");
            prop_assert_eq!(calendar.span(span.end).start, span.end);
            prop_assert_eq!(calendar.span(span.start - 1).end, span.start);
            prop_assert_eq!(calendar.span(span.end - 1), span);
        }
    }
}
