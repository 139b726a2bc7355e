//! The place where verbs on keys, limits and audit are answered: the running server, by the socket in
//! `DATA_DIR` or by its URL, or else the store itself, under a lock.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    client::{ApiAnswer, ApiClient, ClientError},
    operator::operator,
    output,
};
use crate::{
    audit::{AUDIT_FOLDER, ActorKind, AuditActor, search},
    config::{AccessSettings, ConfigErrors, ConfigSource, Flags, Prices},
    registry::{
        AuditFound, Author, Call, CurrentSettings, OpenError, Registry, RegistryError,
        RegistryKind, RegistrySettings, Role, verify_without_store,
    },
    state::{RedisFault, StateError},
};

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Reach {
    /// Ask the server at this URL, with the key in ANTHROPIC_PROXY_ADMIN_KEY
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Directory of keys and limits (DATA_DIR)
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// Place that answers calls.
pub(super) enum Desk {
    /// The running server.
    Server(ApiClient),
    /// The store, while no server runs.
    Store(Box<Registry>),
    /// The audit in a directory, while no server runs and the shared store does not answer for this reason.
    Files(PathBuf, RedisFault),
    /// An empty store in a directory of its own, which goes with it.
    Scratch {
        registry: Box<Registry>,
        _folder: TempDir,
    },
}

/// Reason for which a verb has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbError {
    /// An argument, or the configuration.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The registry refused it.
    #[error("{message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// Message for people.
        message: String,
    },
}

impl VerbError {
    /// 2 for usage, 4 where the author may not, 5 for a conflict, 1 for everything else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) => output::EXIT_USAGE.into(),
            Self::Refused {
                status: 401 | 403, ..
            } => EXIT_UNAUTHORIZED.into(),
            Self::Refused {
                status: 409 | 412, ..
            }
            | Self::Open(OpenError::Lock(_)) => EXIT_CONFLICT.into(),
            Self::Client(ClientError::Denied(_)) => EXIT_UNAUTHORIZED.into(),
            Self::Client(_) | Self::Open(_) | Self::Refused { .. } => ExitCode::FAILURE,
        }
    }
}

/// Not authorised.
const EXIT_UNAUTHORIZED: u8 = 4;
/// A conflict with what there is.
pub(super) const EXIT_CONFLICT: u8 = 5;

/// The variable of the dashboard's key, for `--server`.
pub(super) const ADMIN_KEY: &str = "ANTHROPIC_PROXY_ADMIN_KEY";

impl Reach {
    /// The place that these settings name.
    pub(super) fn of(settings: Flags) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The directory of keys, and their settings.
    pub(super) fn place(&self) -> Result<(PathBuf, AccessSettings), VerbError> {
        self.place_for("there is no place for keys")
    }

    /// The same, with what is not there without it.
    fn place_for(&self, missing: &str) -> Result<(PathBuf, AccessSettings), VerbError> {
        let source = ConfigSource::of_process(self.settings.clone());
        let (configured, access) = source.access()?;
        match self.data_dir.clone().or(configured) {
            Some(data_dir) => Ok((data_dir, access)),
            None => {
                let file = source.env_file();
                let file = std::path::absolute(&file).unwrap_or(file);
                let state = if file.exists() {
                    "does not set it"
                } else {
                    "does not exist"
                };
                Err(VerbError::Usage(format!(
                    "DATA_DIR is not set, so {missing}: {} {state}; run this in the server's folder, or give \
                     --data-dir PATH (the server's DATA_DIR), --env-file PATH, or --server URL with the dashboard's \
                     key in {ADMIN_KEY}",
                    file.display()
                )))
            }
        }
    }

