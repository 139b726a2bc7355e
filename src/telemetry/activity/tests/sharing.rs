//! Usage and sessions that replicas share.

use super::*;
use crate::{exchange::Owner, state::fleet::memory::MemoryFleet};

/// A replica that shares what it has, in a store of several.
struct Replica {
    filled: Filled,
    publisher: Publisher,
}

impl Replica {
    fn new(boot: &str, store: &MemoryFleet) -> Self {
        let mut filled = filled(NOON - 3600, |_| {});
        let others = Others::new(Box::new(store.clone()), boot.to_owned());
        filled.view.others = Some(Arc::new(others));
        let state = Arc::clone(&filled.view.state);
        Self {
            publisher: Publisher::new(Box::new(store.clone()), boot.to_owned(), state),
            filled,
        }
    }

    /// Serves an exchange, and publishes it.
    fn serve(&mut self, id: &str, more: impl FnOnce(&mut Exchange)) {
        self.count(id, more);
        self.publisher.publish();
    }

    fn count(&mut self, id: &str, more: impl FnOnce(&mut Exchange)) {
        let mut exchange = exchange(id, NOON);
        more(&mut exchange);
        let mut unsaved = Delta::default();
        let unsaved_too = Some(&mut unsaved);
        self.filled
            .ended(exchange, (None, None), at(NOON), unsaved_too);
        self.publisher.note(&unsaved);
    }

    /// Requests by name.
    fn usage(&self, by: UsageBy, range: UsageRange) -> Vec<(String, u64)> {
        let rows = self.filled.usage(range, by, at(NOON)).into_iter();
        let mut rows: Vec<_> = rows.map(|row| (row.key, row.requests)).collect();
        rows.sort();
        rows
    }

    fn models(&self) -> Vec<(String, u64)> {
        self.usage(UsageBy::Model, UsageRange::Hours(24))
    }

    fn sessions(&self) -> session_view::SessionPage {
        self.filled.sessions(&SessionFilter::default()).unwrap()
    }
}

fn one(name: &str, requests: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), requests)]
}

fn owned(exchange: &mut Exchange) {
    exchange.begun.owner = Some(Arc::new(Owner {
        key: "abcdefghij".into(),
        name: "ci".into(),
        user: Some("ada".into()),
        team: Some("core".into()),
    }));
}

#[test]
fn pages_of_each_replica_show_the_sums_of_all() {
    let store = MemoryFleet::default();
    let (mut a, mut b) = (Replica::new("a", &store), Replica::new("b", &store));
    a.serve("1", owned);
    a.serve("2", owned);
    b.serve("3", owned);
    for replica in [&a, &b] {
        for range in [UsageRange::Hours(1), UsageRange::Days(90)] {
            for (by, name) in [
                (UsageBy::Model, "claude-x"),
                (UsageBy::Of(Dimension::Key), "abcdefghij"),
                (UsageBy::Of(Dimension::User), "ada"),
                (UsageBy::Of(Dimension::Team), "core"),
                (UsageBy::Of(Dimension::Session), "session-1"),
            ] {
                assert_eq!(replica.usage(by, range), one(name, 3), "{by:?} {range:?}");
            }
        }
        let series = replica
            .filled
            .usage_series(UsageRange::Hours(24), UsageBy::Model, at(NOON));
        let requests: u64 = series.lines.iter().flat_map(|line| &line.requests).sum();
        assert_eq!(requests, 3);
        let sessions = replica.sessions();
        assert_eq!(sessions.total, 1);
        let session = &sessions.items[0];
        assert_eq!((session.sums.requests, session.sums.tokens.input), (3, 3));
        assert_eq!(session.key_name.as_deref(), Some("ci"));
        let detail = replica.filled.session("session-1", None).unwrap();
        assert_eq!(detail.row.sums.requests, 3);
        let shared = sessions.shared.unwrap();
        assert!(shared.complete);
    }
    // one that served nothing knows all, the name of the key too
    let c = Replica::new("c", &store);
    let rows = c
        .filled
        .usage(UsageRange::Hours(1), UsageBy::Of(Dimension::Key), at(NOON));
    assert_eq!((rows[0].requests, rows[0].name.as_deref()), (3, Some("ci")));
    assert_eq!(
        c.filled
            .session("session-1", None)
            .unwrap()
            .row
            .sums
            .requests,
        3
    );
}

