//! All that can go wrong with a Redis: condition, effect and remedy, and never a password.

use std::fmt;

/// A Redis that cannot be used, or a command that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisFault {
    /// The kind.
    pub kind: RedisFaultKind,
    /// Hosts and ports.
    pub place: String,
    /// Words of the system or the server.
    pub detail: String,
}

/// Kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisFaultKind {
    /// No connection, or one that was lost.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The handshake of TLS failed.
    Untrusted,
    /// It is asked to speak TLS, and does not.
    NoTls,
    /// It speaks TLS alone, and is not asked to.
    OnlyTls,
    /// User or password are wrong or missing.
    Refused,
    /// It speaks something else.
    NotRedis,
    /// No Sentinel names a primary that is one.
    NoPrimary,
    /// A server of a Cluster is spoken to as a single one, or the other way round.
    WrongForm,
    /// It takes no writes.
    ReadOnly,
    /// It is starting, or a part of the Cluster is down.
    NotReady,
    /// Its memory is full.
    OutOfMemory,
    /// The user may not do it.
    NotPermitted,
    /// Its release is too old.
    TooOld,
    /// It may forget keys when its memory is full.
    Evicts,
    /// Another program has keys under the prefix.
    Foreign,
    /// A later release of the proxy wrote the keys.
    Newer,
    /// Other replicas have another pepper.
    OtherPepper,
    /// Anything else that it reports.
    Other,
}

impl RedisFaultKind {
    /// Its name, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Untrusted => "tls",
            Self::NoTls => "no_tls",
            Self::OnlyTls => "only_tls",
            Self::Refused => "auth",
            Self::NotRedis => "not_redis",
            Self::NoPrimary => "no_primary",
            Self::WrongForm => "wrong_form",
            Self::ReadOnly => "read_only",
            Self::NotReady => "not_ready",
            Self::OutOfMemory => "out_of_memory",
            Self::NotPermitted => "not_permitted",
            Self::TooOld => "too_old",
            Self::Evicts => "evicts",
            Self::Foreign => "foreign",
            Self::Newer => "newer",
            Self::OtherPepper => "other_pepper",
            Self::Other => "other",
        }
    }

    /// True if it may pass by itself; what remains is for the operator to mend.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::Unreachable
            | Self::TimedOut
            | Self::NoPrimary
            | Self::ReadOnly
            | Self::NotReady
            | Self::OutOfMemory
            | Self::Other => true,
            Self::Untrusted
            | Self::NoTls
            | Self::OnlyTls
            | Self::Refused
            | Self::NotRedis
            | Self::WrongForm
            | Self::NotPermitted
            | Self::TooOld
            | Self::Evicts
            | Self::Foreign
            | Self::Newer
            | Self::OtherPepper => false,
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot be reached",
            Self::TimedOut => "does not answer in time",
            Self::Untrusted => "fails in the handshake of TLS",
            Self::NoTls => "does not speak TLS",
            Self::OnlyTls => "speaks TLS alone",
            Self::Refused => "refuses user or password",
            Self::NotRedis => "is no Redis",
            Self::NoPrimary => "names no primary that can be used",
            Self::WrongForm => "is of another form than its URL says",
            Self::ReadOnly => "takes no writes",
            Self::NotReady => "is not ready",
            Self::OutOfMemory => "has no memory left",
            Self::NotPermitted => "does not let this user do what is needed",
            Self::TooOld => "is too old",
            Self::Evicts => "may forget keys when its memory is full",
            Self::Foreign => "has keys of another program under the prefix",
            Self::Newer => "has keys of a later release of the proxy",
            Self::OtherPepper => "has keys that were made with another pepper",
            Self::Other => "reports an error",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check that it runs, and that this host reaches it at the address in STATE_URL"
            }
            Self::TimedOut => "check that it runs and is not overloaded",
            Self::Untrusted => {
                "set STATE_CA_FILE to its authority, and STATE_CERT_FILE and STATE_KEY_FILE if it asks for a \
                 certificate; STATE_URL must name it as its certificate does"
            }
            Self::NoTls => {
                "begin STATE_URL with redis instead of rediss, or give it the port that speaks TLS"
            }
            Self::OnlyTls => "begin STATE_URL with rediss instead of redis",
            Self::Refused => {
                "correct the user in STATE_URL, and its password there or in STATE_PASSWORD_FILE"
            }
            Self::NotRedis => "point STATE_URL to a Redis or Valkey",
            Self::NoPrimary => "check the name of the primary in STATE_URL, and the Sentinels",
            Self::WrongForm => {
                "use redis-cluster:// for a Cluster, and redis:// for a single server"
            }
            Self::ReadOnly => "point STATE_URL to the primary, or to its Sentinels",
            Self::NotReady => "wait until it has started, or repair the Cluster",
            Self::OutOfMemory => "raise its maxmemory, or remove keys of other programs",
            Self::NotPermitted => "give the user the rights in docs/access.md (ACL SETUSER)",
            Self::TooOld => "use Redis 6.2, Valkey 7.2 or later",
            Self::Evicts => "set its maxmemory-policy to noeviction or one of volatile-*",
            Self::Foreign => "set STATE_PREFIX to a prefix that is free",
            Self::Newer => "start the later release, or set STATE_PREFIX to a prefix that is free",
            Self::OtherPepper => "set ACCESS_PEPPER to that of the other replicas",
            Self::Other => "look at its log",
        }
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            place,
            detail,
        } = self;
        write!(f, "STATE_URL: {place} {}", kind.condition())?;
        if !detail.is_empty() {
            write!(f, " ({detail})")?;
        }
        write!(
            f,
            "; shared keys and limits cannot be read or changed; {}",
            kind.remedy()
        )
    }
}

impl std::error::Error for RedisFault {}
