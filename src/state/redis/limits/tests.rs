//! The scripts against what memory does, on a real server.

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::state::{
    redis::testing::TestRedis,
    shared::{MeterName, memory::MemoryLimits},
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
            let mut ahead = 0;
            let mut sequence = 10;
            for step in steps {
                match step {
                    Step::Flush => {
                        server.run(&["FLUSHALL"]);
                        memory.flush();
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
                        let one = redis.exchange(&origin, &reports).unwrap().remove(0);
                        memory
                            .set(clock(&server, &settings.key("team:core", NAMES[meter])) + ahead);
                        let other = memory.replica().exchange(&origin, &reports).unwrap();
                        prop_assert_eq!(shown(one), shown(other[0]), "{:?}", reports);
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
            dead: f,
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

/// An answer, with times as they are from now on.
fn shown(answer: Option<MeterAnswer>) -> String {
    match answer {
        Some(MeterAnswer::Rate(rate)) => {
            let ahead = rate.full_at - rate.now;
            format!("{ahead} {} {:?}", rate.replicas, rate.rank)
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
