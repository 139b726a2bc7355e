//! Limits over replicas: real admission, a store in memory, and whatever may happen between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

mod world;

use self::world::{LAG, Loss, MILLISECOND, SECOND, Step, World, rest, run, step};
use super::*;
use crate::state::MeterName;

#[test]
fn a_request_that_waits_has_its_part_once_the_store_is_stale() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 4)]);
    world.admit(0, &price, 1, 1);
    world.pass(200);
    world.settle(0, 0, 1);
    // it gives back what it does not use
    world.pass(50_000);
    world.replicas[0].is_cut = true;
    assert!(!world.admit(0, &price, 1, 1), "it has to ask");
    world.pass(900);
    assert_eq!(world.replicas[0].running.len(), 0);
    world.pass(600);
    assert_eq!(world.replicas[0].running.len(), 1);
}

#[test]
fn a_part_that_was_taken_without_the_store_ends_with_its_first_answer() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 1)]);
    world.replicas[0].is_cut = true;
    world.admit(0, &price, 1, 1);
    world.pass(2000);
    assert_eq!(world.replicas[0].running.len(), 1);
    world.settle(0, 0, 1);
    world.replicas[0].is_cut = false;
    world.pass(10);
    world.admit(0, &price, 1, 1);
    world.admit(0, &price, 1, 1);
    assert_eq!(world.replicas[0].running.len(), 1);
}

#[test]
fn a_slot_beyond_the_limit_is_not_taken_again() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 1)]);
    world.replicas[0].is_cut = true;
    world.admit(0, &price, 1, 1);
    world.pass(990);
    // the store does not know that it runs one
    world.admit(1, &price, 1, 1);
    world.pass(20);
    world.replicas[0].is_cut = false;
    world.pass(200);
    assert_eq!(world.running(), 2);
    world.settle(0, 0, 1);
    world.admit(0, &price, 1, 1);
    assert_eq!(world.running(), 1);
}

#[test]
fn a_server_that_takes_over_gives_no_slot_before_all_replicas_have_told_it_theirs() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 4)]);
    for at in [0, 1, 0, 1] {
        world.admit(at, &price, 1, 1);
        world.pass(2100);
    }
    // the second half goes from one to the other
    for _ in 0..2 {
        world.settle(1, 0, 1);
        world.admit(0, &price, 1, 1);
    }
    let end = world.now() + 5 * SECOND;
    while world.replicas[0].running.len() < 4 {
        assert!(world.now() < end);
        world.pass(10);
    }
    // the server does not know of them, and the other replica comes to it first
    run(&mut world, &Step::FailOver(LAG), &price);
    world.admit(1, &price, 1, 1);
    world.now.fetch_add(5 * MILLISECOND, SeqCst);
    world.set_store();
    world.sync(1, Loss::None);
    assert_eq!(world.running(), 4, "it gave a slot that is taken");
    world.pass(2100);
    assert_eq!(world.running(), 4);
    world.settle(0, 0, 1);
    world.pass(100);
    assert_eq!(world.replicas[1].running.len(), 1, "it gives again");
}

