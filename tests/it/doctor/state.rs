//! The shared store: a real Redis, which is not on every machine.

use std::net::TcpListener;

use super::{assert_check, check, doctor, report, upstream};
use crate::support::{ProxyBuilder, redis::Redis};

fn shared(builder: ProxyBuilder, url: &str) -> ProxyBuilder {
    builder
        .env("STATE_URL", url)
        .env("DATA_DIR", "data")
        .env("ACCESS_PEPPER", "the-pepper-of-all-replicas-of-the-tests")
}

#[test]
#[ignore = "needs redis-server"]
fn a_store_is_looked_at_and_each_fault_of_it_is_found() {
    let upstream = upstream(|_, _| None);
    let redis = Redis::start(&[]);
    let (found, ended) = report(shared(doctor(upstream.url()), &redis.url()));
    for id in ["servers", "scripts", "clock"] {
        assert_check(&found, id, "ok", "");
    }
    assert_check(&found, "replicas", "skip", "");
    assert_eq!(ended.code, Some(0), "{found:#}");
    // a replica that runs is heard, and one of another version is told
    let beat = r#"{"name":"a","version":"0.0.1","config":"x"}"#;
    let other = r#"{"name":"b","version":"0.0.2","config":"x"}"#;
    redis.run(&["HSET", "ap:{fleet}:beats", "a", beat, "b", other]);
    let (found, _) = report(shared(doctor(upstream.url()), &redis.url()));
    assert_check(&found, "replicas", "warn", "one version");
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (found, ended) = report(shared(doctor(upstream.url()), &redis.url()));
    assert_check(&found, "servers", "fail", "maxmemory-policy");
    assert_eq!(ended.code, Some(1));
    let secured = Redis::start(&["--requirepass", "canary-password"]);
    let url = format!("redis://:canary-wrong@127.0.0.1:{}", secured.port());
    let (found, _) = report(shared(doctor(upstream.url()), &url));
    assert_check(&found, "servers", "fail", "STATE_PASSWORD_FILE");
}

#[test]
fn a_store_that_is_away_is_found() {
    let upstream = upstream(|_, _| None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("redis://:canary@127.0.0.1:{port}");
    let (found, ended) = report(shared(doctor(upstream.url()), &url));
    assert_check(&found, "servers", "fail", "STATE_URL");
    assert_eq!(check(&found, "models")["status"], "ok");
    assert_eq!(ended.code, Some(1));
}
