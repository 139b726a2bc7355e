use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use super::*;
use crate::state::redis::{
    command::LuaScript,
    testing::{TestRedis, free_port, settings},
};

static ADD: LuaScript =
    LuaScript::new("redis.call('SET', KEYS[1], ARGV[1]); return ARGV[1] .. ':' .. KEYS[1]");

fn connection(server: &TestRedis) -> RedisConnection {
    RedisConnection::new(&server.settings())
}

fn kind<T: std::fmt::Debug>(result: Result<T, StateError>) -> RedisFaultKind {
    match result {
        Err(StateError::Redis(fault)) => fault.kind,
        other => panic!("{other:?}"),
    }
}

fn ping() -> Command {
    Command::keyless("PING")
}

/// A server that answers everything with a text.
fn answering(text: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                    if text.is_empty() || stream.write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn what_is_no_redis_is_told_apart() {
    let page = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (text, expected) in [
        (page, RedisFaultKind::NotRedis),
        (
            "-NOAUTH Authentication required.\r\n",
            RedisFaultKind::Refused,
        ),
        ("-NOPERM no permission\r\n", RedisFaultKind::NotPermitted),
        ("-READONLY a replica\r\n", RedisFaultKind::ReadOnly),
        ("-MOVED 1 127.0.0.1:1\r\n", RedisFaultKind::WrongForm),
        ("-OOM command not allowed\r\n", RedisFaultKind::OutOfMemory),
        ("", RedisFaultKind::Unreachable),
    ] {
        let port = answering(text);
        let mut connection = RedisConnection::new(&settings(&format!("redis://127.0.0.1:{port}")));
        let answer = connection.query::<String>(&ping());
        assert_eq!(kind(answer), expected, "{text}");
    }
}

#[test]
fn a_failure_is_told_at_once_until_a_pause_is_over() {
    let port = free_port();
    let mut connection = RedisConnection::new(&settings(&format!("redis://127.0.0.1:{port}")));
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::Unreachable
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut pause = Pause::default();
    let fault = connection.no_node();
    for expected in [50, 100, 200, 400, 800, 1000, 1000] {
        pause.failed(fault.clone());
        let wait = pause.until.unwrap() - Instant::now();
        let expected = Duration::from_millis(expected);
        assert!(
            wait <= expected && wait > expected / 2,
            "{wait:?} {expected:?}"
        );
        assert!(pause.check(Instant::now()).is_err());
        assert!(pause.check(Instant::now() + expected).is_ok());
    }
    // in the pause nothing is tried
    connection.links.values_mut().for_each(|link| {
        link.pause.until = Some(Instant::now() + Duration::from_secs(60));
    });
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::Unreachable
    );
    assert!(listener.accept().is_err(), "no connection was made");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut connection = RedisConnection::new(&settings(&format!("redis://127.0.0.1:{port}")));
    connection.patience = Duration::from_millis(30);
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::TimedOut
    );
    assert!(
        connection
            .links
            .values()
            .all(|link| link.connection.is_none())
    );
}

#[test]
#[ignore = "needs redis-server"]
fn commands_are_answered_in_order_and_a_missing_script_is_given() {
    let server = TestRedis::start(&[]);
    let mut connection = connection(&server);
    for _ in 0..2 {
        let commands = [
            Command::new("SET", "a").arg(1),
            ADD.call(&["b"]).arg("x"),
            Command::new("HGETALL", "a"),
            ADD.call(&["c"]).arg("y"),
            Command::new("GET", "b"),
        ];
        let answers = connection.send(&commands).unwrap();
        assert_eq!(answers[0], Ok(Value::Okay));
        assert_eq!(answers[1], Ok(Value::BulkString(b"x:b".to_vec())));
        let fault = answers[2].clone().unwrap_err();
        assert!(fault.detail.starts_with("WRONGTYPE"), "{fault}");
        assert_eq!(answers[3], Ok(Value::BulkString(b"y:c".to_vec())));
        server.run(&["SCRIPT", "FLUSH"]);
    }
    assert_eq!(
        connection
            .query::<String>(&Command::new("GET", "c"))
            .unwrap(),
        "y"
    );
}

#[test]
#[ignore = "needs redis-server"]
fn a_server_that_was_started_again_is_used_at_once() {
    let server = TestRedis::start(&[]);
    let mut connection = connection(&server);
    assert_eq!(connection.query::<String>(&ping()).unwrap(), "PONG");
    let port = server.kill();
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::Unreachable
    );
    let server = TestRedis::start_on(port, &[]).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while connection.query::<String>(&ping()).is_err() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    // closed by the server between two calls: the call itself opens another one
    server.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(connection.query::<String>(&ping()).unwrap(), "PONG");
}