#[test]
fn what_is_written_again_counts_once_and_only_changes_are_written() {
    let store = MemoryFleet::default();
    let (mut a, b) = (Replica::new("a", &store), Replica::new("b", &store));
    a.serve("1", |_| {});
    let writes = store.writes();
    a.publisher.publish();
    assert_eq!(store.writes(), writes, "nothing has changed");
    // hour and day, of the model and of four other names; and the session
    a.serve("2", |_| {});
    assert_eq!(store.writes(), writes + 11);
    assert_eq!(b.models(), one("claude-x", 2));
}

#[test]
fn a_store_that_lost_everything_gets_it_again() {
    let store = MemoryFleet::default();
    let (mut a, b) = (Replica::new("a", &store), Replica::new("b", &store));
    a.serve("1", owned);
    store.flush();
    a.publisher.publish();
    assert_eq!(b.models(), one("claude-x", 1));
    assert_eq!(b.sessions().items[0].sums.requests, 1);
    let by_key = b.usage(UsageBy::Of(Dimension::Key), UsageRange::Hours(1));
    assert_eq!(by_key, one("abcdefghij", 1));
}

#[test]
fn while_the_store_is_down_pages_show_what_was_read_last() {
    let store = MemoryFleet::default();
    let (mut a, mut b) = (Replica::new("a", &store), Replica::new("b", &store));
    a.serve("1", |_| {});
    assert_eq!(b.models(), one("claude-x", 1));
    assert_eq!(b.sessions().items[0].sums.requests, 1);
    store.set_down(true);
    a.serve("2", |_| {});
    b.serve("3", |_| {});
    // its own and those that it knew
    assert_eq!(b.models(), one("claude-x", 2));
    let sessions = b.sessions();
    assert_eq!(sessions.items[0].sums.requests, 2);
    assert!(!sessions.shared.unwrap().complete);
    store.set_down(false);
    for replica in [&mut a, &mut b] {
        replica.publisher.publish();
    }
    for replica in [&a, &b] {
        assert_eq!(replica.models(), one("claude-x", 3));
        let sessions = replica.sessions();
        assert_eq!(sessions.items[0].sums.requests, 3);
        assert!(sessions.shared.unwrap().complete);
    }
}

#[test]
fn a_restart_is_another_boot_of_the_same_sums() {
    let store = MemoryFleet::default();
    let mut a = Replica::new("a", &store);
    a.serve("1", |_| {});
    drop(a);
    let mut later = Replica::new("later", &store);
    later.serve("2", |_| {});
    assert_eq!(later.models(), one("claude-x", 2));
    assert_eq!(later.sessions().items[0].sums.requests, 2);
}

#[test]
fn the_history_on_disk_is_not_counted_beside_the_shared_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = MemoryFleet::default();
    let now = second(SystemTime::now());
    for boot in ["a", "b"] {
        let settings = ActivitySettings {
            data_dir: Some(directory.path().to_owned()),
            shared: Some(SharedStore {
                boot: boot.to_owned(),
                publisher: Box::new(store.clone()),
                reader: Box::new(store.clone()),
            }),
            ..readers()
        };
        let (activity, sender) = Activity::start(settings).unwrap();
        sender.ended(Box::new(exchange(boot, now)));
        let view = activity.view();
        // what waits is stored and published at the end
        drop(activity);
        let rows = view.usage(UsageRange::Hours(24), UsageBy::Model, SystemTime::now());
        let expected = if boot == "a" { 1 } else { 2 };
        assert_eq!(rows[0].requests, expected, "{boot}");
        let sessions = view.sessions(&SessionFilter::default()).unwrap();
        assert_eq!(sessions.items[0].sums.requests, expected, "{boot}");
    }
}