#[test]
fn a_limit_that_is_used_a_while_after_a_failover_waits_for_nothing() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 4)]);
    world.admit(0, &price, 1, 1);
    world.pass(4000);
    run(&mut world, &Step::FailOver(0), &price);
    world.pass(2100);
    world.settle(0, 0, 1);
    world.pass(30_000);
    world.admit(1, &price, 1, 1);
    world.pass(20);
    assert_eq!(world.replicas[1].running.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Exchanges at once are never above the limit, except for those of replicas that were cut off for longer than
    /// their lease, for 2 s from when another server took over, or while the store lost what it knew.
    #[test]
    fn slots_stay_within_their_limit(
        count in 1_usize..5,
        limit in 1_u64..12,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[super::limit(LimitKind::AtOnce, limit)]);
        let mut together = world.now();
        for step in &steps {
            run(&mut world, step, &price);
            // a replica that is apart may use what it has, and the others do not know it
            if world.replicas.iter().any(|it| it.is_cut || it.is_unanswered) {
                together = world.now();
            }
            if matches!(step, Step::Flush) {
                // one that has nothing cannot tell a limit that is new from one that the store lost
                let idle = world.replicas.iter_mut().filter(|it| it.running.is_empty());
                idle.for_each(|it| it.is_tainted = true);
            }
            let (now, learned) = (world.now(), world.learned);
            if let Step::Kill { at } = step {
                // nor can one that is new
                world.replicas[at % count].is_tainted = learned > now;
            }
            let (failed_over, hastened) = (world.failed_over, world.hastened);
            // one that asks for the first time cannot tell a limit that is new from one that was used in the second that
            // the server lacks; no replica has more than one slot of that
            let lost_limit = world.lost_limit;
            let is_unsure =
                lost_limit > 0 && now - lost_limit < 3 * SECOND && limit < count as u64;
            for replica in &mut world.replicas {
                let silent = now - replica.heard;
                // a server that took over gives what it is not told of in time
                let is_untold = failed_over > 0 && replica.told <= failed_over;
                let is_late = now - failed_over + hastened > 1900 * MILLISECOND;
                replica.is_tainted |= is_untold && is_late;
                replica.is_tainted |= is_unsure && replica.met > lost_limit;
                replica.is_tainted |= silent + replica.jumped > 8 * SECOND;
                // one that has nothing has its part, once the store does not answer
                if silent < 100 * MILLISECOND {
                    replica.had_some = !replica.running.is_empty();
                }
                replica.is_tainted |= silent > SECOND && !replica.had_some;
                replica.is_tainted |= silent > 100 * MILLISECOND && learned > now;
                let may_begin = silent > SECOND || learned > now || is_unsure;
                replica.is_tainted &= !replica.running.is_empty() || may_begin;
            }
            let running = world.running();
            let of = |is_tainted: bool| -> usize {
                let replicas = world.replicas.iter().filter(|it| it.is_tainted == is_tainted);
                replicas.map(|it| it.running.len()).sum()
            };
            prop_assert!(of(false) <= limit as usize, "{} of {limit}, {step:?}", of(false));
            if running <= limit as usize && learned <= now && now - together > 2 * SECOND {
                // each has reported, and gave back what others need: those that came back are within it again
                let back = world.replicas.iter_mut().filter(|it| now - it.heard < SECOND);
                back.for_each(|it| it.is_tainted = false);
            }
        }
        rest(&mut world);
        if world.kills > 0 || world.learned > 0 || world.failed_over > 0 {
            // what an ended boot had, or what the store may have lost, is there after a lease, which runs while the
            // store is asked for the limit
            world.admit(0, &price, 1, 1);
            world.pass(11_000);
            prop_assert_eq!(world.replicas[0].running.len(), 1, "a request waits for a lease at most");
            rest(&mut world);
        }
        for at in 0..count {
            for _ in 0..limit {
                world.admit(at, &price, 1, 1);
                world.pass(2200);
            }
            let running = world.replicas[at].running.len();
            prop_assert_eq!(running, limit as usize, "all of them can be used");
            while !world.replicas[at].running.is_empty() {
                world.settle(at, 0, 1);
            }
            // they go back, and others have them
            world.pass(11_000);
        }
    }

    /// Spend stays within the limit, what running exchanges cost beyond their estimates, and a share of each boot that
    /// had no answer; and all replicas agree on it in the end, to the last billionth.
    #[test]
    fn budgets_stay_within_their_limit_and_nothing_is_lost(
        count in 1_usize..5,
        amount in 1_000_000_u64..60_000_000,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[spend(Period::Day, amount)]);
        let (mut silences, mut rests, mut lapsed_held) = (0, 0, 0);
        let mut cut = vec![false; count];
        for step in &steps {
            run(&mut world, step, &price);
            for (at, replica) in world.replicas.iter().enumerate() {
                // each time of silence, or of rest, ends with a share that is not held in the store
                let is_silent = world.now() - replica.heard > 8 * SECOND;
                if is_silent && !cut[at] {
                    silences += 1;
                    lapsed_held += replica.told_held;
                }
                cut[at] = is_silent;
            }
            rests += usize::from(matches!(step, Step::Flush | Step::Pass(11_000..))) * count;
            let shares = (world.boots + silences + rests) as u64 * (amount / count as u64).max(5_000_000);
            let bound = amount + world.beyond + shares;
            prop_assert!(world.real <= bound, "{} of {amount}, bound {bound}", world.real);
        }
        rest(&mut world);
        let name = world.replicas[0].access.explain(&SubjectId::Team("core".into()), world.time());
        let cell = name[0].cell.clone().unwrap();
        let name = MeterName { subject: "team:core".into(), meter: format!("b:{cell}").into() };
        let real = world.real;
        let Some((spent, held)) = world.store.budget(&name) else {
            // what a process spent and did not report is lost with it
            prop_assert!(real == 0 || world.kills > 0, "{real}");
            return Ok(());
        };
        // a boot that lapsed counts with what it held until it comes back; of a store that forgot that it lapsed, with no
        // more than that for ever
        let loses = |step: &Step| matches!(step, Step::Flush | Step::FailOver(_));
        let beyond = if steps.iter().any(loses) { lapsed_held } else { 0 };
        if world.kills == 0 {
            prop_assert_eq!(held, 0);
            prop_assert!((real..=real + beyond).contains(&spent), "{spent}, {real} and {beyond}");
        } else {
            prop_assert!(spent >= world.replicas.iter().map(|it| it.own_spent()).sum::<u64>());
        }
        for replica in &world.replicas {
            let state = &replica.access.explain(&SubjectId::Team("core".into()), world.time())[0];
            if state.shared.is_some_and(|it| it.age.is_some_and(|age| age < 1500)) {
                prop_assert_eq!(state.spent, spent);
            }
        }
    }

    /// Requests a minute: what a bucket lets through, and a share of each replica whose view is old.
    #[test]
    fn rates_stay_within_their_limit(
        count in 1_usize..5,
        amount in 1_u64..200,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[super::limit(LimitKind::RequestsPerMinute, amount)]);
        let mut jumps = 0;
        for step in &steps {
            run(&mut world, step, &price);
            jumps += u64::from(matches!(step, Step::Jump(seconds) if *seconds > 0));
            let minutes = world.now() as f64 / 60e9;
            let amount = amount as f64;
            let share = (amount / count as f64).max(1.0);
            let shares = (world.boots + count) as f64 * amount.min(share * 2.0);
            let lost = amount * minutes;
            let bound = amount * (1.0 + minutes) + shares + lost + amount * jumps as f64;
            prop_assert!(world.admitted as f64 <= bound + 1.0, "{} of {bound}", world.admitted);
        }
    }
}

