//! A Redis that speaks TLS, and the faults of it.

use std::{fs, net::TcpListener, path::Path};

use super::replica::{PASSES, Replica, until, upstream};
use crate::support::{ProxyBuilder, redis::Redis};

/// An authority with what it signed, as files in a directory.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = named("authority");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        Self { issuer, pem }
    }

    /// Writes a certificate for a name, and its key.
    fn sign(&self, directory: &Path, name: &str, of: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec![of.to_owned()]).unwrap();
        leaf.distinguished_name = named(name);
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        fs::write(directory.join(format!("{name}.pem")), leaf.pem()).unwrap();
        let path = directory.join(format!("{name}.key"));
        fs::write(path, key.serialize_pem()).unwrap();
    }
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut named = rcgen::DistinguishedName::new();
    named.push(rcgen::DnType::CommonName, name);
    named
}

#[test]
#[ignore = "needs redis-server"]
fn tls_needs_the_authority_and_the_certificate_of_the_client_and_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (ours, other) = (Authority::new(), Authority::new());
    fs::write(file("ca.pem"), &ours.pem).unwrap();
    fs::write(file("other.pem"), &other.pem).unwrap();
    ours.sign(directory.path(), "server", "127.0.0.1");
    ours.sign(directory.path(), "client", "proxy.example");
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let redis = Redis::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "yes",
        "--requirepass",
        "canary",
    ]);
    let replica = Replica::of(&format!("rediss://:canary@127.0.0.1:{port}"));
    let upstream = upstream();
    let trusting = |builder: ProxyBuilder| builder.env("STATE_CA_FILE", file("ca.pem"));
    let identified = |builder: ProxyBuilder| {
        let builder = builder.env("STATE_CERT_FILE", file("client.pem"));
        builder.env("STATE_KEY_FILE", file("client.key"))
    };
    let server = identified(trusting(replica.builder(&upstream.url()))).start();
    let created = identified(trusting(replica.builder(&upstream.url())));
    let created = ["keys", "create", "--name", "first", "--quiet"]
        .into_iter()
        .fold(created, ProxyBuilder::arg)
        .run();
    assert_eq!(created.code, Some(0), "{created:?}");
    until(&server, created.stdout.trim(), PASSES);

    let fails = |builder: ProxyBuilder, expected: &[&str]| {
        let ended = builder.run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for expected in expected {
            assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
        }
    };
    let fresh = |url: String| Replica::of(&url).builder("http://127.0.0.1:9");
    let of_tls = || fresh(format!("rediss://:canary@127.0.0.1:{port}"));
    let unknown = "fails in the handshake of TLS (";
    fails(
        identified(of_tls().env("STATE_CA_FILE", file("other.pem"))),
        &[unknown, "invalid peer certificate", "set STATE_CA_FILE"],
    );
    fails(trusting(of_tls()), &[unknown, "STATE_CERT_FILE"]);
    let of_clear = fresh(format!("rediss://:canary@127.0.0.1:{}", redis.port()));
    fails(
        identified(trusting(of_clear)),
        &["does not speak TLS;", "redis instead of rediss"],
    );
    fails(
        fresh(format!("redis://:canary@127.0.0.1:{port}")),
        &["speaks TLS alone;", "rediss instead of redis"],
    );
    // nothing is said before the first command without a password
    redis.run_as(
        Some(("default", "canary")),
        &["CONFIG", "SET", "requirepass", ""],
    );
    fails(
        fresh(format!("redis://127.0.0.1:{port}")),
        &["speaks TLS alone;", "rediss instead of redis"],
    );
    let of_clear = fresh(format!("rediss://127.0.0.1:{}", redis.port()));
    fails(
        identified(trusting(of_clear)),
        &["does not speak TLS;", "redis instead of rediss"],
    );
}
