use super::*;
use crate::state::{
    StoredState,
    redis::testing::{TestRedis, settings},
};

fn key(id: &str, record: &str) -> StoreChange {
    StoreChange::Key {
        id: id.to_owned(),
        record: record.to_owned(),
    }
}

fn subject(name: &str, record: &str) -> StoreChange {
    StoreChange::Subject {
        name: name.to_owned(),
        record: record.to_owned(),
    }
}

fn store(server: &TestRedis) -> RedisStore {
    RedisStore::new(&server.settings(), "pepper", "here")
}

fn sorted(mut state: StoredState) -> StoredState {
    state.keys.sort();
    state.subjects.sort();
    state
}

fn text(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

fn kind<T: std::fmt::Debug>(result: Result<T, StateError>) -> RedisFaultKind {
    match result {
        Err(StateError::Redis(fault)) => fault.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs redis-server"]
fn changes_are_read_by_version_and_by_other_replicas() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (store(&server), store(&server));
    assert_eq!(one.load(0).unwrap(), StoredState::default());
    let changes = [key("a", "{1}"), key("b", "{2}"), subject("org", "{3}")];
    assert_eq!(one.change(0, &changes).unwrap(), 1);
    assert_eq!(one.change(1, &[key("a", "{4}")]).unwrap(), 2);
    let all = sorted(other.load(0).unwrap());
    assert_eq!(all.version, 2);
    assert_eq!(all.keys, [text("a", "{4}"), text("b", "{2}")]);
    assert_eq!(all.subjects, [text("org", "{3}")]);
    let changed = other.load(1).unwrap();
    assert_eq!(
        (changed.keys, changed.subjects),
        (vec![text("a", "{4}")], vec![])
    );
    assert_eq!(other.version().unwrap(), 2);
}

#[test]
#[ignore = "needs redis-server"]
fn of_two_replicas_that_change_one_version_the_second_is_refused() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (store(&server), store(&server));
    assert_eq!(one.change(0, &[key("a", "{1}")]).unwrap(), 1);
    let refused = other.change(0, &[key("a", "{2}"), key("b", "{2}")]);
    assert!(matches!(refused, Err(StateError::Conflict)), "{refused:?}");
    assert_eq!(other.load(0).unwrap().keys, [text("a", "{1}")]);
    assert_eq!(other.change(1, &[key("b", "{2}")]).unwrap(), 2);
    assert_eq!(one.load(1).unwrap().keys, [text("b", "{2}")]);
}

#[test]
#[ignore = "needs redis-server"]
fn a_hundred_thousand_keys_are_changed_and_read() {
    let server = TestRedis::start(&[]);
    let mut one = store(&server);
    let many: Vec<_> = (0..100_000)
        .map(|number| key(&format!("{number:010}"), &"r".repeat(200)))
        .collect();
    assert_eq!(one.change(0, &many).unwrap(), 1);
    let mut other = store(&server);
    let mut shown = HashSet::new();
    let version = other.read(0, &mut |text| {
        if let StoredText::Key { id, .. } = text {
            shown.insert(id.to_owned());
        }
    });
    assert_eq!((version.unwrap(), shown.len()), (1, 100_000));
}

#[test]
#[ignore = "needs redis-server"]
fn a_change_that_is_sent_twice_is_made_once() {
    let server = TestRedis::start(&[]);
    let mut one = store(&server);
    assert_eq!(one.change(0, &[key("a", "{1}")]).unwrap(), 1);
    let name = one.seen.clone().unwrap().1;
    let keys = ["meta", "keys", "keys:v", "subjects", "subjects:v"].map(|key| one.name(key));
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let again = |version: u64| {
        let command = CHANGE.call(&keys).arg(version).arg(&name);
        command.arg("ap:changes").arg("k").arg("a").arg("{1}")
    };
    let answer: (bool, u64) = one.connection.query(&again(0)).unwrap();
    assert_eq!(answer, (true, 1));
    assert_eq!(one.change(1, &[key("a", "{2}")]).unwrap(), 2);
    let answer: (bool, u64) = one.connection.query(&again(0)).unwrap();
    assert_eq!(answer, (false, 2), "another one came after it");
}

#[test]
#[ignore = "needs redis-server"]
fn a_store_that_lost_changes_tells_so() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (store(&server), store(&server));
    one.change(0, &[key("a", "{1}")]).unwrap();
    one.change(1, &[key("b", "{1}")]).unwrap();
    assert_eq!(other.load(0).unwrap().version, 2);
    server.run(&["FLUSHALL"]);
    assert_eq!(one.version().unwrap(), 0);
    assert_eq!(one.load(0).unwrap(), StoredState::default());
    assert_eq!(one.change(0, &[key("a", "{1}")]).unwrap(), 1);
    // the same number of changes, and another change
    assert_eq!(one.change(1, &[key("c", "{1}")]).unwrap(), 2);
    assert_eq!(other.version().unwrap(), 0);
    assert_eq!(other.load(0).unwrap().version, 2);
    assert_eq!(other.version().unwrap(), 2);
}