#[test]
fn a_store_that_is_absent_since_the_start_is_lost_at_once_and_as_each_limit_says() {
    let price = price();
    let with = |kind: LimitKind, amount, unreachable| LimitRule {
        unreachable: Some(unreachable),
        ..super::limit(kind, amount)
    };
    let day = || LimitKind::Spend {
        period: Period::Day,
        zone: None,
    };
    let per_minute = || LimitKind::RequestsPerMinute;
    // of four replicas, in the first second; a request holds 1,000,000 of a budget
    for (rule, admitted) in [
        (with(per_minute(), 8, Unreachable::Open), 2),
        (with(per_minute(), 8, Unreachable::Closed), 0),
        (with(LimitKind::AtOnce, 8, Unreachable::Open), 2),
        (with(LimitKind::AtOnce, 8, Unreachable::Closed), 0),
        (with(day(), 8_000_000, Unreachable::Open), 10),
        (with(day(), 8_000_000, Unreachable::Closed), 0),
    ] {
        let mut world = World::new(4, std::slice::from_ref(&rule));
        let replica = &mut world.replicas[0];
        replica.access.set_unknown(true);
        replica.is_cut = true;
        for _ in 0..10 {
            world.admit(0, &price, 300, 90);
            world.pass(10);
        }
        let running = world.replicas[0].running.len();
        assert_eq!(running, admitted, "{rule:?}");
        let replica = &mut world.replicas[0];
        replica.access.set_unknown(false);
        replica.is_cut = false;
        // a store that is new gives slots slowly for 2 s
        world.pass(3000);
        world.admit(0, &price, 300, 90);
        world.pass(50);
        let is_spent = matches!(rule.kind, LimitKind::Spend { .. }) && admitted == 10;
        // those that waited for a slot have one, too
        let is_more = world.replicas[0].running.len() > admitted;
        assert_eq!(is_more, !is_spent, "{rule:?}");
    }
}

