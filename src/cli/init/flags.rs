//! The flags of `init`: one for each question, and how it is asked.

use std::path::PathBuf;

use clap::Args;

/// Flags of the questions.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitFlags {
    /// URL of the upstream; several in order of preference, separated by commas
    #[arg(long, visible_alias = "api-base-url", value_name = "URL")]
    pub(super) upstream: Option<String>,
    /// Place of the upstream's credential: clients (each sends its own), environment (UPSTREAM_API_KEYS of the
    /// server) or file (asked for, or read from --credential-file)
    #[arg(long, value_name = "PLACE", value_parser = ["clients", "environment", "file"])]
    pub(super) credential: Option<String>,
    /// File with the upstream's credential, one line for each upstream; `-` for standard input
    #[arg(long, value_name = "PATH")]
    pub(super) credential_file: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1, this machine alone]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) host: Option<String>,
    /// Port to listen on [default: 8088]
    #[arg(long, value_name = "NUMBER")]
    pub(super) port: Option<String>,
    /// Certificate chain, in PEM; a public address needs one, or --no-tls
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Serve a public address without TLS: keys cross the network in clear text
    #[arg(long, conflicts_with = "tls_cert")]
    pub(super) no_tls: bool,
    /// Give out keys of the proxy: every request needs one
    #[arg(long)]
    pub(super) keys: bool,
    /// No keys: everybody who reaches the address may use it
    #[arg(long, conflicts_with = "keys")]
    pub(super) no_keys: bool,
    /// Name of the first key
    #[arg(long, value_name = "TEXT", requires = "keys")]
    pub(super) key_name: Option<String>,
    /// Budget of the first key, as 100/month
    #[arg(long, value_name = "AMOUNT/PERIOD", requires = "keys")]
    pub(super) budget: Option<String>,
    /// Directory of keys and of the dashboard's history [default: data]
    #[arg(long, value_name = "PATH")]
    pub(super) data_dir: Option<String>,
    /// Serve the dashboard
    #[arg(long)]
    pub(super) dashboard: bool,
    /// No dashboard
    #[arg(long, conflicts_with = "dashboard")]
    pub(super) no_dashboard: bool,
    /// Replicas that share keys and limits; above 1 they need --state-url
    #[arg(long, value_name = "NUMBER")]
    pub(super) replicas: Option<String>,
    /// Redis or Valkey that replicas share, as redis://host:6379/0; STATE_URL is taken, too
    #[arg(long, value_name = "URL")]
    pub(super) state_url: Option<String>,
    /// File of KEY=VALUE lines to write [default: env/.env]
    #[arg(long, value_name = "PATH")]
    pub(super) env_file: Option<PathBuf>,
    /// Also write a unit of systemd to this file
    #[arg(long, value_name = "PATH")]
    pub(super) unit: Option<PathBuf>,
    /// Also write a file of compose to this file
    #[arg(long, value_name = "PATH")]
    pub(super) compose: Option<PathBuf>,
    /// Take the defaults for what has no flag
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Change files that exist; what was before is kept beside the file
    #[arg(long)]
    pub(super) force: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Proxies, certificates and the like that this shell sets for upstream and shared store, as HTTPS_PROXY or
    /// UPSTREAM_CA_FILE: write (into the file) or leave (set where the server starts) [default: write]
    #[arg(long, value_name = "CHOICE", value_parser = ["write", "leave"])]
    pub(super) shell_settings: Option<String>,
    /// Test neither upstream, port nor shared store
    #[arg(long)]
    pub(super) no_test: bool,
}
