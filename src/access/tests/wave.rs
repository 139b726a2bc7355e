//! A wave of clients on a small budget: what they spend, and what they would with check-then-charge.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// Clients at once.
const CLIENTS: usize = 200;

/// Milliseconds of the wave.
const WAVE: u64 = 20_000;

/// Octets of a request, and its tokens of input.
const REQUEST: (u64, u64) = (3500, 1000);

/// A small random generator, so that each run is the same.
struct Random(u64);

impl Random {
    /// A number below a bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One wave: `admit` admits or not, `end` charges a cost; returns what was spent and the requests.
fn wave<T>(
    seed: u64,
    rig: &Rig,
    mut admit: impl FnMut() -> Option<T>,
    mut end: impl FnMut(T, &Tokens, u64),
) -> (u64, usize) {
    let (mut random, price) = (Random(seed), price());
    let (mut spent, mut requests, mut now) = (0, 0, 0);
    let mut running: Vec<Option<(T, Tokens)>> = (0..CLIENTS).map(|_| None).collect();
    // all of them begin within the same millisecond
    let mut events: BinaryHeap<_> = (0..CLIENTS).map(|client| Reverse((0, client))).collect();
    while let Some(Reverse((at, client))) = events.pop() {
        steady(&rig.access).fetch_add((at - now) * 1_000_000, SeqCst);
        now = at;
        if let Some((grant, tokens)) = running[client].take() {
            let cost = price.of(&tokens);
            spent += cost;
            requests += 1;
            end(grant, &tokens, cost);
        }
        if now > WAVE {
            continue;
        }
        let wait = match admit() {
            Some(grant) => {
                // $0.011 to $0.031, in half a second to two
                let tokens = tokens(REQUEST.1, 1000 + random.below(2000));
                running[client] = Some((grant, tokens));
                500 + random.below(1500)
            }
            None => 200,
        };
        events.push(Reverse((now + wait, client)));
    }
    (spent, requests)
}

#[test]
fn two_hundred_clients_on_a_budget_of_two_dollars_overspend_by_at_most_five_percent() {
    const LIMIT: u64 = 2 * DOLLAR;
    let percent = |spent: u64| (spent as f64 / LIMIT as f64 - 1.0) * 100.0;
    for seed in 1..=10 {
        let rig = Rig::new(&[("ci", Some("core"), None)], |records| {
            let team = records
                .subjects
                .entry(SubjectId::Team("core".into()))
                .or_default();
            team.limits.push(spend(Period::Day, LIMIT));
        });
        let price = price();
        let asked = Asked {
            octets: REQUEST.0,
            max_tokens: Some(128_000),
            ..generation(&price)
        };
        let key = rig.key("ci");
        let admit = || match rig.access.admit(&key, &asked, rig.now()) {
            Admitted::Granted(mut grant) => {
                // the response begins: its input is known
                grant.progress(&tokens(REQUEST.1, 1), Some(price.of(&tokens(REQUEST.1, 1))));
                Some(grant)
            }
            Admitted::Refused(_) => None,
            Admitted::Queued(wait) => panic!("{wait:?}"),
        };
        let settle = |mut grant: Grant, tokens: &Tokens, cost| grant.settle(tokens, Some(cost));
        let (ours, requests) = wave(seed, &rig, admit, settle);
        let counted = rig.access.explain_key(&key, rig.now())[0].spent;
        assert_eq!(counted, ours, "counted is what was spent");
        let charged = std::cell::Cell::new(0);
        let check = || (charged.get() < LIMIT).then_some(());
        let charge = |(), _: &Tokens, cost| charged.set(charged.get() + cost);
        let (theirs, _) = wave(seed, &rig, check, charge);
        println!(
            "seed {seed}: held and settled ${:.3} ({:+.1} %, {requests} requests); check, then charge ${:.3} ({:+.0} %)",
            ours as f64 / DOLLAR as f64,
            percent(ours),
            theirs as f64 / DOLLAR as f64,
            percent(theirs),
        );
        assert!(percent(ours) <= 5.0, "{}", percent(ours));
        assert!(
            percent(ours) >= -5.0,
            "the budget can be used: {}",
            percent(ours)
        );
        assert!(percent(theirs) > 50.0, "{}", percent(theirs));
    }
}

/// Threads that race on one budget: the sum of what is spent and held is never above it.
#[test]
fn threads_that_race_on_a_budget_stay_within_the_published_bound() {
    let rig = Rig::new(&[("ci", Some("core"), Some("ann"))], |records| {
        let org = records.subjects.entry(SubjectId::Org).or_default();
        org.limits.push(spend(Period::Day, 200_000_000));
        org.limits.push(limit(LimitKind::AtOnce, 5));
        let key = records.keys.values_mut().next().unwrap();
        key.limits.push(spend(Period::Total, 150_000_000));
    });
    let (running, spent) = (AtomicUsize::new(0), AtomicU64::new(0));
    let price = price();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (rig, running, spent, price) = (&rig, &running, &spent, &price);
            scope.spawn(move || {
                let (key, mut random) = (rig.key("ci"), Random(thread));
                for _ in 0..400 {
                    let admitted = rig.access.admit(&key, &generation(price), rig.now());
                    let Admitted::Granted(mut grant) = admitted else {
                        continue;
                    };
                    assert!(running.fetch_add(1, SeqCst) < 5);
                    let output = random.below(200);
                    let cost = price.of(&tokens(100, output));
                    spent.fetch_add(cost, SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, SeqCst);
                    if random.below(3) == 0 {
                        grant.progress(&tokens(100, output), Some(cost));
                    } else {
                        grant.settle(&tokens(100, output), Some(cost));
                    }
                }
            });
        }
    });
    let states = rig.access.explain_key(&rig.key("ci"), rig.now());
    let spent = spent.into_inner();
    for state in states
        .iter()
        .filter(|state| state.kind != LimitKind::AtOnce)
    {
        assert_eq!((state.spent, state.held), (spent, 0));
    }
    // five run at once, each of at most $0.0021 above what is held for it
    assert!(spent <= 150_000_000 + 5 * 2_100_000, "{spent}");
    assert!(spent >= 148_000_000, "the budget can be used: {spent}");
    assert_eq!(
        states
            .iter()
            .find(|it| it.kind == LimitKind::AtOnce)
            .unwrap()
            .spent,
        0
    );
}
