use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    rows::{number, signed},
    schema::{TABLES, VERSION, version},
    *,
};
use crate::{
    exchange::Tokens,
    telemetry::activity::{
        dimension::Dimension,
        histogram::DurationHistogram,
        session_key::SessionKey,
        sessions::{AgentTotals, SESSIONS, SessionTotals},
        state::{DAY, DAYS, HOURS, LastEnded, MINUTE, MINUTES, Slice, Timing},
        totals::{ExchangeTotals, UsageTotals},
    },
};

const NOW: u64 = 1_795_402_800;

#[cfg(unix)]
#[test]
fn the_files_are_for_their_owner_and_group() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(HISTORY_FILE);
    for before in [None, Some(0o666), Some(0o600)] {
        if let Some(before) = before {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
        }
        let (mut store, _) = Store::open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 1), at(NOW)));
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & !0o640, 0, "{path:?} {before:?}");
        }
    }
    assert_eq!(mode(&path), 0o600);
}

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn open(directory: &Path, now: SystemTime) -> (Store, Delta) {
    let (store, saved) = Store::open(directory, now);
    (store, saved.sums)
}

fn session(name: &str) -> SessionKey {
    SessionKey {
        session: name.into(),
        key: "0123456789".into(),
    }
}

/// A session that was used at a second.
fn used(second: u64, spent: UsageTotals) -> SessionTotals {
    let main = AgentTotals {
        first: second * 1000,
        last: second * 1000 + 7,
        requests: 1,
        models: vec![("m".into(), spent)],
        ..AgentTotals::default()
    };
    SessionTotals {
        user: Some("anna".into()),
        agents: vec![main],
        ..SessionTotals::default()
    }
}

fn additions(second: u64, cost: u64) -> Delta {
    let spent = UsageTotals {
        requests: 1,
        cost,
        tokens: Tokens {
            input: 1,
            output: 2,
            cache_read: 3,
            cache_write_5m: 4,
            cache_write_1h: 5,
        },
        unpriced: 6,
        at_least: 7,
        estimated: 8,
    };
    let sums = ExchangeTotals {
        requests: 7,
        succeeded: 8,
        failed: 9,
        received: 10,
        sent: 11,
        duration: 12,
        first_tokens: 13,
        first_token: 14,
        spent,
    };
    let mut histogram = DurationHistogram::default();
    histogram.add(Duration::from_secs(1));
    let timing = Timing {
        duration: Some(Arc::new(histogram)),
        first_token: None,
    };
    let slice = Slice { sums, timing };
    Delta {
        seconds: [(second, slice.clone())].into(),
        minutes: [(second / MINUTE, slice)].into(),
        hours: [((second / HOUR, "m".into()), spent)].into(),
        days: [((second / DAY, "m".into()), spent)].into(),
        hours_by: [((second / HOUR, Dimension::Team, "t".into()), spent)].into(),
        days_by: [((second / DAY, Dimension::Key, "".into()), spent)].into(),
        sessions: [(session("s"), used(second, spent))].into(),
        ended: LastEnded::default(),
    }
}

#[test]
fn closing_leaves_no_log_beside_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    assert!(
        directory
            .path()
            .join(format!("{HISTORY_FILE}-wal"))
            .exists()
    );
    store.close();
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn what_was_written_is_read_and_additions_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, saved) = open(directory.path(), at(NOW));
    assert!(saved.is_empty());
    // another process that has the file open
    let (mut other, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    assert!(other.write(&additions(NOW, 6), at(NOW)));
    let (_, saved) = open(directory.path(), at(NOW));
    let mut expected = additions(NOW, 5);
    expected.add(additions(NOW, 6));
    assert_eq!(saved, expected);
}

#[test]
fn a_file_of_an_earlier_release_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(HISTORY_FILE)).unwrap();
    old.execute_batch(TABLES).unwrap();
    let row = "INSERT INTO usage_day VALUES (?, 'm', 1, 1, 2, 3, 4, 5, 5, 6)";
    old.execute(row, [signed(NOW / DAY)]).unwrap();
    let (mut store, saved) = open(directory.path(), at(NOW));
    let mut expected = additions(NOW, 5).days;
    for spent in expected.values_mut() {
        (spent.at_least, spent.estimated) = (0, 0);
    }
    assert_eq!(saved.days, expected);
    assert_eq!(version(&old), Ok(VERSION));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    // which still runs beside it
    let insert = "INSERT INTO usage_day (span, model, metered, input, output, cache_read, \
        cache_write_5m, cache_write_1h, cost, unpriced) VALUES (?, 'n', 1, 1, 1, 1, 1, 1, 1, 1)";
    old.execute(insert, [signed(NOW / DAY)]).unwrap();
    let (_, saved) = open(directory.path(), at(NOW));
    let at_least = saved.days.values().map(|spent| spent.at_least);
    assert_eq!(at_least.collect::<Vec<_>>(), [7, 0]);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        3,
        "nothing is moved aside"
    );
}

