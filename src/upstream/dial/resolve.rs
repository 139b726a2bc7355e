//! Name resolution: the addresses of a host.
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

/// The resolver of one worker. Nothing is read before the first name is resolved.
pub(super) struct HostResolver {
    hosts: Watched<Rc<Hosts>>,
    resolver: Watched<TokioResolver>,
    read_name_servers: ReadNameServers,
}

/// Reads the system's name servers; another function in tests.
type ReadNameServers = Box<dyn Fn() -> Result<(ResolverConfig, ResolverOpts), NetError>>;

/// Reasons for having no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The text cannot be a host name.
    #[error("`{host}` is not a host name")]
    NotAName {
        host: String,
        #[source]
        source: ProtoError,
    },
    /// The system names no name server.
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

impl HostResolver {
    /// The resolver of this machine: its hosts file and its name servers.
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

/// The readable entries of the file; a missing file is an empty one.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Err(error) = fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file)) {
        log::debug!(
            "[Upstream] cannot read {}: {error}; its names are not used",
            path.display()
        );
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
pub(super) mod tests;
