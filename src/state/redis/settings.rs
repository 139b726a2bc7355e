//! The place of a Redis and how it is spoken to, from the parts of a URL (`STATE_URL`).

use std::{fmt, fs, path::PathBuf};

use percent_encoding::percent_decode_str;

use super::usage::RedisUsage;
use crate::secret::Secret;

/// A Redis, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// One server, or how it is found among several.
    pub form: RedisForm,
    /// The server; or Sentinels; or some nodes of the Cluster.
    pub nodes: Vec<RedisNode>,
    /// The user, if it is not `default`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The file that it is in, which may be replaced.
    pub password_file: Option<PathBuf>,
    /// Number of the database.
    pub database: u16,
    /// TLS, if it is spoken.
    pub tls: Option<RedisTls>,
    /// First part of all names of keys and channels.
    pub prefix: String,
    /// Its use by this process.
    pub usage: RedisUsage,
}

/// Form of a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisForm {
    /// One server.
    Single,
    /// The primary that Sentinels name.
    Sentinel {
        /// Name of the primary.
        master: String,
    },
    /// A Cluster.
    Cluster,
}

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedisNode {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Certificates of a connection, in PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Authorities that are trusted instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Certificate and key that are shown to the server.
    pub identity: Option<RedisIdentity>,
}

/// Certificate and private key of a client, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisIdentity {
    /// The certificate chain.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Secret,
}

impl fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("has_authorities", &self.authorities.is_some())
            .field("has_identity", &self.identity.is_some())
            .finish()
    }
}

impl fmt::Debug for RedisIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisIdentity")
    }
}

/// Reason for which a text is no URL of a Redis. It never has the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRedisUrl(&'static str);

/// The tag of everything that is no subject's.
pub(super) const TAG: &str = "state";

/// First part of names where nothing else is said.
const PREFIX: &str = "ap";

/// Port of a server, and of a Sentinel.
const PORTS: (u16, u16) = (6379, 26379);

/// Databases that a number may name; a server has 16 if it is not told otherwise.
const DATABASES: u16 = 10_000;

impl RedisSettings {
    /// Reads a URL: `redis://[user:password@]host[:port][/database]`,
    /// `redis-sentinel://…host[:port],host[:port]/primary[/database]` or `redis-cluster://…host[:port],host[:port]`,
    /// each with `rediss` for TLS.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidRedisUrl> {
        let Some((scheme, rest)) = text.trim().split_once("://") else {
            return Err(InvalidRedisUrl("has no scheme"));
        };
        let (kind, has_tls) = match scheme.to_ascii_lowercase().as_str() {
            "redis" => (Kind::Single, false),
            "rediss" => (Kind::Single, true),
            "redis-sentinel" => (Kind::Sentinel, false),
            "rediss-sentinel" => (Kind::Sentinel, true),
            "redis-cluster" => (Kind::Cluster, false),
            "rediss-cluster" => (Kind::Cluster, true),
            "unix" | "redis+unix" | "redis-socket" => {
                return Err(InvalidRedisUrl(
                    "names a Unix socket: replicas share a Redis over the network",
                ));
            }
            _ => return Err(InvalidRedisUrl("has a scheme that is not known")),
        };
        // the last `@`: a password may contain one, and `/`, unescaped
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidRedisUrl(
                "has a query or a fragment; escape ? and # of a password as %3F and %23",
            ));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = match kind {
            Kind::Sentinel => PORTS.1,
            Kind::Single | Kind::Cluster => PORTS.0,
        };
        let nodes: Vec<_> = hosts
            .split(',')
            .map(|host| node(host.trim(), port))
            .collect::<Result<_, _>>()?;
        let mut path = path.trim_end_matches('/').split('/');
        let (form, path) = match kind {
            Kind::Single if nodes.len() > 1 => {
                return Err(InvalidRedisUrl(
                    "has several hosts; only redis-sentinel:// and redis-cluster:// do",
                ));
            }
            Kind::Single => (RedisForm::Single, path),
            Kind::Cluster => (RedisForm::Cluster, path),
            Kind::Sentinel => {
                let master = decoded(path.next().unwrap_or_default())?;
                if master.is_empty() {
                    return Err(InvalidRedisUrl(
                        "has no name of the primary after the Sentinels' hosts",
                    ));
                }
                (RedisForm::Sentinel { master }, path)
            }
        };
        let path: Vec<_> = path.filter(|part| !part.is_empty()).collect();
        let database = database(&form, &path)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            None => (None, None),
            Some((user, password)) => (
                Some(decoded(user)?).filter(|user| !user.is_empty()),
                Some(decoded(password)?).filter(|password| !password.is_empty()),
            ),
        };
        Ok(Self {
            form,
            nodes,
            user,
            password: password.as_deref().map(Secret::new),
            password_file: None,
            database,
            tls: has_tls.then(RedisTls::default),
            prefix: PREFIX.to_owned(),
            usage: RedisUsage::default(),
        })
    }

    /// The servers as a text, without user and password.
    pub fn place(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(ToString::to_string).collect();
        nodes.join(",")
    }

    /// The store as a text that tells it from others: form, servers, database and prefix, and no user.
    pub fn source(&self) -> String {
        let form = match &self.form {
            RedisForm::Single => "single",
            RedisForm::Sentinel { master } => master.as_str(),
            RedisForm::Cluster => "cluster",
        };
        let (place, database, prefix) = (self.place(), self.database, &self.prefix);
        format!("{place}/{form}/{database}/{prefix}")
    }

    /// The password for a connection that is opened now: that in the file, or the one that was there at the start.
    pub(super) fn present_password(&self) -> Option<Secret> {
        let read = self.password_file.as_ref();
        let read = read.and_then(|path| fs::read_to_string(path).ok());
        let read = read.as_deref().map(|it| it.trim_end_matches(['\r', '\n']));
        match read {
            Some(text) if !text.is_empty() && !text.contains('\n') => Some(Secret::new(text)),
            _ => self.password.clone(),
        }
    }

    /// Name of the channel on which changes are told.
    pub(super) fn channel(&self) -> String {
        [&self.prefix, ":changes"].concat()
    }

    /// Name of a key. All keys of one tag are on one server of a Cluster.
    pub fn key(&self, tag: &str, rest: &str) -> String {
        [&self.prefix, ":{", tag, "}:", rest].concat()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

fn database(form: &RedisForm, path: &[&str]) -> Result<u16, InvalidRedisUrl> {
    match path {
        [] => Ok(0),
        [number] => match number.parse() {
            Ok(0) => Ok(0),
            Ok(_) if *form == RedisForm::Cluster => Err(InvalidRedisUrl(
                "names a database: a Cluster has number 0 alone",
            )),
            Ok(number) if number < DATABASES => Ok(number),
            _ => Err(InvalidRedisUrl(
                "has a database that is no number below 10000",
            )),
        },
        _ => Err(InvalidRedisUrl("has more after the hosts than a database")),
    }
}

fn node(text: &str, port: u16) -> Result<RedisNode, InvalidRedisUrl> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .ok_or(InvalidRedisUrl("has an address whose ] is missing"))?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |host: &str| {
        let mut octets = host.bytes();
        !host.is_empty() && octets.all(|it| it.is_ascii_alphanumeric() || b".-_:".contains(&it))
    };
    if !is_name(host) {
        return Err(InvalidRedisUrl(
            "has no host, or one with characters that no host has",
        ));
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => port,
        Some(number) => match number.parse() {
            Ok(0) | Err(_) => {
                return Err(InvalidRedisUrl(
                    "has a port that is no number from 1 to 65535",
                ));
            }
            Ok(port) => port,
        },
        None => {
            return Err(InvalidRedisUrl(
                "has a host that is followed by something else than a port",
            ));
        }
    };
    Ok(RedisNode {
        host: host.to_owned(),
        port,
    })
}

