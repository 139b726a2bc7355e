//! The scripts against what memory does, on a real server.

use std::{
    thread,
    time::{Duration, Instant},
};

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::state::{
    redis::testing::TestRedis,
    shared::{MOST_LAPSED, MeterName, RETURN, memory::MemoryLimits},
};

#[derive(Debug, Clone)]
enum Step {
    Report {
        boot: usize,
        meter: usize,
        /// Report of an earlier call, which arrives late.
        is_late: bool,
        is_last: bool,
        numbers: [u64; 6],
        flag: bool,
    },
    Flush,
    /// Another server takes over: replicas come to it just now, or long ago; and they come from another one, or not.
    Server {
        is_young: bool,
        is_moved: bool,
    },
    /// Time that passes, in milliseconds, of which the server's clock knows nothing.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let report = (
        (0_usize..3, 0_usize..3),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
        prop::array::uniform6(0_u64..50),
        any::<bool>(),
    );
    let report = report.prop_map(
        |((boot, meter), is_late, is_last, numbers, flag)| Step::Report {
            boot,
            meter,
            is_late,
            is_last,
            numbers,
            flag,
        },
    );
    prop_oneof![
        30 => report,
        1 => Just(Step::Flush),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_young, is_moved)| Step::Server { is_young, is_moved }),
        4 => prop_oneof![Just(900), Just(1600), Just(30_000)].prop_map(Step::Pass),
    ]
}

/// Time that passes: the server's clock cannot be set, so the times that it has stored are.
const PASS: &str = "local k, by = KEYS[1], tonumber(ARGV[1])
local function less(n) return string.format('%.0f', n - by) end
local at = redis.call('HGET', k, 'at')
if not at then return end
redis.call('HSET', k, 'at', less(at))
local full = redis.call('HGET', k, 'full')
if not full then return end
redis.call('HSET', k, 'full', less(full))
local all = redis.call('HGETALL', k)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'b:' then
    local s, c, a, n = string.match(all[i + 1], '^(%d+):(-?%d+):(%d+):(%d+)$')
    redis.call('HSET', k, all[i], s .. ':' .. c .. ':' .. (a == '0' and a or less(a)) .. ':' .. less(n))
  end
end";

/// Another server, which took the last call.
const ANOTHER: &str = "if redis.call('HEXISTS', KEYS[1], 'server') == 1 then
  redis.call('HSET', KEYS[1], 'server', 'another')
end";

