//! Many clients at once on one budget, and a process that is killed: what is spent, and what is counted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::site::{self, Site};
use crate::support::{Body, Head, Proxy, Response, Upstream};

const SONNET: &str = "claude-sonnet-4-5";
const CLIENTS: usize = 200;
/// 10,000 × 3 + 1,000 × 15 millionths of a dollar.
const COST: f64 = 0.045;

/// A request of about 10,000 tokens, as Claude Code sends it.
fn ask(key: &str) -> String {
    let text = "word ".repeat(8_000);
    let body = json!({"model": SONNET, "max_tokens": 32_000,
        "messages": [{"role": "user", "content": text}]});
    site::keyed(key, "POST", "/v1/messages", "", &body.to_string())
}

fn answering(count: &Arc<AtomicU64>, time: Duration) -> crate::support::Answering {
    let count = Arc::clone(count);
    Upstream::answering(move |_: &Head, _: &Body| {
        thread::sleep(time);
        count.fetch_add(1, SeqCst);
        site::answer(SONNET, 10_000, 1_000).into()
    })
}

/// Asks until the budget is spent. Gives the number of answers.
fn until_spent(proxy: &Proxy, key: &str) -> u64 {
    let (mut client, mut answers) = (proxy.connect(), 0);
    loop {
        if client.try_send(ask(key)).is_err() {
            client = proxy.connect();
            continue;
        }
        let answer: Response = client.read_response("POST");
        match (answer.status(), answer.head.one("x-proxy-error")) {
            (200, _) => answers += 1,
            (429, Some("spend_limit")) => return answers,
            // the rest is held for requests that run
            (429, Some("spend_reserved")) => {
                thread::sleep(Duration::from_millis(20));
                client = proxy.connect();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_hundred_clients_at_once_stay_within_a_budget() {
    let count = Arc::new(AtomicU64::new(0));
    let upstream = answering(&count, Duration::from_millis(300));
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "2/month"]);
    let proxy = site.proxy(&upstream).start();
    let answers: u64 = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| until_spent(&proxy, &key)))
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(answers, count.load(SeqCst));
    let spent = answers as f64 * COST;
    // who only looks before he sends lets all of them pass while none has been counted
    let unheld = CLIENTS as f64 * COST;
    println!(
        "{CLIENTS} clients, $2: spent ${spent:.3} ({answers} answers); check-then-charge: ${unheld:.2} at least"
    );
    assert!(spent <= 2.0 * 1.05, "${spent}");
    assert!(spent >= 2.0 - COST, "${spent}: the budget was not used up");
}

/// Billionths that the process counts for a key.
fn counted(proxy: &Proxy, key: &str) -> f64 {
    let answer = proxy.send(site::keyed(key, "GET", "/api/oauth/usage", "", ""));
    let content: Value = serde_json::from_slice(answer.content()).unwrap();
    content["extra_usage"]["used_credits"].as_f64().unwrap()
}

/// Waits for something, however busy the machine is.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < crate::support::DEADLINE, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Asks until the proxy has gone. Answers are not looked at: the last one may be cut off.
fn until_gone(address: SocketAddr, has_gone: &AtomicBool, ask: &str) {
    while !has_gone.load(SeqCst)
        && let Ok(mut stream) = TcpStream::connect(address)
    {
        let sent = stream.write_all(ask.as_bytes());
        let _ = sent.and_then(|()| stream.read(&mut [0; 4096]));
    }
}

