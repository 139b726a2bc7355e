//! From a host to its addresses.
//!
//! A static binary cannot ask NSS, so this is the part of it that counts: IP literals, the hosts
//! file, `localhost` (RFC 6761 §6.3), and DNS as `/etc/resolv.conf` says, by hickory on the
//! worker's own event loop with a cache that follows TTLs. Only DNS needs `resolv.conf`: without
//! one (a `scratch` image) the others work. mDNS and LDAP are not asked. It sets no deadline; that
//! is the dialer's.

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    rc::Rc,
    str::FromStr,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        ProtoError,
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use super::watched::Watched;

/// The names of one worker. Nothing is read before the first name is asked for.
pub(super) struct Names {
    hosts: Watched<Rc<Hosts>>,
    resolver: Watched<TokioResolver>,
    read_name_servers: ReadNameServers,
}

/// Reads the system's name servers; another function in tests.
type ReadNameServers = Box<dyn Fn() -> Result<(ResolverConfig, ResolverOpts), NetError>>;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// It cannot be a host name.
    #[error("`{host}` is not a host name")]
    NotAName {
        host: String,
        #[source]
        source: ProtoError,
    },
    /// Neither we nor anybody else knows where to ask.
    #[error("no name server to ask about `{host}`: cannot use {RESOLV_CONF}")]
    NoNameServer {
        host: String,
        #[source]
        source: NetError,
    },
    /// The name does not exist or has no address.
    #[error("`{host}` has no address in DNS")]
    NoAddress { host: String },
    /// No name server answered in time.
    #[error("no name server answered")]
    Timeout,
    /// The name servers could not answer.
    #[error("the name servers failed to resolve `{host}`")]
    Failed {
        host: String,
        #[source]
        source: NetError,
    },
}

impl Names {
    /// The names as this machine knows them.
    pub(super) fn system() -> Self {
        Self::new(HOSTS, RESOLV_CONF, Box::new(read_system_conf))
    }

    fn new(hosts: impl AsRef<Path>, servers: impl AsRef<Path>, read: ReadNameServers) -> Self {
        Self {
            hosts: Watched::new(hosts.as_ref()),
            resolver: Watched::new(servers.as_ref()),
            read_name_servers: read,
        }
    }

    /// The addresses of `host`, at least one, the preferred one first.
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = IpAddr::from_str(host) {
            return Ok(vec![address]);
        }
        let name = Name::from_str(host).map_err(|source| ResolveError::NotAName {
            host: host.to_owned(),
            source,
        })?;
        let addresses = self.in_hosts_file(&name);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = self
            .resolver
            .current(|_| self.resolver())
            .map_err(|source| ResolveError::NoNameServer {
                host: host.to_owned(),
                source,
            })?;
        in_dns(&resolver, host, name).await
    }

    /// The hosts file speaks of this machine and its neighbours, where servers listen on IPv4 more
    /// often than not: those addresses go first. hickory would ask DNS for the family that the
    /// file does not have, and wait for it.
    fn in_hosts_file(&self, name: &Name) -> Vec<IpAddr> {
        let Ok(hosts) = self
            .hosts
            .current(|path| Ok::<_, Infallible>(Rc::new(read_hosts(path))));
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
            .flat_map(|found| {
                found
                    .answers()
                    .iter()
                    .filter_map(|r| r.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let (config, mut options) = (self.read_name_servers)()?;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = CACHE_SIZE;
        options.negative_max_ttl = Some(NEGATIVE_MAX_TTL);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
    }
}

/// Asks for both families at a time. When one has brought addresses, the other has 50 ms to follow
/// (the Resolution Delay of RFC 8305 §3, here for either family): a name server that drops AAAA
/// queries must not hold up every connection. Each family walks the search list by itself.
async fn in_dns(
    resolver: &TokioResolver,
    host: &str,
    name: Name,
) -> Result<Vec<IpAddr>, ResolveError> {
    let mut lookups: FuturesUnordered<_> = [RecordType::AAAA, RecordType::A]
        .into_iter()
        .map(|family| resolver.lookup(name.clone(), family))
        .collect();
    let mut addresses = Vec::new();
    let mut failure = ResolveError::NoAddress {
        host: host.to_owned(),
    };
    loop {
        let answer = match addresses.is_empty() {
            true => lookups.next().await,
            false => timeout(RESOLUTION_DELAY, lookups.next())
                .await
                .ok()
                .flatten(),
        };
        match answer {
            Some(Ok(lookup)) => {
                addresses.extend(lookup.answers().iter().filter_map(|r| r.data.ip_addr()));
            }
            // Says no more than the other family's answer will, unless that fails too.
            Some(Err(error)) if error.is_no_records_found() => {}
            Some(Err(NetError::Timeout)) => failure = ResolveError::Timeout,
            Some(Err(source)) => {
                failure = ResolveError::Failed {
                    host: host.to_owned(),
                    source,
                }
            }
            None => break,
        }
    }
    if addresses.is_empty() {
        return Err(failure);
    }
    addresses.sort_by_key(IpAddr::is_ipv4);
    Ok(addresses)
}

/// What can be read of the file; none at all is an empty one.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Err(error) = fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file)) {
        log::debug!("{}: {error}", path.display());
    }
    hosts
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Answers kept per worker: one upstream and one outbound proxy, two families, a few CNAMEs, and
/// what a reload leaves behind.
const CACHE_SIZE: u64 = 64;
/// A name that is missing now (a container that is still starting) may be there soon, whatever its
/// zone says about negative answers.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) mod tests {
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

    /// How the name server of a test treats one family.
    #[derive(Clone, Copy)]
    pub(in super::super) enum Dns {
        Has(&'static [&'static str]),
        Code(ResponseCode),
        Silent,
    }
    use Dns::{Code, Has, Silent};

    /// A name server on loopback; its address and the number of queries so far.
    pub(in super::super) async fn name_server(
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
    pub(in super::super) fn names(hosts: &Path, server: Option<SocketAddr>) -> Names {
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
        Names::new(hosts, "/nonexistent", Box::new(read))
    }

    pub(in super::super) async fn local<T>(test: impl Future<Output = T>) -> T {
        tokio::task::LocalSet::new().run_until(test).await
    }

    async fn ask(names: &Names, host: &str) -> Result<String, ResolveError> {
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
        let lines =
            "::7 two\n10.0.0.7 two ONE.test # a comment\nnonsense line\n10.0.0.8 my_service_\n";
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
            let names = Names::new(
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
}