    /// The directory that was named.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone()
    }

    /// The running server: the one that was named, or the one on the socket in the directory; none if there is
    /// neither.
    pub(super) fn server(&self) -> Result<Option<ApiClient>, VerbError> {
        if let Some(named) = self.named_server()? {
            return Ok(Some(named));
        }
        #[cfg(unix)]
        if let Ok((data_dir, _)) = self.place() {
            return Ok(ApiClient::of_socket(
                &data_dir.join(crate::server::ADMIN_SOCKET),
            )?);
        }
        Ok(None)
    }

    /// The running server, and its place.
    pub(super) fn running(&self) -> Result<(ApiClient, String), VerbError> {
        if let (Some(server), Some(url)) = (self.named_server()?, &self.server) {
            return Ok((server, url.clone()));
        }
        let (data_dir, _) = self.place_for("the running server is not found")?;
        let place = data_dir.display().to_string();
        #[cfg(unix)]
        if let Some(server) = ApiClient::of_socket(&data_dir.join(crate::server::ADMIN_SOCKET))? {
            return Ok((server, place));
        }
        Err(VerbError::Refused {
            status: 503,
            message: format!(
                "no server runs on DATA_DIR {place}: start one, or give --server or another --data-dir"
            ),
        })
    }

    fn named_server(&self) -> Result<Option<ApiClient>, VerbError> {
        let Some(url) = &self.server else {
            return Ok(None);
        };
        let key = std::env::var(ADMIN_KEY).unwrap_or_default();
        if key.is_empty() {
            return Err(VerbError::Usage(format!(
                "--server needs the dashboard's key: set {ADMIN_KEY}"
            )));
        }
        Ok(Some(ApiClient::of_url(url, key)?))
    }

    /// Finds the place that answers on the audit: what is in its files needs no store that replicas share.
    pub(super) fn audit_desk(&self) -> Result<Desk, VerbError> {
        match self.desk() {
            Err(VerbError::Open(OpenError::State(StateError::Redis(why)))) => {
                Ok(Desk::Files(self.place()?.0, why))
            }
            desk => desk,
        }
    }

    /// The same for what changes nothing. A directory without keys stays as it is: a pepper, a lock and an audit
    /// would be made in it, and an empty directory of this process's own answers the same.
    pub(super) fn dry_desk(&self) -> Result<Desk, VerbError> {
        if self.server.is_none() {
            let (data_dir, access) = self.place()?;
            let is_empty = match fs::read_dir(&data_dir) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            if access.state.is_none() && is_empty {
                check_parent(&data_dir)?;
                let scratch = tempfile::tempdir().map_err(|error| {
                    VerbError::Usage(format!(
                        "no folder for the dry run in {}: {error}; set TMPDIR to one that can be written",
                        std::env::temp_dir().display()
                    ))
                })?;
                let registry = self.store(scratch.path().to_owned(), access)?;
                return Ok(Desk::Scratch {
                    registry: Box::new(registry),
                    _folder: scratch,
                });
            }
        }
        self.desk()
    }

    /// Finds the place that answers.
    pub(super) fn desk(&self) -> Result<Desk, VerbError> {
        if let Some(named) = self.named_server()? {
            return Ok(Desk::Server(named));
        }
        let (data_dir, access) = self.place()?;
        #[cfg(unix)]
        if let Some(server) = ApiClient::of_socket(&data_dir.join(crate::server::ADMIN_SOCKET))? {
            return Ok(Desk::Server(server));
        }
        check_parent(&data_dir)?;
        Ok(Desk::Store(Box::new(self.store(data_dir, access)?)))
    }

    /// Opens the store in a directory.
    fn store(&self, data_dir: PathBuf, access: AccessSettings) -> Result<Registry, VerbError> {
        let source = ConfigSource::of_process(self.settings.clone());
        let current = match source.load() {
            Ok(loaded) => CurrentSettings {
                prices: Arc::clone(&loaded.config.live.prices),
                has_credential: Some(loaded.config.live.has_all_credentials()),
            },
            // keys need little of the configuration
            Err(_) => CurrentSettings {
                prices: Arc::new(source.prices().unwrap_or_else(|_| Prices::built_in())),
                has_credential: None,
            },
        };
        let AccessSettings { pepper, state, .. } = access;
        Ok(Registry::open(
            RegistrySettings {
                data_dir,
                pepper,
                state,
                kind: RegistryKind::Tool,
            },
            Box::new(move || current.clone()),
        )?)
    }
}

/// A mistyped path would be made, and would hold no key.
fn check_parent(data_dir: &Path) -> Result<(), VerbError> {
    let parent = data_dir.parent().filter(|it| !it.as_os_str().is_empty());
    match parent.filter(|parent| !data_dir.exists() && !parent.exists()) {
        Some(parent) => Err(VerbError::Usage(format!(
            "DATA_DIR {} does not exist, nor does {}: correct it, or make the folder (mkdir -p)",
            data_dir.display(),
            parent.display()
        ))),
        None => Ok(()),
    }
}

impl Desk {
    /// Makes a call, and gives the answer as JSON.
    pub(super) fn make(&self, call: &Call) -> Result<Value, VerbError> {
        match self {
            Self::Server(client) => client.make(call)?.success(),
            Self::Store(registry) | Self::Scratch { registry, .. } => {
                let reply = registry.answer(&author(), call).map_err(refused)?;
                serde_json::to_value(&reply)
                    .map_err(|error| refused(RegistryError::Invalid(error.to_string())))
            }
            Self::Files(data_dir, why) => match call {
                Call::VerifyAudit => {
                    let verified = verify_without_store(data_dir, why.clone()).map_err(refused)?;
                    Ok(serde_json::json!(verified))
                }
                Call::Audit(filter) => {
                    let found = search(&data_dir.join(AUDIT_FOLDER), filter);
                    let items = found.map_err(|error| refused(error.into()))?;
                    Ok(serde_json::json!(AuditFound { items }))
                }
                _ => Err(OpenError::State(StateError::Redis(why.clone())).into()),
            },
        }
    }
}

impl ApiAnswer {
    /// The content of a success.
    pub(super) fn success(self) -> Result<Value, VerbError> {
        let Self { status, content } = self;
        match status {
            200..300 => Ok(content),
            _ => Err(VerbError::Refused {
                status,
                message: match content["error"]["message"].as_str() {
                    Some(message) => message.to_owned(),
                    None => format!("the server answered with status {status}"),
                },
            }),
        }
    }
}

fn refused(error: RegistryError) -> VerbError {
    VerbError::Refused {
        status: error.status(),
        message: error.to_string(),
    }
}

/// Access to the files is the authority.
pub(super) fn author() -> Author {
    Author {
        actor: AuditActor {
            kind: ActorKind::Cli,
            id: operator(),
            ip: None,
            ua: Some(concat!("anthropic-proxy/", env!("CARGO_PKG_VERSION")).to_owned()),
        },
        role: Role::Admin,
        request_id: format!("cli_{}", std::process::id()),
    }
}

/// Runs a verb, and says why it failed.
pub(super) fn finish(done: Result<ExitCode, VerbError>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            error.exit_code()
        }
    }
}

/// Prints JSON.
pub(super) fn print_json(value: &Value) -> ExitCode {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    output::say(text.as_bytes())
}

/// Prints the warnings of an answer.
pub(super) fn warn(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        if let Some(warning) = warning.as_str() {
            output::complain(&format_args!("warning: {warning}"));
        }
    }
}