#[test]
fn what_was_spent_is_counted_after_a_kill_under_load() {
    const ROUNDS: usize = 4;
    const AT_ONCE: usize = 8;
    // of a first request that nothing is known of
    const ESTIMATE: f64 = 20.0;
    // of the budget: far more than is spent during one write to the disk
    const STEP: f64 = 10_000.0;
    let (begun, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let upstream = {
        let (begun, count) = (Arc::clone(&begun), Arc::clone(&count));
        Upstream::answering(move |_: &Head, _: &Body| {
            begun.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(20));
            count.fetch_add(1, SeqCst);
            site::answer(SONNET, 10_000, 1_000).into()
        })
    };
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "10000/month"]);
    let (mut before, mut kills) = (0.0, 0.0);
    for round in 0..=ROUNDS {
        let proxy = site.proxy(&upstream).start();
        let after_start = counted(&proxy, &key);
        let really = count.load(SeqCst) as f64 * COST * 100.0;
        assert!(
            after_start >= really.floor(),
            "{round}: {after_start} of {really}"
        );
        assert!(
            after_start >= before,
            "{round}: {after_start} after {before}"
        );
        let bound = really + kills * (AT_ONCE as f64 * ESTIMATE + STEP);
        assert!(after_start <= bound, "{round}: {after_start} of {bound}");
        before = after_start;
        if round == ROUNDS {
            break;
        }
        let enough = count.load(SeqCst) + 2 * AT_ONCE as u64;
        let (address, has_gone, ask) = (proxy.addr(), AtomicBool::new(false), ask(&key));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| until_gone(address, &has_gone, &ask));
            }
            until("requests", || count.load(SeqCst) >= enough);
            until("the first write", || site.has_open_spends());
            proxy.kill();
            has_gone.store(true, SeqCst);
        });
        kills += 1.0;
        until("the upstream's end", || {
            begun.load(SeqCst) == count.load(SeqCst)
        });
    }
}

#[test]
fn the_model_that_answers_is_what_a_budget_pays() {
    let sse = |kind: &str, content: Value| format!("event: {kind}\ndata: {content}\n\n");
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": SONNET, "content": [],
        "usage": {"input_tokens": 10_000, "output_tokens": 1}}});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 1_000}});
    let content = sse("message_start", start)
        + &sse("message_delta", delta)
        + &sse("message_stop", json!({"type": "message_stop"}));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    );
    let upstream = Upstream::answering(move |_: &Head, _: &Body| answer.clone().into());
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "10/month"]);
    let proxy = site.proxy(&upstream).start();
    let body = json!({"model": "claude-opus-4-5", "max_tokens": 1000, "stream": true,
        "messages": [{"role": "user", "content": "x"}]});
    let ask = site::keyed(&key, "POST", "/v1/messages", "", &body.to_string());
    assert_eq!(proxy.send(ask).status(), 200);
    // whole cents
    assert_eq!(counted(&proxy, &key), (COST * 100.0).floor());
}

#[test]
fn two_servers_on_one_directory_stay_within_a_budget() {
    let count = Arc::new(AtomicU64::new(0));
    let upstream = answering(&count, Duration::from_millis(1));
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "2/month"]);
    let old = site.proxy(&upstream).start();
    let new = site.proxy(&upstream).start();
    for _ in 0..20 {
        assert_eq!(old.send(ask(&key)).status(), 200);
    }
    until("the new one sees the old one's spend", || {
        counted(&new, &key) >= (20.0 * COST * 100.0).floor()
    });
    let answers = 20 + until_spent(&new, &key);
    let spent = answers as f64 * COST;
    assert!(spent <= 2.0 * 1.03, "${spent}");
    assert!(
        spent >= 2.0 * 0.99 - COST,
        "${spent}: the budget was not used up"
    );
    let all = (spent * 100.0).floor() - 1.0;
    until("the old one sees the new one's spend", || {
        counted(&old, &key) >= all
    });
    let refused = old.send(ask(&key));
    assert_eq!(refused.head.one("x-proxy-error"), Some("spend_limit"));
    assert_eq!(count.load(SeqCst), answers, "the old one gave nothing more");
    // what the new one had reserved is free once it has ended
    new.signal("TERM");
    assert_eq!(new.wait().code, Some(0));
    until("exact sums", || {
        (counted(&old, &key) - spent * 100.0).abs() < 1.0
    });
}

#[test]
fn a_revocation_holds_under_load() {
    let count = Arc::new(AtomicU64::new(0));
    let upstream = answering(&count, Duration::from_millis(1));
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).env("WORKERS", "4").start();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let begin = Instant::now();
                    loop {
                        let answer = proxy.send(ask(&key));
                        if answer.status() == 401 {
                            return;
                        }
                        assert_eq!(answer.status(), 200);
                        assert!(begin.elapsed() < crate::support::DEADLINE, "never revoked");
                    }
                })
            })
            .collect();
        while count.load(SeqCst) < 100 {
            thread::sleep(Duration::from_millis(5));
        }
        site.done(&["keys", "revoke", site::id(&key), "--reason", "leaked"]);
        // the verb has ended: no request that begins now passes
        let answer = proxy.send(ask(&key));
        assert_eq!(answer.status(), 401);
        clients.into_iter().for_each(|it| it.join().unwrap());
    });
}
