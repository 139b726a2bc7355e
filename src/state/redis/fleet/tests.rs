use super::*;
use crate::state::redis::testing::TestRedis;

fn fleet(server: &TestRedis) -> RedisFleet {
    RedisFleet::new(&server.settings())
}

fn boots(beats: Vec<StoredBeat>) -> Vec<(String, String)> {
    let mut boots: Vec<_> = beats.into_iter().map(|it| (it.boot, it.text)).collect();
    boots.sort();
    boots
}

fn pair(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[test]
#[ignore = "needs redis-server"]
fn heartbeats_are_heard_until_they_expire_or_leave() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (fleet(&server), fleet(&server));
    assert_eq!(boots(one.beat("a", "1").unwrap()), [pair("a", "1")]);
    let both = [pair("a", "1"), pair("b", "2")];
    assert_eq!(boots(other.beat("b", "2").unwrap()), both);
    other.leave("b").unwrap();
    assert_eq!(boots(one.beat("a", "3").unwrap()), [pair("a", "3")]);
    other.beat("b", "2").unwrap();
    // as if it had been written eleven seconds ago
    let key = one.key("times");
    server.run(&["ZINCRBY", &key, "-11000", "b"]);
    assert_eq!(boots(one.beat("a", "3").unwrap()), [pair("a", "3")]);
    let ttl = server.run(&["PTTL", &key]);
    assert!(matches!(ttl, Value::Int(1..=60_000)), "{ttl:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn the_first_text_is_common_and_moves_are_heard_by_all() {
    let server = TestRedis::start(&[]);
    let (mut one, mut other) = (fleet(&server), fleet(&server));
    assert_eq!(one.common_text("x").unwrap(), "x");
    assert_eq!(other.common_text("y").unwrap(), "x");
    let none = one.moves(&[], "").unwrap();
    assert_eq!(none.moves, []);
    let told = ["1 2 3".to_owned(), "4 5 6".to_owned()];
    let own = one.moves(&told, &none.position).unwrap();
    let texts = |moves: &StoredMoves| -> Vec<String> {
        moves.moves.iter().map(|(_, text)| text.clone()).collect()
    };
    assert_eq!(texts(&own), told);
    let heard = other.moves(&[], "").unwrap();
    assert_eq!(texts(&heard), told);
    assert!(heard.moves.iter().all(|(age, _)| age.as_secs() < 60));
    assert_eq!(other.moves(&[], &heard.position).unwrap().moves, []);
    let more = other.moves(&["7 8 9".to_owned()], &heard.position).unwrap();
    assert_eq!(texts(&more), ["7 8 9"]);
    assert_eq!(texts(&one.moves(&[], &own.position).unwrap()), ["7 8 9"]);
}

fn row(table: SumTable, span: u64, name: &str, first: u64) -> SumRegister {
    let mut numbers = [0; SUM_NUMBERS];
    numbers[0] = first;
    numbers[9] = 7;
    SumRegister {
        table,
        span,
        name: name.to_owned(),
        numbers,
    }
}

fn read(fleet: &mut RedisFleet, table: SumTable, except: &str) -> Vec<(u64, String, u64, u64)> {
    let sums = fleet.sums(table, &[1, 2, 3], except).unwrap().into_iter();
    sums.map(|it| (it.span, it.name, it.numbers[0], it.numbers[9]))
        .collect()
}

#[test]
#[ignore = "needs redis-server"]
fn sums_are_added_over_boots_before_and_after_they_are_made_one() {
    let server = TestRedis::start(&[]);
    let mut fleet = fleet(&server);
    let table = SumTable::DaysByName;
    let name = "key\nabc\nd e";
    for _ in 0..2 {
        fleet
            .write_sums("a", &[row(table, 1, name, 10), row(table, 2, "", 1)])
            .unwrap();
        fleet.write_sums("b", &[row(table, 1, name, 5)]).unwrap();
    }
    let whole = vec![(1, name.to_owned(), 15, 14), (2, String::new(), 1, 7)];
    assert_eq!(read(&mut fleet, table, "-"), whole);
    assert_eq!(read(&mut fleet, table, "a"), [(1, name.to_owned(), 5, 7)]);
    assert_eq!(read(&mut fleet, SumTable::DaysByModel, "-"), []);
    for _ in 0..2 {
        fleet.merge_sums(table, &[1, 2, 3]).unwrap();
        assert_eq!(read(&mut fleet, table, "c"), whole);
    }
    let fields = server.run(&["HLEN", &fleet.span_key(table, 1)]);
    assert_eq!(fields, Value::Int(1));
    // a boot that starts after that is added
    fleet.write_sums("c", &[row(table, 1, name, 1)]).unwrap();
    fleet.merge_sums(table, &[1]).unwrap();
    assert_eq!(
        read(&mut fleet, table, "-")[0],
        (1, name.to_owned(), 16, 21)
    );
    let ttl = server.run(&["TTL", &fleet.span_key(table, 1)]);
    assert!(matches!(ttl, Value::Int(34_000_000..)), "{ttl:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_boot_is_unknown_once_and_after_everything_was_lost() {
    let server = TestRedis::start(&[]);
    let mut fleet = fleet(&server);
    assert!(!fleet.sign("a").unwrap());
    assert!(fleet.sign("a").unwrap());
    server.run(&["FLUSHALL"]);
    assert!(!fleet.sign("a").unwrap());
    assert!(fleet.take_turn("a").unwrap());
    assert!(!fleet.take_turn("b").unwrap());
    fleet.write_names(&[]).unwrap();
    fleet.write_names(&[pair("id", "ci")]).unwrap();
    assert_eq!(fleet.names().unwrap(), [pair("id", "ci")]);
}

fn register(session: &str, register: &str, record: &str) -> SessionRegister {
    SessionRegister {
        session: session.to_owned(),
        register: register.to_owned(),
        record: record.to_owned(),
    }
}

#[test]
#[ignore = "needs redis-server"]
fn sessions_are_read_by_the_time_of_their_last_write() {
    let server = TestRedis::start(&[]);
    let mut fleet = fleet(&server);
    let rows = [register("k\ns", "a", "1"), register("k\nt", "a", "2")];
    assert_eq!(fleet.write_sessions(&rows).unwrap(), [""; 0]);
    fleet.write_sessions(&[register("k\ns", "b", "3")]).unwrap();
    let (until, sessions) = fleet.sessions(0).unwrap();
    let mut found = BTreeMap::new();
    for StoredSession {
        session,
        mut registers,
    } in sessions
    {
        registers.sort();
        found.insert(session, registers);
    }
    assert_eq!(found["k\ns"], [pair("a", "1"), pair("b", "3")]);
    assert_eq!(found["k\nt"], [pair("a", "2")]);
    assert_eq!(fleet.sessions(until + 1).unwrap().1, []);
}

#[test]
#[ignore = "needs redis-server"]
fn registers_of_boots_that_are_silent_for_a_day_are_made_one() {
    let server = TestRedis::start(&[]);
    let mut fleet = fleet(&server);
    let boots = fleet.key("boots");
    let name = |boot: i64| format!("b{boot:02}");
    for boot in 0..=MANY_REGISTERS {
        fleet.sign(&name(boot)).unwrap();
        let row = register("s", &name(boot), "x");
        let crowded = fleet.write_sessions(&[row]).unwrap();
        assert_eq!(crowded.len(), usize::from(boot == MANY_REGISTERS));
    }
    let merge = |records: &[String]| Some(records.concat());
    fleet.merge_session("s", &merge).unwrap();
    assert_eq!(fleet.sessions(0).unwrap().1[0].registers.len(), 17);
    for boot in 0..3 {
        server.run(&["ZINCRBY", &boots, "-86400001", &name(boot)]);
    }
    for _ in 0..2 {
        fleet.merge_session("s", &merge).unwrap();
        let mut registers = fleet.sessions(0).unwrap().1.remove(0).registers;
        registers.sort();
        assert_eq!(registers.len(), 15);
        assert_eq!(registers[0], pair("", "xxx"));
    }
}
