//! Who said what: flags, environment, file, default, in this order of precedence.
//!
//! [`Source`] is the door of the configuration: it can be asked again ([`Source::load`]) and reads
//! the files anew each time, while flags and environment stay as they were at start. Empty means
//! unset, whoever says it. It chooses nothing, which is `gather`'s part, and types nothing.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use rustls::pki_types::CertificateDer;

use super::{
    Config, Listen,
    env::Variable,
    fault::{self, Faults, Warning},
    gather::{EnvFileFacts, Gathered},
    loops, memory, typed,
};

/// What the command line said.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--env-file`
    pub env_file: Option<PathBuf>,
    /// `--headers-file`
    pub headers_file: Option<String>,
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<String>,
    /// `--api-base-url`
    pub api_base_url: Option<String>,
    /// `--workers`
    pub workers: Option<String>,
}

impl Flags {
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
    /// What the process was started with.
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

/// Names and values may be secrets of anybody.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: the default.
    Default,
    /// The environment file, the headers file, and the line where there is one.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// The environment.
    Environment,
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{} line {line}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One variable as it is in effect.
#[derive(Clone)]
pub struct Setting {
    /// Its row in the table.
    pub variable: &'static Variable,
    /// Who said it.
    pub origin: Origin,
    /// The text, if there is any: said, or the default. It may be a secret.
    pub(super) text: Option<String>,
}

impl Setting {
    /// The value as it may be shown; none where it is unset and has no default.
    pub fn shown(&self) -> Option<String> {
        self.text
            .as_deref()
            .map(|text| fault::shown(self.variable, text))
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown().unwrap_or_default();
        write!(f, "{}={shown} ({})", self.variable.name, self.origin)
    }
}

/// A valid configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Vec<Warning>,
    /// Every variable with its origin, in the order of the table.
    pub settings: Vec<Setting>,
    /// What is known of the environment file that a later one is compared with.
    pub(super) env_file: EnvFileFacts,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    pub(super) flags: Flags,
    pub(super) environment: Environment,
    /// What relative paths of files are relative to; empty for the working directory.
    pub(super) root: PathBuf,
    /// Limits of memory; none unless they are asked for.
    pub(super) memory: memory::Limits,
}

impl Source {
    /// A source with these flags and this environment.
    pub fn new(flags: Flags, environment: Environment) -> Self {
        Self {
            flags,
            environment,
            root: PathBuf::new(),
            memory: memory::Limits::default(),
        }
    }

    /// Bounds the budgets of memory by the limits of this process.
    pub fn within_limits(self) -> Self {
        Self {
            memory: memory::Limits::of_process(),
            ..self
        }
    }

    /// Takes relative paths from `root` instead of the working directory.
    pub fn rooted(self, root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            ..self
        }
    }

    /// Reads everything anew and gives a configuration, or all faults at once.
    pub fn load(&self) -> Result<Loaded, Faults> {
        let mut gathered = self.gather();
        let unwritable = self.unwritable(&gathered);
        gathered.faults.extend(unwritable);
        self.judge(gathered)
    }

    /// The configuration of what was gathered, or all faults.
    pub(super) fn judge(&self, gathered: Gathered) -> Result<Loaded, Faults> {
        let loaded = typed::load(gathered, &self.root, self.memory)?;
        if self.are_sockets_passed() {
            return Ok(loaded);
        }
        let faults = loops::faults(&loaded.config, &loaded.settings);
        match faults.is_empty() {
            true => Ok(loaded),
            false => Err(Faults {
                faults,
                warnings: loaded.warnings,
            }),
        }
    }

    /// Whether systemd passed sockets, which take the place of those that are configured.
    pub(super) fn are_sockets_passed(&self) -> bool {
        self.environment.value("LISTEN_FDS").is_some()
    }

    /// Where the server listens, whatever else is at fault: the health check asks there.
    pub fn listen(&self) -> Result<Listen, Faults> {
        typed::listen(&self.gather())
    }

    /// The certificate that the server shows, if one is named: the health check compares.
    pub fn certificate(&self) -> Result<Option<CertificateDer<'static>>, Faults> {
        typed::certificate(&self.gather(), &self.root)
    }

    /// The files that the configuration comes from, whether or not they exist.
    pub fn files(&self) -> Vec<PathBuf> {
        let gathered = self.gather();
        let mut files = vec![gathered.env_file.clone()];
        for name in [
            "HEADERS_FILE",
            "TLS_CERT_FILE",
            "TLS_KEY_FILE",
            "PRICES_FILE",
        ] {
            files.extend(gathered.text(name).map(|path| self.root.join(path)));
        }
        files
    }
}