#[test]
fn a_version_that_is_not_known_yet_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    let connection = store.connection.take().unwrap();
    connection.execute_batch("PRAGMA user_version = 4").unwrap();
    drop(connection);
    let (mut store, saved) = open(directory.path(), at(NOW));
    assert!(saved.is_empty() && store.write(&additions(NOW, 6), at(NOW)));
    assert!(
        directory
            .path()
            .join(format!("{HISTORY_FILE}{ASIDE}{NOW}"))
            .exists()
    );
}

#[test]
fn durations_that_cannot_be_read_cost_no_sums() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    let connection = store.connection.as_ref().unwrap();
    let broken = "UPDATE minute SET durations = x'0100'; UPDATE second SET durations = x'07'";
    connection.execute_batch(broken).unwrap();
    let (_, saved) = open(directory.path(), at(NOW));
    let mut expected = additions(NOW, 5);
    for slice in expected
        .seconds
        .values_mut()
        .chain(expected.minutes.values_mut())
    {
        slice.timing = Timing::default();
    }
    assert_eq!(saved, expected);
}

#[test]
fn old_rows_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    let (_, saved) = open(directory.path(), at(NOW + 33 * DAY));
    assert_eq!(
        (saved.minutes.len(), saved.hours.len(), saved.days.len()),
        (0, 0, 1)
    );
    let (_, saved) = open(directory.path(), at(NOW + 401 * DAY));
    assert!(saved.is_empty());
}

/// Numbers of rows: minutes, hours, days.
fn rows(store: &Store) -> [u64; 3] {
    let connection = store.connection.as_ref().unwrap();
    ["minute", "usage_hour", "usage_day"].map(|table| {
        let count = format!("SELECT count(*) FROM {table}");
        let row = connection.query_row(&count, [], |row| number(row, 0));
        row.unwrap()
    })
}

#[test]
fn rows_go_when_enough_newer_ones_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    let mut many = Delta::default();
    for span in 0..MINUTES + 100 {
        many.add(Delta {
            minutes: additions(NOW + span * MINUTE, 1).minutes,
            hours: additions(NOW + span * HOUR, 1).hours,
            days: additions(NOW + span * DAY, 1).days,
            ..Delta::default()
        });
    }
    assert!(store.write(&many, at(NOW + (MINUTES + 100) * DAY)));
    assert_eq!(rows(&store), [MINUTES, HOURS, DAYS]);
}

#[test]
fn sessions_go_after_ninety_days_or_when_enough_newer_ones_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    let spent = UsageTotals::default();
    let written = |store: &mut Store, names: std::ops::Range<u64>, second: u64| {
        let mut many = Delta::default();
        for name in names {
            let session = session(&name.to_string());
            many.sessions.insert(session, used(second + name, spent));
        }
        assert!(store.write(&many, at(second)));
    };
    let count = |store: &Store| {
        let connection = store.connection.as_ref().unwrap();
        let count = "SELECT count(*) FROM session";
        connection
            .query_row(count, [], |row| number(row, 0))
            .unwrap()
    };
    written(&mut store, 0..10, NOW);
    written(&mut store, 10..11, NOW + 100 * DAY);
    assert_eq!(
        count(&store),
        11,
        "one that is newer may be of a wrong clock"
    );
    written(&mut store, 11..30, NOW + 100 * DAY + HOUR);
    assert_eq!(count(&store), 20);
    let (_, saved) = open(directory.path(), at(NOW + 100 * DAY + HOUR));
    assert_eq!(saved.sessions.len(), 20);
    let most = SESSIONS as u64;
    written(&mut store, 100..200 + most, NOW + 101 * DAY);
    written(&mut store, 0..1, NOW + 101 * DAY + HOUR);
    assert_eq!(count(&store), most);
}

#[test]
fn a_clock_that_jumps_costs_no_history() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    for wrong in [NOW + 900 * DAY, 60] {
        assert!(store.write(&additions(wrong, 1), at(wrong)));
        assert!(store.write(&additions(wrong + HOUR, 1), at(wrong + HOUR)));
    }
    assert!(store.write(&Delta::default(), at(NOW + HOUR)));
    let (store, saved) = open(directory.path(), at(NOW));
    let minute = NOW / MINUTE;
    assert_eq!(
        saved.minutes[&minute],
        additions(NOW, 5).minutes[&minute],
        "what was there is there"
    );
    assert_eq!(rows(&store), [5, 5, 3]);
}