#[test]
#[ignore = "needs redis-server"]
fn keys_of_others_later_releases_and_other_peppers_are_refused() {
    let server = TestRedis::start(&[]);
    server.run(&["SET", "ap:users", "1"]);
    assert_eq!(kind(store(&server).version()), RedisFaultKind::Foreign);
    server.run(&["FLUSHALL"]);
    server.run(&["SET", "ap:{state}:keys", "1"]);
    assert_eq!(kind(store(&server).version()), RedisFaultKind::Foreign);
    server.run(&["FLUSHALL"]);
    server.run(&["SET", "app:users", "1"]);
    server.run(&["SET", "ap:{org}:b:total", "1"]);
    let mut one = store(&server);
    assert_eq!(one.version().unwrap(), 0);
    // no key depends on the pepper yet
    let mut other = RedisStore::new(&server.settings(), "another", "here");
    assert_eq!(other.version().unwrap(), 0);
    assert_eq!(other.change(0, &[key("a", "{1}")]).unwrap(), 1);
    assert_eq!(kind(store(&server).version()), RedisFaultKind::OtherPepper);
    server.run(&["HSET", "ap:{state}:meta", "schema", "99"]);
    let said = RedisStore::new(&server.settings(), "another", "here").version();
    assert_eq!(kind(said), RedisFaultKind::Newer);
}

#[test]
#[ignore = "needs redis-server"]
fn an_evicting_server_is_refused_and_later_warned_of() {
    let server = TestRedis::start(&[]);
    let mut one = store(&server);
    assert_eq!(one.version().unwrap(), 0);
    server.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(kind(store(&server).version()), RedisFaultKind::Evicts);
    assert_eq!(one.version().unwrap(), 0);
    assert!(one.warning().is_none());
    let long_ago = Instant::now().checked_sub(RECHECK).unwrap();
    one.checked = Some((long_ago, None));
    assert_eq!(one.version().unwrap(), 0, "it is used nevertheless");
    let warning = one.warning().unwrap().to_string();
    assert!(warning.contains("allkeys-lru"), "{warning}");
}

#[test]
#[ignore = "needs redis-server"]
fn the_newest_checkpoints_are_kept() {
    let server = TestRedis::start(&[]);
    let mut one = store(&server);
    let checkpoint = |chain: &str, seq: u64| StoredCheckpoint {
        chain: chain.to_owned(),
        seq,
        hash: format!("{seq:x}"),
        hmac: "00".to_owned(),
        at: i64::try_from(seq).unwrap(),
    };
    for seq in [1, 2, 1000] {
        for chain in ["c", "d"] {
            one.add_checkpoint(&checkpoint(chain, seq)).unwrap();
            one.add_checkpoint(&checkpoint(chain, seq)).unwrap();
        }
    }
    let kept = store(&server).checkpoints().unwrap();
    let expected = ["c", "d"].map(|chain| [1, 2, 1000].map(|seq| checkpoint(chain, seq)));
    assert_eq!(kept, expected.concat());
    let mut elsewhere = RedisStore::new(&server.settings(), "pepper", "elsewhere");
    assert_eq!(elsewhere.checkpoints().unwrap(), []);
    let fill =
        "for i = 1, 16384 do redis.call('ZADD', KEYS[1], i + 1, 'here e ' .. i .. ' h m 5') end";
    server.run(&["EVAL", fill, "1", "ap:{state}:checkpoints"]);
    one.add_checkpoint(&checkpoint("c", 99_999)).unwrap();
    let kept = one.checkpoints().unwrap();
    assert_eq!(kept.len(), 16_384);
    assert!(kept.contains(&checkpoint("c", 99_999)));
    assert!(!kept.contains(&checkpoint("c", 1)));
}

