//! Bounds over replicas: slots, budgets and warnings, with three replicas on one Redis.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::replica::{PASSES, Replica, answer_of, says_message, until};
use crate::support::{DEADLINE, Head, Proxy, Upstream, redis::Redis};

/// Dollars of a million tokens of input and of output, for the model of the tests.
const PRICES: (f64, f64) = (3.0, 15.0);

fn three(redis: &Redis) -> [Replica; 3] {
    [(); 3].map(|()| Replica::of(&redis.url()))
}

#[track_caller]
fn started(replicas: &[Replica; 3], upstream: &str, key: &str) -> Vec<Proxy> {
    let start = |it: &Replica| it.builder(upstream).env("REPLICAS", 3).start();
    let servers: Vec<_> = replicas.iter().map(start).collect();
    servers.iter().for_each(|it| until(it, key, PASSES));
    servers
}

fn created(replica: &Replica, limits: &[&str]) -> String {
    let verb = ["keys", "create", "--name", "shared", "--quiet"];
    let key = replica.says(&[&verb, limits].concat());
    key.trim().to_owned()
}

#[test]
#[ignore = "needs redis-server"]
fn twenty_slots_for_sixty_clients_over_three_replicas_are_never_more_at_the_upstream() {
    const SLOTS: usize = 20;
    let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counted = [&running, &most].map(Arc::clone);
    let upstream = Upstream::answering(move |_: &_, _: &_| {
        let [running, most] = &counted;
        most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(Duration::from_millis(40));
        running.fetch_sub(1, SeqCst);
        answer_of(10, 10)
    });
    let redis = Redis::start(&[]);
    let replicas = three(&redis);
    let key = created(&replicas[0], &["--streams", &SLOTS.to_string()]);
    let servers = started(&replicas, &upstream.url(), &key);
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..60 {
            let (server, key, passed) = (&servers[client % 3], &key, &passed);
            scope.spawn(move || {
                for _ in 0..4 {
                    let (status, error) = says_message(server, key, client);
                    match status {
                        200 => passed.fetch_add(1, SeqCst),
                        _ => {
                            assert_eq!((status, error.as_str()), (429, "too_many_at_once"));
                            0
                        }
                    };
                }
            });
        }
    });
    let (most, passed) = (most.load(SeqCst), passed.load(SeqCst));
    println!(
        "20 slots, 60 clients, 3 replicas: at most {most} at the upstream, {passed} of 240 passed"
    );
    assert!(most <= SLOTS, "{most}");
    // they are used, not hoarded: each replica has several
    assert!(most > SLOTS / 2, "{most}");
    assert!(passed >= 180, "{passed}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_budget_of_two_dollars_holds_for_two_hundred_clients_at_once_over_three_replicas() {
    const CLIENTS: usize = 200;
    const BUDGET: f64 = 2.0;
    let (input, output) = (2_000_u64, 1_000_u64);
    let cost = (input as f64 * PRICES.0 + output as f64 * PRICES.1) / 1e6;
    let reached = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&reached);
    let upstream = Upstream::answering(move |head: &Head, _: &_| {
        // the others ask for the list of models
        if head.line.starts_with("POST ") {
            counted.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(100));
        }
        answer_of(input, output)
    });
    let redis = Redis::start(&[]);
    let replicas = three(&redis);
    let key = created(&replicas[0], &["--budget", "$2/month"]);
    let servers = started(&replicas, &upstream.url(), &key);
    // the estimates of each replica learn what a message of this key costs
    for server in &servers {
        assert_eq!(says_message(server, &key, 0).0, 200);
    }
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, key, refused) = (&servers[client % 3], &key, &refused);
            scope.spawn(move || {
                // as a client that tries again when the rest of the budget is held
                let end = Instant::now() + DEADLINE;
                loop {
                    let (status, error) = says_message(server, key, client);
                    match (status, error.as_str()) {
                        (200, _) => return,
                        (429, "spend_limit") => {
                            refused.fetch_add(1, SeqCst);
                            return;
                        }
                        (429, "spend_reserved") if Instant::now() < end => {
                            thread::sleep(Duration::from_millis(50));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let spent = reached.load(SeqCst) as f64 * cost;
    // it admits all that ask before the first one is charged
    let unheld = (CLIENTS + 3) as f64 * cost;
    println!(
        "a budget of ${BUDGET}, {CLIENTS} clients at once, 3 replicas: ${spent:.3} spent ({:+.1} %), \
         {} refused; check-then-charge: ${unheld:.2} ({:+.0} %)",
        (spent / BUDGET - 1.0) * 100.0,
        refused.load(SeqCst),
        (unheld / BUDGET - 1.0) * 100.0,
    );
    assert!(spent <= BUDGET * 1.05, "{spent}");
    assert!(spent >= BUDGET * 0.9, "{spent}");
    assert!(unheld > BUDGET * 2.0);
}

#[test]
#[ignore = "needs redis-server"]
fn a_threshold_of_a_shared_budget_is_told_once_by_one_replica() {
    let receiver = Upstream::ok();
    // 12 cents each
    let upstream = Upstream::always(answer_of(40_000, 0));
    let redis = Redis::start(&[]);
    let replicas = three(&redis);
    let key = created(&replicas[0], &["--budget", "$1/month"]);
    let servers: Vec<_> = replicas
        .iter()
        .map(|it| {
            let builder = it.builder(&upstream.url()).env("REPLICAS", 3);
            let builder = builder.env("LIMITS_WEBHOOK", receiver.url() + "/hook");
            builder.start()
        })
        .collect();
    servers.iter().for_each(|it| until(it, &key, PASSES));
    let id = key.strip_prefix("ap_").and_then(|it| it.get(..10)).unwrap();
    let index = format!("ap:{{key:{id}}}:b:*");
    for turn in 0..12 {
        let server = &servers[turn % servers.len()];
        if says_message(server, &key, 0).1 == "spend_limit" {
            break;
        }
        // each replica has looked before the next one spends
        thread::sleep(Duration::from_millis(400));
    }
    assert_ne!(redis.run(&["KEYS", &index]), ["*0"]);
    let thresholds = || -> BTreeMap<u64, usize> {
        let mut seen = BTreeMap::new();
        while let Some((_, body)) = receiver.request_within(Duration::from_millis(1500)) {
            let post: serde_json::Value = serde_json::from_slice(body.content()).unwrap();
            assert_eq!(post["event"], "budget_threshold");
            *seen.entry(post["threshold"].as_u64().unwrap()).or_default() += 1;
        }
        seen
    };
    let told = thresholds();
    assert!(told.contains_key(&50) && told.contains_key(&80), "{told:?}");
    assert!(told.values().all(|count| *count == 1), "{told:?}");
    // its end posts what waits
    for server in servers {
        server.signal("TERM");
        server.wait();
    }
    assert_eq!(thresholds(), BTreeMap::new());
}
