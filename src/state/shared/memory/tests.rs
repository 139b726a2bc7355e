//! Spend of boots that rest, end or are killed, before and after a store lost what it knew.

use std::collections::HashMap;

use super::*;

const SECOND: u64 = 1_000_000;

/// A budget in a store, as several boots report it.
struct Boots {
    store: MemoryLimits,
    now: u64,
    sequence: u64,
    /// The last answer to each boot.
    heard: HashMap<&'static str, BudgetAnswer>,
}

impl Boots {
    fn new() -> Self {
        Self {
            store: MemoryLimits::at(SECOND),
            now: SECOND,
            sequence: 0,
            heard: HashMap::new(),
        }
    }

    /// A report of a boot that has spent and holds something by now; the spend of all.
    fn report(&mut self, boot: &'static str, spent: u64, held: u64) -> u64 {
        self.tell(boot, spent, held, false)
    }

    fn tell(&mut self, boot: &'static str, spent: u64, held: u64, is_last: bool) -> u64 {
        self.sequence += 1;
        let origin = ReportOrigin {
            boot: boot.into(),
            sequence: self.sequence,
            replicas: 3,
        };
        let before = self.heard.get(boot).cloned();
        let is_known = before.is_some();
        let before = before.unwrap_or_default();
        let report = MeterReport {
            name: name(),
            state: ReportedState::Budget(BudgetReport {
                spent,
                held,
                limit: 1_000_000,
                is_known,
                ended: before.ended,
                seen: before.spent,
                ..BudgetReport::default()
            }),
            is_last,
        };
        let answers = self.store.replica().exchange(&origin, &[report]).unwrap();
        let Some(MeterAnswer::Budget(answer)) = answers.into_iter().next().flatten() else {
            panic!("no answer");
        };
        let spent = answer.spent;
        self.heard.insert(boot, answer);
        spent
    }

    /// Lets seconds pass, in which one boot reports the same.
    fn pass(&mut self, seconds: u64, boot: &'static str, spent: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.store.set(self.now);
            self.report(boot, spent, 0);
        }
    }
}

fn name() -> MeterName {
    MeterName {
        subject: "team:core".into(),
        meter: "b:total".into(),
    }
}

#[test]
fn a_boot_that_rested_is_counted_once_however_long_it_rested() {
    for seconds in [5, 60, 3 * 3600] {
        let mut boots = Boots::new();
        boots.report("b", 70, 0);
        boots.pass(seconds, "a", 30);
        assert_eq!(boots.report("b", 75, 0), 105, "{seconds}");
    }
}

#[test]
fn a_boot_that_rested_is_counted_once_by_a_store_that_was_emptied() {
    // the order in which they come back
    for order in [["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"]] {
        let mut boots = Boots::new();
        let mut spent = HashMap::from([("a", 30), ("b", 70), ("c", 500)]);
        boots.report("c", 500, 0);
        boots.report("b", 70, 0);
        boots.pass(60, "a", 30);
        boots.report("b", 70, 0);
        boots.pass(60, "a", 30);
        for _ in 0..2 {
            boots.store.flush();
            for boot in order {
                *spent.get_mut(boot).unwrap() += 1;
                boots.report(boot, spent[boot], 0);
            }
            for boot in order {
                let sum: u64 = spent.values().sum();
                assert_eq!(boots.report(boot, spent[boot], 0), sum, "{order:?}");
            }
            boots.pass(60, "a", spent["a"]);
        }
    }
}

#[test]
fn boots_that_are_gone_are_counted_after_a_flush_with_what_they_held() {
    let mut boots = Boots::new();
    boots.report("killed", 70, 9);
    boots.tell("ended", 500, 0, true);
    boots.pass(60, "a", 30);
    boots.pass(1, "b", 1);
    assert_eq!(boots.report("a", 30, 0), 610);
    boots.store.flush();
    assert_eq!(boots.report("a", 31, 0), 610, "b is not back yet");
    assert_eq!(boots.report("b", 2, 0), 612);
    // what comes twice changes nothing, and a replica whose view is older neither
    boots.pass(7200, "a", 31);
    assert_eq!(boots.report("b", 3, 0), 613);
    boots.store.flush();
    boots.report("b", 3, 0);
    assert_eq!(boots.report("a", 31, 0), 613);
}

#[test]
fn spend_after_a_flush_counts_beside_what_nobody_can_tell_by_name() {
    let mut boots = Boots::new();
    boots.report("a", 30, 0);
    boots.report("b", 70, 0);
    // a has not asked since then: to it, b is one that runs
    boots.tell("b", 70, 0, true);
    boots.heard.get_mut("a").unwrap().spent = 100;
    boots.store.flush();
    assert_eq!(boots.report("a", 30, 0), 100);
    assert_eq!(boots.report("a", 35, 0), 105);
    assert_eq!(boots.report("new", 20, 0), 125);
    assert_eq!(boots.report("new", 21, 0), 126);
}

#[test]
fn a_boot_that_gave_all_slots_back_is_not_taken_for_one_that_was_lost() {
    let store = MemoryLimits::at(SECOND);
    let mut sequence = 0;
    let mut ask = |boot: &str, claim, needs, is_known| {
        sequence += 1;
        let origin = ReportOrigin {
            boot: boot.into(),
            sequence,
            replicas: 2,
        };
        let report = MeterReport {
            name: name(),
            state: ReportedState::Slots(SlotReport {
                claim,
                needs,
                wishes: needs,
                limit: 4,
                is_known,
            }),
            is_last: false,
        };
        let answers = store.replica().exchange(&origin, &[report]).unwrap();
        match answers.into_iter().next().flatten() {
            Some(MeterAnswer::Slots(answer)) => answer.claim,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("a", 0, 1, false), 1);
    assert_eq!(ask("a", 0, 0, true), 0, "all is given back");
    assert_eq!(ask("a", 0, 1, true), 1);
    assert_eq!(ask("b", 0, 1, false), 1);
}