#[test]
#[ignore = "needs redis-server"]
fn the_scripts_do_what_memory_does() {
    let server = TestRedis::start(&[]);
    let settings = server.settings();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec(step(), 1..80);
    runner
        .run(&steps, |steps| {
            server.run(&["FLUSHALL"]);
            let mut redis = RedisLimits::new(&settings);
            let memory = MemoryLimits::default();
            let mut replica = memory.replica();
            let mut landed = (true, false);
            let mut ahead = 0;
            let mut sequence = 10;
            for step in steps {
                match step {
                    Step::Flush => {
                        server.run(&["FLUSHALL"]);
                        memory.flush();
                    }
                    Step::Server { is_young, is_moved } => {
                        let key = settings.key("team:core", "s");
                        server.run(&["EVAL", ANOTHER, "1", &key]);
                        memory.forget_server();
                        landed = (is_young, is_moved);
                    }
                    Step::Pass(milliseconds) => {
                        let by = (milliseconds * 1000).to_string();
                        for name in NAMES {
                            let by = match name {
                                "r:x" => by.clone(),
                                _ => milliseconds.to_string(),
                            };
                            let key = settings.key("team:core", name);
                            server.run(&["EVAL", PASS, "1", &key, &by]);
                        }
                        ahead += milliseconds * 1000;
                    }
                    Step::Report {
                        boot,
                        meter,
                        is_late,
                        is_last,
                        numbers,
                        flag,
                    } => {
                        sequence += 1;
                        let origin = ReportOrigin {
                            boot: format!("boot-{boot}").into(),
                            sequence: if is_late { sequence - 5 } else { sequence },
                            replicas: 3,
                        };
                        let report = MeterReport {
                            name: MeterName {
                                subject: "team:core".into(),
                                meter: NAMES[meter].into(),
                            },
                            state: state(meter, numbers, flag),
                            is_last,
                        };
                        let reports = [report];
                        redis.connection.landed(landed.0, landed.1);
                        replica.landed(landed.0, landed.1);
                        let one = redis.exchange(&origin, &reports).unwrap().remove(0);
                        memory
                            .set(clock(&server, &settings.key("team:core", NAMES[meter])) + ahead);
                        let other = replica.exchange(&origin, &reports).unwrap().remove(0);
                        prop_assert_eq!(shown(one), shown(other), "{:?}", reports);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

const NAMES: [&str; 3] = ["r:x", "b:total", "s"];

fn state(meter: usize, numbers: [u64; 6], flag: bool) -> ReportedState {
    let [a, b, c, d, e, f] = numbers;
    match meter {
        0 => ReportedState::Rate(RateReport {
            charged: i64::try_from(a).unwrap() * 1_000_000,
            confirmed: i64::try_from(b.min(a)).unwrap() * 1_000_000,
            full_at: 0,
            asks: flag,
        }),
        1 => ReportedState::Budget(BudgetReport {
            spent: a,
            held: b,
            kept: c / 4,
            asks: d / 2,
            limit: 40 * (e + 1),
            is_known: flag,
            // two of them may be back by then, and one is none of this world's
            ended: format!("{f} boot-0:{c} boot-1:{d} other:{e}").into(),
            seen: f + a,
            keep: 1000,
        }),
        _ => ReportedState::Slots(SlotReport {
            claim: a / 4,
            needs: b / 4,
            wishes: b / 4 + c / 8,
            limit: 10 + d,
            is_known: flag,
        }),
    }
}

#[test]
#[ignore = "needs redis-server"]
fn of_many_boots_that_lapsed_the_oldest_are_known_by_their_sum() {
    let server = TestRedis::start(&[]);
    let settings = server.settings();
    let mut redis = RedisLimits::new(&settings);
    let memory = MemoryLimits::default();
    let key = settings.key("team:core", NAMES[1]);
    // the first one comes back after it was forgotten, a later one before
    let boots = (0..200).chain([0, 199]);
    for (turn, boot) in boots.enumerate() {
        let origin = ReportOrigin {
            boot: format!("{boot}").into(),
            sequence: turn as u64 + 1,
            replicas: 3,
        };
        let reports = [MeterReport {
            name: MeterName {
                subject: "team:core".into(),
                meter: NAMES[1].into(),
            },
            state: ReportedState::Budget(BudgetReport {
                spent: 1000 + boot,
                limit: 1_000_000,
                is_known: turn >= 200,
                ..BudgetReport::default()
            }),
            is_last: false,
        }];
        server.run(&["EVAL", PASS, "1", &key, "1900"]);
        let one = redis.exchange(&origin, &reports).unwrap().remove(0);
        memory.set(clock(&server, &key) + turn as u64 * 1_900_000);
        let other = memory.replica().exchange(&origin, &reports).unwrap();
        let other = other.into_iter().next().flatten();
        assert_eq!(shown(one), shown(other.clone()), "{turn}");
        let Some(MeterAnswer::Budget(answer)) = other else {
            panic!("no answer");
        };
        if turn == 199 {
            assert_eq!(answer.ended.split(' ').count(), 1 + MOST_LAPSED);
            assert_eq!(answer.spent, (1000..1200).sum::<u64>());
        }
    }
}

/// Slots that a boot has of two, after it told what it has and lacks.
fn slots_of(
    limits: &mut RedisLimits,
    boot: &str,
    sequence: &mut u64,
    claim: u64,
    needs: u64,
) -> u64 {
    *sequence += 1;
    let origin = ReportOrigin {
        boot: boot.into(),
        sequence: *sequence,
        replicas: 1,
    };
    let report = MeterReport {
        name: MeterName {
            subject: "org".into(),
            meter: "s".into(),
        },
        state: ReportedState::Slots(SlotReport {
            claim,
            needs,
            wishes: needs,
            limit: 2,
            is_known: true,
        }),
        is_last: false,
    };
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match limits.exchange(&origin, std::slice::from_ref(&report)) {
            Ok(answers) => match answers.into_iter().next().flatten() {
                Some(MeterAnswer::Slots(slots)) => return slots.claim,
                other => panic!("{other:?}"),
            },
            // it is on its way
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_server_that_comes_back_without_its_last_second_gives_no_slot_that_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let server = TestRedis::start(&["--dir", place]);
    let settings = server.settings();
    let [mut one, mut other] = [(); 2].map(|()| RedisLimits::new(&settings));
    let mut at = 0;
    // they have been there for a while, so the limit is no new one
    let end = Instant::now() + Duration::from_secs(30);
    while slots_of(&mut one, "one", &mut at, 0, 1) < 1 {
        assert!(Instant::now() < end);
    }
    assert_eq!(slots_of(&mut other, "other", &mut at, 0, 0), 0);
    server.run(&["SAVE"]);
    assert_eq!(slots_of(&mut one, "one", &mut at, 1, 1), 2);
    let port = server.kill();
    let server = TestRedis::start_on(port, &["--dir", place]).unwrap();
    assert_eq!(
        slots_of(&mut other, "other", &mut at, 0, 1),
        0,
        "it is taken"
    );
    assert_eq!(slots_of(&mut one, "one", &mut at, 2, 0), 2);
    assert!(one.is_another() && other.is_another());
    // once all had the time to tell what they have, it gives again
    let began = Instant::now();
    assert_eq!(slots_of(&mut one, "one", &mut at, 1, 0), 1);
    while slots_of(&mut other, "other", &mut at, 0, 1) < 1 {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(5));
    }
    assert!(began.elapsed() > Duration::from_millis(RETURN / 2));
    // over a further connection to the same server at once
    server.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(slots_of(&mut one, "one", &mut at, 0, 0), 0);
    assert_eq!(slots_of(&mut other, "other", &mut at, 1, 1), 2);
}

/// An answer, with times as they are from now on.
fn shown(answer: Option<MeterAnswer>) -> String {
    match answer {
        Some(MeterAnswer::Rate(rate)) => {
            let ahead = rate.full_at - rate.now;
            format!("{ahead} {} {:?}", rate.replicas, rate.rank)
        }
        Some(MeterAnswer::Budget(budget)) => {
            let mut ended: Vec<_> = budget.ended.split(' ').collect();
            ended[1..].sort_unstable();
            let ended = ended.join(" ").into();
            format!("{:?}", BudgetAnswer { ended, ..budget })
        }
        other => format!("{other:?}"),
    }
}

/// The server's clock at the last call that it took, in microseconds.
fn clock(server: &TestRedis, key: &str) -> u64 {
    let at: Option<u64> = from_redis_value(server.run(&["HGET", key, "at"])).unwrap();
    let at = at.unwrap_or_default();
    // a rate has microseconds, others milliseconds
    if key.ends_with("r:x") { at } else { at * 1000 }
}