#[test]
fn sums_end_at_the_largest_integer() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    for cost in [u64::MAX, 7, u64::MAX] {
        assert!(store.write(&additions(NOW, cost), at(NOW)));
    }
    let cost = |saved: &Delta| saved.minutes[&(NOW / MINUTE)].sums.spent.cost;
    let (mut store, saved) = open(directory.path(), at(NOW));
    assert_eq!(cost(&saved), i64::MAX as u64);
    assert_eq!(saved.minutes[&(NOW / MINUTE)].sums.requests, 21);
    // as it was written before they were clamped
    let connection = store.connection.as_ref().unwrap();
    connection
        .execute("UPDATE minute SET cost = 9.3e18", [])
        .unwrap();
    assert!(store.write(&additions(NOW, 1), at(NOW)));
    let (_, saved) = open(directory.path(), at(NOW));
    assert_eq!(cost(&saved), i64::MAX as u64);
    assert_eq!(saved.minutes[&(NOW / MINUTE)].sums.requests, 28);
}

#[test]
fn of_files_moved_aside_the_newest_three_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(HISTORY_FILE);
    let broken = "not a database, but long enough to be looked at, and then some more of it";
    // the clock is set back before the last
    for second in [9, 10, 100, 101, 102, 50] {
        fs::write(&path, broken).unwrap();
        fs::write(directory.path().join(format!("{HISTORY_FILE}-wal")), "x").unwrap();
        let (mut store, _) = open(directory.path(), at(NOW + second));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
    }
    fs::write(
        directory.path().join(format!("{HISTORY_FILE}.corrupt-x")),
        "kept",
    )
    .unwrap();
    let left = fs::read_dir(directory.path()).unwrap();
    let mut left: Vec<_> = left
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| Some(name.split_once(ASIDE)?.1.to_owned()))
        .filter(|rest| !rest.contains('-'))
        .collect();
    left.sort();
    let named = [50, 101, 102].map(|second| (NOW + second).to_string());
    assert_eq!(left[..3], named);
    assert_eq!(left[3..], ["x".to_owned()]);
}

#[test]
fn a_broken_or_foreign_file_is_moved_aside_and_a_clean_one_begun() {
    let foreign = tempfile::tempdir().unwrap();
    let connection = Connection::open(foreign.path().join("x")).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 7; CREATE TABLE minute (a)")
        .unwrap();
    drop(connection);
    let unversioned = foreign.path().join("y");
    Connection::open(&unversioned)
        .unwrap()
        .execute_batch("CREATE TABLE minute (a)")
        .unwrap();
    for content in [
        b"not a database, but long enough to be looked at, and then some more of it".to_vec(),
        fs::read(foreign.path().join("x")).unwrap(),
        fs::read(unversioned).unwrap(),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(HISTORY_FILE);
        fs::write(&path, &content).unwrap();
        let (mut store, saved) = open(directory.path(), at(NOW));
        assert!(saved.is_empty());
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        assert_eq!(open(directory.path(), at(NOW)).1, additions(NOW, 5));
        let aside = directory
            .path()
            .join(format!("{HISTORY_FILE}.corrupt-{NOW}"));
        assert!(aside.exists());
    }
}

#[test]
fn a_file_that_breaks_while_it_is_used_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path(), at(NOW));
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    drop(store);
    let path = directory.path().join(HISTORY_FILE);
    let mut octets = fs::read(&path).unwrap();
    for octet in &mut octets[4096..] {
        *octet = 0x55;
    }
    fs::write(&path, octets).unwrap();
    let (mut store, saved) = open(directory.path(), at(NOW));
    assert!(saved.is_empty());
    assert!(store.write(&additions(NOW, 6), at(NOW)));
    assert!(
        directory
            .path()
            .join(format!("{HISTORY_FILE}.corrupt-{NOW}"))
            .exists()
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("a");
    fs::write(&blocked, "a file where a directory should be").unwrap();
    let (mut store, saved) = open(&blocked, at(NOW));
    assert!(saved.is_empty() && store.is_failing);
    assert!(!store.write(&additions(NOW, 5), at(NOW)));
    fs::remove_file(&blocked).unwrap();
    assert!(store.write(&additions(NOW, 5), at(NOW)));
    assert!(!store.is_failing);
    // and a directory that vanishes
    fs::remove_dir_all(&blocked).unwrap();
    assert!(store.write(&additions(NOW, 6), at(NOW)));
    assert_eq!(open(&blocked, at(NOW)).1, additions(NOW, 6));
}
