use std::{cell::Cell, io, net::SocketAddr};

use hickory_resolver::{
    config::NameServerConfig,
    proto::{
        op::{Message, ResponseCode},
        rr::{RData, Record},
    },
};
use tokio::{net::UdpSocket, time::Instant};

use super::*;

/// The answers of a test's name server for one family.
#[derive(Clone, Copy)]
pub(in crate::upstream::dial) enum Dns {
    Has(&'static [&'static str]),
    Code(ResponseCode),
    Silent,
}
use Dns::{Code, Has, Silent};

/// A name server on loopback; its address and the number of queries so far.
pub(in crate::upstream::dial) async fn name_server(
    ipv4: Dns,
    ipv6: Dns,
) -> (SocketAddr, Rc<Cell<usize>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let queries = Rc::new(Cell::new(0));
    let count = Rc::clone(&queries);
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            count.set(count.get() + 1);
            let question = query.queries[0].clone();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            answer.add_query(question.clone());
            match if question.query_type() == RecordType::A {
                ipv4
            } else {
                ipv6
            } {
                Has(addresses) => answer.add_answers(addresses.iter().map(|address| {
                    let data = RData::from(address.parse::<IpAddr>().unwrap());
                    Record::from_rdata(question.name().clone(), 60, data)
                })),
                Code(code) => {
                    answer.metadata.response_code = code;
                    &mut answer
                }
                Silent => continue,
            };
            socket
                .send_to(&answer.to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
    });
    (address, queries)
}

/// Names that know this hosts file and this name server, and nothing of the machine.
pub(in crate::upstream::dial) fn names(hosts: &Path, server: Option<SocketAddr>) -> HostResolver {
    let read = move || {
        let Some(server) = server else {
            return Err(NetError::from(io::Error::from(io::ErrorKind::NotFound)));
        };
        let mut config = NameServerConfig::udp(server.ip());
        config.connections[0].port = server.port();
        let mut options = ResolverOpts::default();
        options.timeout = Duration::from_millis(500);
        options.attempts = 0;
        Ok((
            ResolverConfig::from_parts(None, vec![], vec![config]),
            options,
        ))
    };
    HostResolver::new(hosts, "/nonexistent", Box::new(read))
}

pub(in crate::upstream::dial) async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

async fn ask(names: &HostResolver, host: &str) -> Result<String, ResolveError> {
    let addresses = names.resolve(host).await?;
    Ok(addresses
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(" "))
}

fn no_file() -> &'static Path {
    Path::new("/nonexistent")
}

#[tokio::test]
async fn without_name_servers_literals_hosts_and_localhost_still_resolve() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let lines = "::7 two\n10.0.0.7 two ONE.test # a comment\nnonsense line\n10.0.0.8 my_service_\n";
    fs::write(&hosts, lines).unwrap();
    let names = names(&hosts, None);
    let table = [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("one.test", "10.0.0.7"),
        ("One.Test.", "10.0.0.7"),
        ("two", "10.0.0.7 ::7"),
        ("my_service_", "10.0.0.8"),
        ("localhost", "127.0.0.1 ::1"),
        ("api.LocalHost.", "127.0.0.1 ::1"),
    ];
    for (host, addresses) in table {
        assert_eq!(ask(&names, host).await.unwrap(), addresses, "{host}");
    }
    let error = ask(&names, "api.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoNameServer { .. }));
    assert!(error.to_string().contains("/etc/resolv.conf"), "{error}");
}

#[tokio::test]
async fn the_hosts_file_may_redefine_localhost() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.9 localhost\n").unwrap();
    assert_eq!(
        ask(&names(&hosts, None), "localhost").await.unwrap(),
        "127.0.0.9"
    );
}

#[tokio::test]
async fn a_failure_to_find_name_servers_is_not_kept() {
    local(async {
        let (server, _) = name_server(Has(&["10.0.0.1"]), Has(&[])).await;
        let ready = Rc::new(Cell::new(false));
        let (limits, inner) = (Rc::clone(&ready), names(no_file(), Some(server)));
        let names = HostResolver::new(
            no_file(),
            no_file(),
            Box::new(move || match limits.get() {
                true => (inner.read_name_servers)(),
                false => Err(NetError::from("not yet")),
            }),
        );
        assert!(matches!(
            ask(&names, "api.test").await,
            Err(ResolveError::NoNameServer { .. })
        ));
        ready.set(true);
        assert_eq!(ask(&names, "api.test").await.unwrap(), "10.0.0.1");
    })
    .await;
}

#[tokio::test]
async fn dns_gives_both_families_once_per_ttl() {
    local(async {
        let (server, queries) =
            name_server(Has(&["10.0.0.1", "10.0.0.2"]), Has(&["fd00::1"])).await;
        let names = names(no_file(), Some(server));
        for _ in 0..3 {
            assert_eq!(
                ask(&names, "api.test").await.unwrap(),
                "fd00::1 10.0.0.1 10.0.0.2"
            );
        }
        assert_eq!(queries.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn one_family_is_enough() {
    local(async {
        let table = [
            (Has(&["10.0.0.1"]), Has(&[]), "10.0.0.1"),
            (Has(&[]), Has(&["fd00::1"]), "fd00::1"),
            (Has(&["10.0.0.1"]), Code(ResponseCode::ServFail), "10.0.0.1"),
        ];
        for (ipv4, ipv6, expected) in table {
            let (server, _) = name_server(ipv4, ipv6).await;
            assert_eq!(
                ask(&names(no_file(), Some(server)), "api.test")
                    .await
                    .unwrap(),
                expected
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_drops_aaaa_queries_costs_50_ms() {
    local(async {
        let (server, _) = name_server(Has(&["10.0.0.1"]), Silent).await;
        let names = names(no_file(), Some(server));
        let start = Instant::now();
        assert_eq!(ask(&names, "api.test").await.unwrap(), "10.0.0.1");
        assert!(
            start.elapsed() < Duration::from_millis(400),
            "{:?}",
            start.elapsed()
        );
    })
    .await;
}

#[tokio::test]
async fn failures_are_told_apart() {
    local(async {
        let fail = |ipv4, ipv6| async move {
            let (server, _) = name_server(ipv4, ipv6).await;
            ask(&names(no_file(), Some(server)), "api.test")
                .await
                .unwrap_err()
        };
        let missing = Code(ResponseCode::NXDomain);
        assert!(matches!(
            fail(missing, missing).await,
            ResolveError::NoAddress { .. }
        ));
        assert!(matches!(
            fail(Has(&[]), Has(&[])).await,
            ResolveError::NoAddress { .. }
        ));
        assert!(matches!(
            fail(Silent, Has(&[])).await,
            ResolveError::Timeout
        ));
        let broken = Code(ResponseCode::ServFail);
        assert!(matches!(
            fail(broken, broken).await,
            ResolveError::Failed { .. }
        ));
        let error = ask(&names(no_file(), None), "not..a name")
            .await
            .unwrap_err();
        assert!(matches!(error, ResolveError::NotAName { .. }), "{error}");
    })
    .await;
}