#[test]
#[ignore = "needs redis-server"]
fn what_other_replicas_spend_is_read_once_they_have_noted_it() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (store(&server), store(&server));
    let row = |cell: &str| SpendRegister {
        subject: "team:core".to_owned(),
        cell: cell.to_owned(),
        spent: 0,
        upto: 0,
    };
    let charge = |cell: &str, boot: &str, spent: u64| {
        let name = format!("ap:{{team:core}}:b:{cell}");
        server.run(&[
            "HSET",
            &name,
            &format!("b:{boot}"),
            &format!("1:{spent}:3:0:0:0:0"),
        ]);
    };
    let read = |spends: Vec<StoredSpend>| {
        let spends = spends.into_iter();
        spends
            .map(|it| (it.cell, it.spent, it.upto))
            .collect::<Vec<_>>()
    };
    assert_eq!(read(one.spends("one").unwrap()), []);
    charge("total", "one", 5);
    one.write_spends("one", &[row("total")]).unwrap();
    assert_eq!(read(one.changed_spends("one").unwrap()), [], "its own");
    assert_eq!(
        read(other.spends("two").unwrap()),
        [("total".to_owned(), 5, 8)]
    );
    charge("total", "two", 7);
    charge("2026-11@UTC", "two", 7);
    other
        .write_spends("two", &[row("total"), row("2026-11@UTC")])
        .unwrap();
    let month = ("2026-11@UTC".to_owned(), 7, 10);
    let changed = read(one.changed_spends("one").unwrap());
    assert_eq!(changed, [month, ("total".to_owned(), 7, 10)]);
    assert_eq!(read(one.changed_spends("one").unwrap()), []);
    assert_eq!(one.registers("team:core").unwrap().len(), 3);
    assert_eq!(one.registers("team:cor").unwrap(), []);
    // a register that rests is among those that are gone: it is still its boot's own
    let name = "ap:{team:core}:b:total";
    server.run(&["HDEL", name, "b:one"]);
    server.run(&["HSET", name, "dead", "9", "l:one", "5:1000"]);
    other.write_spends("two", &[row("total")]).unwrap();
    let changed = read(one.changed_spends("one").unwrap());
    assert_eq!(changed, [("total".to_owned(), 11, 14)]);
    let all = read(other.spends("").unwrap());
    assert!(all.contains(&("total".to_owned(), 16, 19)), "{all:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_store_that_was_emptied_gets_the_spend_of_others_back() {
    let server = TestRedis::start(&[]);
    let mut one = store(&server);
    let spend = |cell: &str, spent: u64| StoredSpend {
        subject: "team:core".to_owned(),
        cell: cell.to_owned(),
        spent,
        upto: spent,
    };
    let register = |cell: &str, fields: &[&str]| {
        let name = format!("ap:{{team:core}}:b:{cell}");
        let mut words = vec!["HSET", &name];
        words.extend(fields);
        server.run(&words);
    };
    let born = |age: u64| {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        (now.as_millis() as u64 - age).to_string()
    };
    register("anew", &["born", &born(500), "b:two", "1:7:0:0:0:0:0"]);
    register("older", &["born", &born(60_000), "b:two", "1:7:0:0:0:0:0"]);
    register("enough", &["born", &born(500), "dead", "90", "gap", "2"]);
    let cells = ["gone", "anew", "older", "enough"];
    let lost = cells.map(|cell| spend(cell, 40));
    for _ in 0..2 {
        one.restore_spends(&lost, Duration::from_secs(10)).unwrap();
        let found = one.spends("").unwrap();
        let found: Vec<_> = found.iter().map(|it| (&*it.cell, it.spent)).collect();
        assert_eq!(
            found,
            [("anew", 40), ("enough", 92), ("gone", 40), ("older", 7)]
        );
    }
}

#[test]
fn no_server_is_temporary_and_a_wrong_one_is_not() {
    let port = crate::state::redis::testing::free_port();
    let settings = settings(&format!("redis://127.0.0.1:{port}"));
    let error = RedisStore::new(&settings, "", "").version().unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("cannot be reached") && said.contains("check that it runs"),
        "{said}"
    );
}

#[test]
#[ignore = "needs redis-server"]
fn last_uses_are_shared_and_never_go_back() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (store(&server), store(&server));
    let seen = |secret: &str, at| StoredUse {
        key: "a".to_owned(),
        secret: secret.to_owned(),
        at,
    };
    assert_eq!(one.uses(0).unwrap(), []);
    one.write_uses(&[seen("1", 100), seen("2", 200)]).unwrap();
    other.write_uses(&[seen("2", 150)]).unwrap();
    assert_eq!(other.uses(0).unwrap(), [seen("1", 100), seen("2", 200)]);
    assert_eq!(other.uses(101).unwrap(), [seen("2", 200)]);
}
