//! Flags that every verb takes, and the source of configuration that they make.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigSource, Environment, Flags};

/// Flags that override variables.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CliFlags {
    /// File of KEY=VALUE lines [default: env/.env, if it exists]
    #[arg(long, value_name = "PATH")]
    pub(super) env_file: Option<PathBuf>,
    /// JSON file of custom fields (HEADERS_FILE) [default: env/.env.headers.json, if it exists]
    #[arg(long, value_name = "PATH")]
    pub(super) headers_file: Option<String>,
    /// Address to listen on (HOST) [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) host: Option<String>,
    /// Port to listen on (PORT) [default: 8088]
    #[arg(long, value_name = "NUMBER")]
    pub(super) port: Option<String>,
    /// URL of the upstream (API_BASE_URL) [default: `https://anyrouter.top`]
    #[arg(long, value_name = "URL")]
    pub(super) api_base_url: Option<String>,
    /// Worker threads (WORKERS) [default: one for each core]
    #[arg(long, value_name = "NUMBER")]
    pub(super) workers: Option<String>,
}

impl CliFlags {
    /// These flags, and of those that are missing here the earlier ones.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            env_file: self.env_file.or(earlier.env_file),
            headers_file: self.headers_file.or(earlier.headers_file),
            host: self.host.or(earlier.host),
            port: self.port.or(earlier.port),
            api_base_url: self.api_base_url.or(earlier.api_base_url),
            workers: self.workers.or(earlier.workers),
        }
    }

    pub(super) fn source(self) -> ConfigSource {
        let Self {
            env_file,
            headers_file,
            host,
            port,
            api_base_url,
            workers,
        } = self;
        let flags = Flags {
            env_file,
            headers_file,
            host,
            port,
            api_base_url,
            workers,
        };
        ConfigSource::new(flags, Environment::of_process()).within_limits()
    }
}
