//! One line per event on stderr, as text or as JSON.
//!
//! Lines of ours pass as `RUST_LOG` or `DEBUG_MODE` say; lines of dependencies never pass above
//! a ceiling, whatever the filter says, because their debug and trace lines print field values
//! (docs/contract.md §1.6). It writes nothing but what it is given, with control characters escaped, so
//! that one event is one line.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

mod sink;

use self::sink::Sink;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the logger of the process; a second call does nothing.
///
/// Without a filter, `debug` chooses between info and debug, and [`set_debug`] may change it later.
pub fn init(format: LogFormat, filter: Option<&str>, debug: bool) {
    let mut builder = env_logger::Builder::new();
    match filter {
        Some(filter) => builder.parse_filters(filter),
        None => builder
            .filter_level(LevelFilter::Warn)
            .filter(Some(OURS), LevelFilter::Debug),
    };
    let filter_of = builder.build();
    let most = filter_of.filter();
    let logger = Capped {
        filter: filter_of,
        format,
        sink: Sink::start(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_err() {
        return;
    }
    log::set_max_level(most);
    if filter.is_none() {
        FOLLOWS_DEBUG_MODE.store(true, Ordering::Relaxed);
        set_debug(debug);
    }
}

/// Follows a changed `DEBUG_MODE`. Does nothing where `RUST_LOG` decides, or without [`init`].
pub fn set_debug(debug: bool) {
    if FOLLOWS_DEBUG_MODE.load(Ordering::Relaxed) {
        log::set_max_level(if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        });
    }
}

/// Lines that the process could not write, since it began.
pub fn dropped() -> u64 {
    sink::dropped()
}

/// A logger that holds dependencies to their [`ceiling`].
struct Capped {
    filter: env_logger::Logger,
    format: LogFormat,
    sink: Sink,
}

impl Capped {
    fn passes(filter: &env_logger::Logger, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ceiling(metadata.target()) && filter.enabled(metadata)
    }
}

impl Log for Capped {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::passes(&self.filter, metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !self.filter.matches(record) {
            return;
        }
        let taken = SCRATCH.try_with(|scratch| {
            let Ok(mut scratch) = scratch.try_borrow_mut() else {
                return false;
            };
            let Scratch { clock, line } = &mut *scratch;
            line.clear();
            write_line(line, self.format, clock.now(SystemTime::now()), record);
            self.sink.push(line.as_bytes());
            true
        });
        if !taken.unwrap_or_default() {
            // a value that logs while it is formatted, or a thread at its end
            let mut line = String::new();
            write_line(
                &mut line,
                self.format,
                &timestamp(SystemTime::now()),
                record,
            );
            self.sink.push(line.as_bytes());
        }
    }

    fn flush(&self) {
        self.sink.flush();
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Buffers of a thread for writing lines without allocating.
#[derive(Default)]
struct Scratch {
    clock: Clock,
    line: String,
}

/// A timestamp of which only the milliseconds are written anew within one second.
#[derive(Debug, Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// The [`timestamp`] of a time.
    pub fn now(&mut self, now: SystemTime) -> &str {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text = timestamp(now);
        } else {
            // "…:SS." is 20 characters long up to the year 9999
            self.text.truncate(20);
            let millis = since.subsec_millis();
            let digits = [millis / 100, millis / 10 % 10, millis % 10];
            let digits = digits
                .into_iter()
                .filter_map(|digit| char::from_digit(digit, 10));
            self.text.extend(digits);
            self.text.push('Z');
        }
        &self.text
    }
}

/// Says nothing more of failures to accept: the sockets are closed on purpose.
pub fn hush_accept() {
    IS_ACCEPT_HUSHED.store(true, Ordering::Relaxed);
}

static IS_ACCEPT_HUSHED: AtomicBool = AtomicBool::new(false);

/// The most that a target may say, whatever the filter asks for.
fn ceiling(target: &str) -> LevelFilter {
    let is_in = |name: &str| {
        target
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    if is_in(OURS) {
        LevelFilter::Trace
    } else if is_in("actix_http::h1::dispatcher") || is_in("actix_http::h2::dispatcher") {
        // They Debug-print the error of every body that ends early; our own line for the exchange
        // has said it already, once and without content.
        LevelFilter::Off
    } else if is_in("notify") {
        // It warns of each directory that goes with its watch, as at every swap of a ConfigMap; what
        // it cannot do comes back as an error.
        LevelFilter::Error
    } else if is_in("actix_server::accept") && IS_ACCEPT_HUSHED.load(Ordering::Relaxed) {
        LevelFilter::Off
    } else if is_in("actix_http") || is_in("actix_server") || is_in("h2") || is_in("tracing") {
        LevelFilter::Error
    } else {
        LevelFilter::Warn
    }
}

fn write_line(line: &mut String, format: LogFormat, time: &str, record: &Record<'_>) {
    // writing to a string cannot fail
    match format {
        LogFormat::Text => {
            let _ = write!(line, "{time} {:<5} ", record.level());
            let start = line.len();
            let _ = line.write_fmt(*record.args());
            if line.as_bytes()[start..].iter().any(u8::is_ascii_control) {
                let message = line.split_off(start);
                for c in message.chars() {
                    if c.is_control() {
                        line.extend(c.escape_default());
                    } else {
                        line.push(c);
                    }
                }
            }
            line.push('\n');
        }
        LogFormat::Json => {
            let message = match record.args().as_str() {
                Some(text) => Cow::Borrowed(text),
                None => Cow::Owned(record.args().to_string()),
            };
            // `to_string` of a str cannot fail; an empty string would still be valid JSON.
            let quoted = |text: &str| serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into());
            let _ = writeln!(
                line,
                r#"{{"time":"{time}","level":"{}","target":{},"message":{}}}"#,
                level_name(record.level()),
                quoted(record.target()),
                quoted(&message),
            );
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// RFC 3339 in UTC with milliseconds.
pub fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970-01-01 to year, month, day: Howard Hinnant's `civil_from_days`, for days from
/// the epoch on. It counts in eras of 400 years that begin on 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

const OURS: &str = "anthropic_proxy";

static FOLLOWS_DEBUG_MODE: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (1_795_402_800, 123, "2026-11-23T03:00:00.123Z"),
            (4_107_542_400, 1, "2100-03-01T00:00:00.001Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(timestamp(at), expected);
        }
    }

    fn line(format: LogFormat, time: &str, record: &Record<'_>) -> String {
        let mut line = String::new();
        write_line(&mut line, format, time, record);
        line
    }

    #[test]
    fn a_clock_says_what_a_timestamp_says() {
        let mut clock = Clock::default();
        for millis in [0, 1, 999, 1000, 61_000, 61_001, 5] {
            let at = UNIX_EPOCH + Duration::from_millis(1_795_402_800_000 + millis);
            assert_eq!(clock.now(at), timestamp(at));
        }
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        let record = Record::builder()
            .level(Level::Info)
            .target("anthropic_proxy::proxy")
            .args(format_args!("[Proxy] a\nb \u{1b}[31m é"))
            .build();
        assert_eq!(
            line(LogFormat::Text, "T", &record),
            "T INFO  [Proxy] a\\nb \\u{1b}[31m é\n"
        );
    }

    #[test]
    fn an_event_is_one_json_object() {
        let record = Record::builder()
            .level(Level::Warn)
            .target("anthropic_proxy::config")
            .args(format_args!("[Config] \"a\"\n\\"))
            .build();
        let line = line(LogFormat::Json, "T", &record);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "T");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["target"], "anthropic_proxy::config");
        assert_eq!(value["message"], "[Config] \"a\"\n\\");
    }

    #[test]
    fn dependencies_stay_below_their_ceiling_whatever_the_filter_says() {
        let filter = env_logger::Builder::new()
            .parse_filters("trace,actix_http=trace")
            .build();
        let passes = |target, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            Capped::passes(&filter, &metadata)
        };
        assert!(passes("anthropic_proxy", Level::Trace));
        assert!(passes("anthropic_proxy::upstream::http1", Level::Trace));
        assert!(!passes("anthropic_proxy_evil", Level::Info));
        assert!(passes("rustls", Level::Warn));
        assert!(!passes("rustls::client", Level::Info));
        assert!(!passes("actix_http::h1::decoder", Level::Warn));
        assert!(passes("actix_http::h1::decoder", Level::Error));
        assert!(!passes("actix_http::h1::dispatcher", Level::Error));
        assert!(!passes("tracing::span", Level::Debug));
        assert!(!passes("notify::inotify", Level::Warn));
        assert!(passes("actix_server::server", Level::Error));
        // ... and those of tracing above it are not even compiled
        let compiled = tracing::level_filters::STATIC_MAX_LEVEL;
        assert_eq!(compiled, tracing::level_filters::LevelFilter::WARN);
    }
}
