//! Flags, environment and files: the places that a configuration is read from.
//!
//! [`ConfigSource`] keeps flags and environment as they were at start; `load` reads the files anew each
//! time. An empty value means unset, wherever it stands. It reads nothing itself.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use clap::Args;

use super::memory;

/// Flags that override variables.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// File of KEY=VALUE lines [default: env/.env, if it exists]
    #[arg(long, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// JSON file of custom fields (HEADERS_FILE) [default: env/.env.headers.json, if it exists]
    #[arg(long, value_name = "PATH")]
    pub headers_file: Option<String>,
    /// Address to listen on (HOST) [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on (PORT) [default: 8088]
    #[arg(long, value_name = "NUMBER")]
    pub port: Option<String>,
    /// URL of the upstream (API_BASE_URL) [default: `https://anyrouter.top`]
    #[arg(long, value_name = "URL")]
    pub api_base_url: Option<String>,
    /// Worker threads (WORKERS) [default: one for each core]
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<String>,
}

impl Flags {
    /// These flags, and of those that are missing here the earlier ones.
    pub fn or(self, earlier: Self) -> Self {
        Self {
            env_file: self.env_file.or(earlier.env_file),
            headers_file: self.headers_file.or(earlier.headers_file),
            host: self.host.or(earlier.host),
            port: self.port.or(earlier.port),
            api_base_url: self.api_base_url.or(earlier.api_base_url),
            workers: self.workers.or(earlier.workers),
        }
    }

    /// The value for a variable, with the flag that gave it.
    pub(super) fn value(&self, name: &str) -> Option<(&'static str, &str)> {
        let (flag, value) = match name {
            "HEADERS_FILE" => ("--headers-file", &self.headers_file),
            "HOST" => ("--host", &self.host),
            "PORT" => ("--port", &self.port),
            "API_BASE_URL" => ("--api-base-url", &self.api_base_url),
            "WORKERS" => ("--workers", &self.workers),
            _ => return None,
        };
        value.as_deref().map(|value| (flag, value))
    }
}

/// The environment of the process, captured once; a map in tests.
#[derive(Clone, Default)]
pub struct Environment(Arc<BTreeMap<OsString, OsString>>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(Arc::new(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        ))
    }
}

/// Names and values may be secrets, so none is shown.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// Flags, environment and files of a configuration.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    pub(super) flags: Flags,
    pub(super) environment: Environment,
    /// Base of relative paths; empty for the working directory.
    pub(super) root: PathBuf,
    /// Limits of memory; none unless they are asked for.
    pub(super) memory: memory::MemoryLimits,
    /// Text that stands in for the environment file, before it is written.
    pub(super) proposed: Option<Arc<str>>,
}

impl ConfigSource {
    /// A source with these flags and this environment.
    pub fn new(flags: Flags, environment: Environment) -> Self {
        Self {
            flags,
            environment,
            root: PathBuf::new(),
            memory: memory::MemoryLimits::default(),
            proposed: None,
        }
    }

    /// A source with these flags and the environment of this process, whose limits bound the budgets of memory.
    pub fn of_process(flags: Flags) -> Self {
        Self {
            memory: memory::MemoryLimits::of_process(),
            ..Self::new(flags, Environment::of_process())
        }
    }

    /// Takes relative paths from `root` instead of the working directory.
    pub fn rooted(self, root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            ..self
        }
    }

    /// Takes this text for the environment file's, so that it is judged before it is written.
    pub fn proposing(&self, text: &str) -> Self {
        Self {
            proposed: Some(text.into()),
            ..self.clone()
        }
    }

    /// The same with these variables of the environment alone.
    pub fn keeping(&self, names: &[&str]) -> Self {
        let all = self.environment.0.iter();
        let kept = all.filter(|(name, _)| names.iter().any(|it| *it == name.as_os_str()));
        Self {
            environment: kept
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            ..self.clone()
        }
    }

    /// Reports that systemd passed sockets, which replace the configured listeners.
    pub(super) fn are_sockets_passed(&self) -> bool {
        self.environment.value("LISTEN_FDS").is_some()
    }
}