/// Load on replicas for a while: one request at each step of the clock.
fn drive(world: &mut World, weights: &[usize], milliseconds: u64, each: u64) -> u64 {
    let before = world.admitted;
    let price = price();
    let places: Vec<usize> = weights
        .iter()
        .enumerate()
        .flat_map(|(at, weight)| std::iter::repeat_n(at, *weight))
        .collect();
    for turn in 0..(milliseconds / each) as usize {
        // a step that is no divisor of the number of places visits all of them
        let at = places[turn * 37 % places.len()];
        world.admit(at, &price, 1, 1);
        world.pass(each);
    }
    world.admitted - before
}

#[test]
fn a_rate_over_replicas_is_that_of_one() {
    for (count, weights, amount, seconds) in [
        (4, vec![1, 1, 1, 1], 600, 20),
        (16, vec![1; 16], 600, 20),
        (4, vec![97, 1, 1, 1], 600, 20),
        (4, vec![1, 1, 1, 1], 6, 60),
        (4, vec![1, 1, 1, 1], 2, 120),
    ] {
        let limit = limit(LimitKind::RequestsPerMinute, amount);
        let mut world = World::new(count, &[limit]);
        // a second of quiet, in which nothing comes back
        let each = if amount > 100 { 10 } else { 50 };
        // the first minute's units are there at once
        let admitted = drive(&mut world, &weights, seconds * 1000, each);
        let exact = amount + amount * seconds / 60;
        let offered = seconds * 1000 / each;
        let expected = exact.min(offered);
        assert!(
            admitted <= expected + count as u64
                && (admitted * 100 >= expected * 93 || admitted + 1 >= expected),
            "{admitted} of {expected} on {count}"
        );
    }
}

#[test]
fn a_flush_gives_no_rate_back() {
    let mut world = World::new(4, &[limit(LimitKind::RequestsPerMinute, 600)]);
    let mut admitted = drive(&mut world, &[1, 1, 1, 1], 30_000, 10);
    world.store.flush();
    admitted += drive(&mut world, &[1, 1, 1, 1], 30_000, 10);
    assert!((1150..=1205).contains(&admitted), "{admitted}");
}

#[test]
fn a_budget_over_replicas_is_that_of_one() {
    for count in [1, 4, 16] {
        let mut world = World::new(count, &[spend(Period::Day, 2 * DOLLAR)]);
        let price = price();
        // 200 clients, whose requests cost about $0.02 and last for half a second
        for turn in 0..4000_usize {
            let at = turn * 7 % count;
            world.admit(at, &price, 300, 2000);
            if turn > 100 {
                let at = turn * 11 % count;
                world.settle(at, turn, 1200 + (turn as u64 * 131) % 1600);
            }
            world.pass(5);
        }
        rest(&mut world);
        let over = world.real as f64 / (2.0 * DOLLAR as f64) - 1.0;
        assert!(
            (-0.05..=0.05).contains(&over),
            "{:.1} % on {count}",
            over * 100.0
        );
    }
}

#[test]
fn slots_are_used_by_whom_wants_them() {
    for (count, weights, limit) in [
        (4, vec![1, 1, 1, 1], 20_u64),
        (16, vec![1; 16], 20),
        (4, vec![1, 1, 1, 1], 2),
        (4, vec![97, 1, 1, 1], 20),
    ] {
        let mut world = World::new(count, &[super::limit(LimitKind::AtOnce, limit)]);
        let price = price();
        let mut ends: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let (mut used, mut looked) = (0, 0);
        let places: Vec<usize> = (0..count)
            .flat_map(|at| std::iter::repeat_n(at, weights[at]))
            .collect();
        for turn in 0..2000_u64 {
            let at = places[turn as usize * 37 % places.len()];
            if world.replicas[at].waiting.len() < 2 * limit as usize {
                world.admit(at, &price, 1, 1);
            }
            let before: Vec<usize> = world.replicas.iter().map(|it| it.running.len()).collect();
            world.pass(5);
            for (at, before) in before.into_iter().enumerate() {
                for _ in before..world.replicas[at].running.len() {
                    ends.entry(turn + 60 + turn * 31 % 240)
                        .or_default()
                        .push(at);
                }
            }
            for at in ends.remove(&turn).unwrap_or_default() {
                world.settle(at, 0, 1);
            }
            assert!(world.running() <= limit as usize);
            if turn > 1000 {
                used += world.running();
                looked += 1;
            }
        }
        let part = used as f64 / looked as f64 / limit as f64;
        assert!(part > 0.85, "{part} of {limit} on {count} {weights:?}");
    }
}
