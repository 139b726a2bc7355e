//! Keys and changes over replicas, and a Redis that is not the right one, or lost what it had.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use super::replica::{PASSES, PEPPER, REVOKED, Replica, asks, until, upstream};
use crate::support::{Body, DEADLINE, ProxyBuilder, Upstream, assert_prompt, get, redis::Redis};

#[test]
#[ignore = "needs redis-server"]
fn a_change_on_one_replica_is_in_effect_on_the_other_within_a_second() {
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let servers = [&one, &other].map(|it| it.builder(&upstream.url()).start());
    let keys = [one.key("first"), other.key("second")];
    for key in &keys {
        for server in &servers {
            until(server, key, PASSES);
        }
    }
    one.says(&["keys", "revoke", "second", "--reason", "lost"]);
    for server in &servers {
        until(server, &keys[1], REVOKED);
        assert_eq!(asks(server, &keys[0]).0, 200);
    }
    // both wrote on what the other one left
    let listed = other.says(&["keys", "list"]);
    assert!(
        listed.contains("first") && listed.contains("second"),
        "{listed}"
    );
    let verified = one.says(&["audit", "verify"]);
    assert!(!verified.contains("broken"), "{verified}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_cut_on_one_replica_ends_what_runs_on_the_other() {
    let (redis, upstream) = (Redis::start(&[]), Upstream::bind());
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let key = one.key("first");
    let server = other.builder(&upstream.url()).start();
    let request = format!("GET /v1/files HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n\r\n");
    let (mut client, mut origin) = server.exchange(&upstream, request);
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    origin.send_chunk(b"one");
    client.read_response_head();
    client.read_chunk();
    // no server runs there: straight to the Redis
    one.says(&["keys", "revoke", "first", "--reason", "leaked", "--cut"]);
    let start = Instant::now();
    assert!(matches!(client.read_chunked(), Body::Cut(..)));
    assert_prompt(start, Duration::from_secs(1));
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_was_emptied_gets_its_keys_again_and_forgets_no_revocation() {
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let servers = [&one, &other].map(|it| it.builder(&upstream.url()).start());
    let keys = [one.key("first"), one.key("second")];
    one.says(&["keys", "revoke", "second", "--reason", "lost"]);
    for server in &servers {
        until(server, &keys[0], PASSES);
        until(server, &keys[1], REVOKED);
    }
    redis.run(&["FLUSHALL"]);
    for _ in 0..2 {
        for server in &servers {
            assert_eq!(asks(server, &keys[0]).0, 200);
            let answer = asks(server, &keys[1]);
            assert_eq!((answer.0, answer.1.as_str()), REVOKED);
        }
        let line = "the shared store had lost changes";
        servers.iter().for_each(|server| {
            server.wait_for_line(|said| said.contains(line) || said.contains("[Access]"));
        });
        let start = Instant::now();
        while redis.run(&["HLEN", "ap:{state}:keys"]) != [":2"] {
            assert!(start.elapsed() < DEADLINE);
            thread::sleep(Duration::from_millis(20));
        }
    }
    let third = Replica::of(&redis.url());
    let server = third.builder(&upstream.url()).start();
    until(&server, &keys[0], PASSES);
    until(&server, &keys[1], REVOKED);
    let key = other.key("third");
    servers
        .iter()
        .for_each(|server| until(server, &key, PASSES));
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_says_nothing_delays_no_request_and_no_revocation_is_lost() {
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let replica = Replica::of(&redis.url());
    let server = replica.builder(&upstream.url()).start();
    let key = replica.key("first");
    until(&server, &key, PASSES);
    redis.signal("STOP");
    let refused = replica.verb(&["keys", "revoke", "first", "--reason", "lost"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("does not answer in time"),
        "{refused:?}"
    );
    server.wait_for_line(|line| {
        line.contains("[Access] STATE_URL: ") && line.contains("traffic goes on")
    });
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(asks(&server, &key).0, 200);
        assert_prompt(start, Duration::from_millis(100));
    }
    assert_eq!(server.send(get("/readyz")).status(), 200);
    redis.signal("CONT");
    server.wait_for_line(|line| line.contains("the store is used again"));
    replica.says(&["keys", "revoke", "first", "--reason", "lost"]);
    until(&server, &key, REVOKED);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_cannot_keep_keys_ends_the_start_with_the_remedy() {
    let redis = Redis::start(&["--requirepass", "canary-of-the-redis"]);
    let login = Some(("default", "canary-of-the-redis"));
    let right = format!("redis://:canary-of-the-redis@127.0.0.1:{}", redis.port());
    let fails = |url: &str, pepper: &str, expected: &str| {
        let replica = Replica::of(url);
        let builder = replica.builder("http://127.0.0.1:9");
        let ended = builder.env("ACCESS_PEPPER", pepper).run();
        assert_eq!(ended.code, Some(1), "{url}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
    };
    fails(&redis.url(), PEPPER, "STATE_PASSWORD_FILE");
    fails(
        &right.replace("canary", "wrong-canary"),
        PEPPER,
        "refuses user or password",
    );
    fails(
        &right.replace("redis://", "redis-cluster://"),
        PEPPER,
        "another form",
    );
    redis.run_as(login, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    fails(&right, PEPPER, "noeviction");
    redis.run_as(login, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.run_as(login, &["SET", "ap:users:1", "x"]);
    fails(&right, PEPPER, "STATE_PREFIX");
    redis.run_as(login, &["DEL", "ap:users:1"]);
    Replica::of(&right).key("first");
    fails(
        &right,
        "another-pepper-of-these-tests-and-a-long-one",
        "ACCESS_PEPPER",
    );
    redis.run_as(login, &["HSET", "ap:{state}:meta", "schema", "99"]);
    fails(&right, PEPPER, "later release");
    let page = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = page.local_addr().unwrap().port();
    // for each connection what a web server answers to a command
    thread::spawn(move || {
        for mut stream in page.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    fails(&format!("redis://127.0.0.1:{port}"), PEPPER, "is no Redis");
}

#[test]
#[ignore = "needs redis-server"]
fn a_password_that_was_replaced_in_its_file_opens_the_next_connections() {
    let (redis, upstream) = (
        Redis::start(&["--requirepass", "first-password"]),
        upstream(),
    );
    let replica = Replica::of(&redis.url());
    let file = replica.directory.path().join("password");
    std::fs::write(&file, "first-password\n").unwrap();
    let builder = || {
        let builder = replica.builder(&upstream.url());
        builder.env("STATE_PASSWORD_FILE", file.display())
    };
    let server = builder().start();
    let create = |name: &str| {
        let verb = ["keys", "create", "--name", name, "--quiet"];
        let ended = verb.into_iter().fold(builder(), ProxyBuilder::arg).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.trim().to_owned()
    };
    until(&server, &create("first"), PASSES);
    let login = |password| Some(("default", password));
    let set = ["CONFIG", "SET", "requirepass", "second-password"];
    redis.run_as(login("first-password"), &set);
    std::fs::write(&file, "second-password\n").unwrap();
    let kill = ["CLIENT", "KILL", "TYPE", "normal"];
    redis.run_as(login("second-password"), &kill);
    until(&server, &create("second"), PASSES);
    let said = server.stderr();
    assert!(!said.contains("refuses user or password"), "{said}");
}

#[test]
#[ignore = "needs redis-server"]
fn keys_are_migrated_to_the_redis_and_back_once_and_never_over_others() {
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let (shared, alone) = (Replica::of(&redis.url()), Replica::of(""));
    let key = alone.key("first");
    alone.says(&["limits", "set", "org", "--budget", "$5/month"]);
    let migrate = |replica: &Replica, from: &str, to: &str, more: &[&str]| {
        let verb = ["keys", "migrate", "--from", from, "--to", to];
        let builder = replica
            .builder("http://127.0.0.1:9")
            .env("STATE_URL", redis.url());
        let arguments = verb.iter().chain(more);
        arguments
            .fold(builder, |it, argument| it.arg(argument))
            .run()
    };
    let dry = migrate(&alone, "sqlite", "redis", &["--dry-run"]);
    assert!(
        dry.stdout.contains("would migrate 1 key, 1 other subject,"),
        "{dry:?}"
    );
    assert_eq!(redis.run(&["EXISTS", "ap:{state}:keys"]), [":0"]);
    let done = migrate(&alone, "sqlite", "redis", &[]);
    assert!(
        done.stdout.contains("migrated 1 key, 1 other subject,"),
        "{done:?}"
    );
    let again = migrate(&alone, "sqlite", "redis", &[]);
    assert!(again.stdout.contains("nothing to migrate"), "{again:?}");
    let server = shared.builder(&upstream.url()).start();
    until(&server, &key, PASSES);
    shared.key("second");
    // the target has more now
    let refused = migrate(&alone, "sqlite", "redis", &[]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("other records"), "{refused:?}");
    let back = Replica::of("");
    let done = migrate(&back, "redis", "sqlite", &[]);
    assert!(
        done.stdout.contains("migrated 2 keys, 1 other subject,"),
        "{done:?}"
    );
    let listed = back.says(&["keys", "list"]);
    assert!(
        listed.contains("first") && listed.contains("second"),
        "{listed}"
    );
    let refused = migrate(&alone, "sqlite", "sqlite", &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn the_least_rights_in_the_manual_are_enough() {
    let manual = std::fs::read_to_string("docs/access.md").unwrap();
    let line = manual
        .lines()
        .find(|line| line.starts_with("ACL SETUSER proxy "))
        .expect("the manual has the line");
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let line = line.replace(">…", ">canary");
    redis.run(&line.split(' ').collect::<Vec<_>>());
    let url = format!("redis://proxy:canary@127.0.0.1:{}", redis.port());
    let (one, other) = (Replica::of(&url), Replica::of(&url));
    let server = other.builder(&upstream.url()).start();
    let key = one.key("first");
    until(&server, &key, PASSES);
    one.says(&["keys", "revoke", "first", "--reason", "lost"]);
    until(&server, &key, REVOKED);
    one.says(&["audit", "verify"]);
    one.says(&["limits", "verify"]);
    let said = server.stderr();
    assert!(!said.contains("STATE_URL"), "{said}");
    let denied = redis.run(&["ACL", "LOG", "0"]);
    assert_eq!(denied, ["*0"], "{denied:?}");
    // of the hints, which wait for a session that moves
    let of_hints: [&[&str]; 2] = [
        &["XADD", "ap:{fleet}:test", "*", "a", "b"],
        &["XREAD", "COUNT", "1", "STREAMS", "ap:{fleet}:test", "0"],
    ];
    for command in of_hints {
        let said = redis.run_as(Some(("proxy", "canary")), command);
        assert!(!said[0].starts_with('-'), "{command:?} {said:?}");
    }
    let denied = redis.run_as(Some(("proxy", "canary")), &["GET", "app:of-others"]);
    assert!(denied[0].starts_with("-NOPERM"), "{denied:?}");
}

#[test]
fn faults_of_the_url_and_its_company_are_told_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "canary-of-the-file\n").unwrap();
    let fails = |variables: &[(&str, &str)], expected: &[&str]| {
        let builder = ProxyBuilder::new()
            .env("DATA_DIR", directory.path().display())
            .arg("check");
        let variables = variables.iter();
        let ended = variables
            .fold(builder, |it, (name, value)| it.env(name, value))
            .run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let said = ended.stdout + &ended.stderr;
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(!said.contains("canary"), "{said}");
    };
    for url in [
        "http://h",
        "redis://u:canary@h:x",
        "redis://a,b",
        "redis-sentinel://a:1",
    ] {
        fails(
            &[("STATE_URL", url)],
            &["STATE_URL", "redis-sentinel://", "redis-cluster://"],
        );
    }
    let url = ("STATE_URL", "redis://u:canary@h");
    let file = password.display().to_string();
    fails(
        &[url, ("STATE_PASSWORD_FILE", &file)],
        &["has a password, too"],
    );
    fails(&[url, ("STATE_CA_FILE", &file)], &["rediss"]);
    let tls = ("STATE_URL", "rediss://h");
    fails(&[tls, ("STATE_CA_FILE", &file)], &["no certificate in PEM"]);
    fails(
        &[tls, ("STATE_KEY_FILE", &file)],
        &["without STATE_CERT_FILE"],
    );
    fails(&[tls, ("STATE_PREFIX", "a:b")], &["STATE_PREFIX"]);
    fails(&[tls, ("REPLICAS", "0")], &["REPLICAS"]);
    fails(&[tls, ("DATA_DIR", "")], &["without DATA_DIR"]);
}