#[test]
#[ignore = "needs redis-server"]
fn user_and_password_are_checked() {
    let server = TestRedis::start(&["--requirepass", "canary"]);
    let place = format!("127.0.0.1:{}", server.port);
    for (url, is_right) in [
        (format!("redis://:canary@{place}"), true),
        (format!("redis://default:canary@{place}/3"), true),
        (format!("redis://{place}"), false),
        (format!("redis://:wrong-canary@{place}"), false),
        (format!("redis://u:canary@{place}"), false),
    ] {
        let mut connection = RedisConnection::new(&settings(&url));
        let answer = connection.query::<String>(&ping());
        match is_right {
            true => assert_eq!(answer.unwrap(), "PONG"),
            false => {
                let said = answer.as_ref().unwrap_err().to_string();
                assert!(!said.contains("canary"), "{said}");
                assert_eq!(kind(answer), RedisFaultKind::Refused, "{url}");
            }
        }
    }
    let mut connection = RedisConnection::new(&settings(&format!("redis://:canary@{place}/99")));
    let said = connection.query::<String>(&ping()).unwrap_err().to_string();
    assert!(said.contains("index is out of range"), "{said}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_cluster_is_followed() {
    let servers: Vec<_> = (0..2)
        .map(|_| TestRedis::start(&["--cluster-enabled", "yes"]))
        .collect();
    let (one, other) = (&servers[0], &servers[1]);
    one.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    other.run(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    one.run(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    let end = Instant::now() + Duration::from_secs(30);
    let is_whole = |server: &TestRedis| {
        let info: String = redis::from_redis_value(server.run(&["CLUSTER", "INFO"])).unwrap();
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
    };
    while !(is_whole(one) && is_whole(other)) {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(10));
    }
    let mut connection = RedisConnection::new(&settings(&format!(
        "redis-cluster://127.0.0.1:{}",
        other.port
    )));
    // foo is in the upper half, bar in the lower one
    let all = |value: &str| {
        ["{foo}:1", "{bar}:1", "{foo}:2", "{bar}:2"].map(|key| ADD.call(&[key]).arg(value))
    };
    let answers = connection.send(&all("x")).unwrap();
    assert_eq!(answers[1], Ok(Value::BulkString(b"x:{bar}:1".to_vec())));
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(connection.primaries().unwrap().len(), 2);
    // the slot of bar (5061) moves to the other node: first ASK, then MOVED
    let id = |server: &TestRedis| -> String {
        redis::from_redis_value(server.run(&["CLUSTER", "MYID"])).unwrap()
    };
    other.run(&["CLUSTER", "SETSLOT", "5061", "IMPORTING", &id(one)]);
    one.run(&["CLUSTER", "SETSLOT", "5061", "MIGRATING", &id(other)]);
    let answers = connection
        .send(&[ADD.call(&["{bar}:3"]).arg("ask")])
        .unwrap();
    assert_eq!(answers, [Ok(Value::BulkString(b"ask:{bar}:3".to_vec()))]);
    let port = other.port.to_string();
    for key in ["{bar}:1", "{bar}:2"] {
        one.run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    }
    for server in [other, one] {
        server.run(&["CLUSTER", "SETSLOT", "5061", "NODE", &id(other)]);
    }
    let answers = connection.send(&all("moved")).unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let read = connection.query::<String>(&Command::new("GET", "{bar}:3"));
    assert_eq!(read.unwrap(), "ask");
    // a node that is gone takes its own keys alone away
    let lower = |answers: &[Answer]| [answers[1].is_ok(), answers[3].is_ok()];
    let mut servers = servers;
    servers.pop().unwrap().kill();
    match connection.send(&all("y")) {
        Ok(answers) => assert_eq!(lower(&answers), [false, false]),
        // the node that is left may have noticed already
        Err(error) => assert!(error.to_string().contains("STATE_URL"), "{error}"),
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_single_form_is_told_from_a_cluster() {
    let cluster = TestRedis::start(&["--cluster-enabled", "yes"]);
    let single = TestRedis::start(&[]);
    let url = format!("redis-cluster://127.0.0.1:{}", single.port);
    let mut connection = RedisConnection::new(&settings(&url));
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::WrongForm
    );
    let url = format!("redis-sentinel://127.0.0.1:{}/m", single.port);
    let mut connection = RedisConnection::new(&settings(&url));
    assert_eq!(
        kind(connection.query::<String>(&ping())),
        RedisFaultKind::WrongForm
    );
    drop(cluster);
}