fn decoded(text: &str) -> Result<String, InvalidRedisUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| InvalidRedisUrl("has an escape that is not UTF-8"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisSettings {
        RedisSettings::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn all_forms_are_read() {
        let one = parsed("redis://h");
        assert_eq!((one.place().as_str(), one.database), ("h:6379", 0));
        assert_eq!(one.form, RedisForm::Single);
        assert!(one.tls.is_none() && one.user.is_none() && one.password.is_none());
        let one = parsed("rediss://app:p%40ss@redis.example:6380/3");
        assert_eq!(
            (one.place().as_str(), one.database),
            ("redis.example:6380", 3)
        );
        assert_eq!(one.user.as_deref(), Some("app"));
        assert_eq!(one.password, Some(Secret::new("p@ss")));
        assert_eq!(one.tls, Some(RedisTls::default()));
        let one = parsed("redis://:a@b/c@h/1");
        assert_eq!(one.user, None);
        assert_eq!(one.password, Some(Secret::new("a@b/c")));
        assert_eq!(parsed("redis://[::1]:7/").place(), "[::1]:7");
        let sentinel = parsed("redis-sentinel://a,b:5/mymaster/2");
        assert_eq!(
            (sentinel.place().as_str(), sentinel.database),
            ("a:26379,b:5", 2)
        );
        let master = "mymaster".to_owned();
        assert_eq!(sentinel.form, RedisForm::Sentinel { master });
        let cluster = parsed("REDISS-cluster://u@a:7000,[fe80::1]:7001/0");
        assert_eq!(cluster.place(), "a:7000,[fe80::1]:7001");
        assert_eq!(cluster.form, RedisForm::Cluster);
        assert_eq!(
            (cluster.user.as_deref(), cluster.password),
            (Some("u"), None)
        );
        assert_eq!(
            one.key("team:core", "b:2026-11"),
            "ap:{team:core}:b:2026-11"
        );
    }

    #[test]
    fn everything_else_is_refused_without_its_text() {
        for text in [
            "",
            "localhost:6379",
            "http://h",
            "redis:/h",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:6379x",
            "redis://h/x",
            "redis://h/-1",
            "redis://h/10000",
            "redis://h/1/2",
            "redis://h?db=1",
            "redis://h#insecure",
            "redis://a,b",
            "redis://a b",
            "redis://[::1",
            "redis://[::1]6379",
            "redis-sentinel://a",
            "redis-sentinel://a/",
            "redis-cluster://a/1",
            "redis-cluster://a,",
            "unix:///run/redis.sock",
            "redis://%ff@h",
        ] {
            let refused = RedisSettings::parse(text);
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
        let refused = RedisSettings::parse("redis://u:canary@h:x").unwrap_err();
        assert!(!refused.to_string().contains("canary"), "{refused}");
        let shown = format!("{:?}", parsed("rediss://u:canary@h"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
