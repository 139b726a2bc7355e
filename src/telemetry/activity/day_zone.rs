//! Days of the proxy's time zone: the days of kept usage.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

pub(super) const DAY: u64 = 86_400;

/// Days of a time zone, numbered from 1970-01-01 on.
#[derive(Debug, Clone)]
pub(super) struct DayZone(TimeZone);

impl DayZone {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self(zone)
    }

    /// The zone's name.
    pub(super) fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// A Unix second as the zone's clocks count it: of each day from its midnight on.
    pub(super) fn local(&self, second: u64) -> u64 {
        let Some(moment) = moment(second) else {
            return second;
        };
        let offset = i64::from(self.0.to_offset(moment).seconds());
        second.saturating_add_signed(offset)
    }

    /// The number of the day of a Unix second.
    pub(super) fn day(&self, second: u64) -> u64 {
        self.local(second) / DAY
    }

    /// The first Unix second of a day.
    pub(super) fn begin(&self, day: u64) -> u64 {
        let plain = day.saturating_mul(DAY);
        let begin = self
            .date(day)
            .and_then(|date| date.to_zoned(self.0.clone()).ok());
        let second = begin.map(|begin| begin.timestamp().as_second());
        second.map_or(plain, |second| second.try_into().unwrap_or_default())
    }

    /// A day in text: `2026-11-29`.
    pub(super) fn show(&self, day: u64) -> String {
        self.date(day)
            .map_or_else(|| day.to_string(), |date| date.to_string())
    }

    fn date(&self, day: u64) -> Option<Date> {
        let midnight = moment(day.checked_mul(DAY)?)?;
        Some(TimeZone::UTC.to_datetime(midnight).date())
    }
}

fn moment(second: u64) -> Option<Timestamp> {
    Timestamp::from_second(second.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> DayZone {
        DayZone::new(TimeZone::get(name).unwrap())
    }

    fn second(text: &str) -> u64 {
        text.parse::<Timestamp>()
            .unwrap()
            .as_second()
            .try_into()
            .unwrap()
    }

    #[test]
    fn days_begin_at_the_zone_s_midnight() {
        for (name, moment, day, begin) in [
            (
                "UTC",
                "2026-11-29T00:00:00Z",
                "2026-11-29",
                "2026-11-29T00:00:00Z",
            ),
            (
                "Asia/Shanghai",
                "2026-11-28T16:00:00Z",
                "2026-11-29",
                "2026-11-28T16:00:00Z",
            ),
            (
                "Asia/Shanghai",
                "2026-11-28T15:59:59Z",
                "2026-11-28",
                "2026-11-27T16:00:00Z",
            ),
            (
                "America/New_York",
                "2026-11-29T04:59:59Z",
                "2026-11-28",
                "2026-11-28T05:00:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2026-11-28T18:15:00Z",
                "2026-11-29",
                "2026-11-28T18:15:00Z",
            ),
            // days of 23 and of 25 hours
            (
                "Europe/Berlin",
                "2026-03-29T21:59:59Z",
                "2026-03-29",
                "2026-03-28T23:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T22:00:00Z",
                "2026-03-30",
                "2026-03-29T22:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T22:59:59Z",
                "2026-10-25",
                "2026-10-24T22:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T23:00:00Z",
                "2026-10-26",
                "2026-10-25T23:00:00Z",
            ),
            // a midnight that there was not
            (
                "America/Sao_Paulo",
                "2018-11-04T03:30:00Z",
                "2018-11-04",
                "2018-11-04T03:00:00Z",
            ),
        ] {
            let zone = zone(name);
            let number = zone.day(second(moment));
            assert_eq!(zone.show(number), day, "{name} {moment}");
            assert_eq!(zone.begin(number), second(begin), "{name} {moment}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_second_is_within_its_day(at in 0_u64..4_000_000_000, name in 0_usize..4) {
            let zone = zone(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Auckland"][name]);
            let day = zone.day(at);
            proptest::prop_assert!(zone.begin(day) <= at);
            proptest::prop_assert!(at < zone.begin(day + 1));
        }
    }

    #[test]
    fn numbers_out_of_reach_stay_plain() {
        let zone = zone("Europe/Berlin");
        assert_eq!(zone.begin(u64::MAX), u64::MAX);
        assert_eq!(zone.local(u64::MAX), u64::MAX);
        assert_eq!(zone.show(u64::MAX), u64::MAX.to_string());
    }
}
