//! The verbs: what the command line says, and the one place that writes to stdout.
//!
//! Exit codes: 0 ok, 1 run-time, 2 usage or configuration. Values are taken as text and judged
//! where all configuration is judged, so that a bad flag is reported beside every other fault.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{
    Environment, Flags, Source,
    env::{
        self,
        reference::{self, Language},
    },
};

mod check;
mod healthcheck;
mod serve;

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come here too, with code 0 and stdout.
            let _ = error.print();
            return if error.use_stderr() {
                EXIT_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // flags may stand before the verb or after it
    let before = cli.settings;
    let code = match cli.verb.unwrap_or(Verb::Serve(Settings::default())) {
        Verb::Serve(settings) => serve::run(settings.or(before).source()),
        Verb::Check(settings) => check::run(&settings.or(before).source()),
        Verb::Healthcheck(mut asked) => {
            asked.settings = asked.settings.or(before);
            healthcheck::run(&asked)
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            say(&script)
        }
        Verb::EnvExample => say(env::example::file().as_bytes()),
        Verb::Docs {
            page: Page::Configuration,
            lang,
        } => {
            let language = match lang {
                Lang::En => Language::English,
                Lang::Zh => Language::Chinese,
            };
            say(reference::page(language).as_bytes())
        }
    };
    log::logger().flush();
    code
}

/// A transparent, streaming, multi-core reverse proxy for Anthropic-compatible APIs.
///
/// Without a verb it serves. It is configured by flags, the environment and the file env/.env, in
/// this order of precedence; .env.example lists every variable.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Listen and forward (the default)
    Serve(Settings),
    /// Validate the configuration and print it with the origin of each value, secrets masked
    Check(Settings),
    /// Ask the running server for its health: exit 0 if healthy, 1 if not
    Healthcheck(healthcheck::Healthcheck),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the file .env.example
    #[command(hide = true)]
    EnvExample,
    /// Print a generated page of docs/
    #[command(hide = true)]
    Docs {
        /// The page
        page: Page,
        /// Its language
        #[arg(long, default_value = "en")]
        lang: Lang,
    },
}

/// A generated page.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    Configuration,
}

/// A language of the pages.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lang {
    En,
    Zh,
}

/// Flags that override variables.
#[derive(Debug, Clone, Default, Args)]
struct Settings {
    /// File of KEY=VALUE lines [default: env/.env, if it exists]
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,
    /// JSON file of custom fields (HEADERS_FILE) [default: env/.env.headers.json, if it exists]
    #[arg(long, value_name = "PATH")]
    headers_file: Option<String>,
    /// Address to listen on (HOST) [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on (PORT) [default: 8088]
    #[arg(long, value_name = "NUMBER")]
    port: Option<String>,
    /// Where requests go (API_BASE_URL) [default: `https://anyrouter.top`]
    #[arg(long, value_name = "URL")]
    api_base_url: Option<String>,
    /// Worker threads (WORKERS) [default: one for each core]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<String>,
}

impl Settings {
    /// These flags, and of those that are missing here the earlier ones.
    fn or(self, earlier: Self) -> Self {
        Self {
            env_file: self.env_file.or(earlier.env_file),
            headers_file: self.headers_file.or(earlier.headers_file),
            host: self.host.or(earlier.host),
            port: self.port.or(earlier.port),
            api_base_url: self.api_base_url.or(earlier.api_base_url),
            workers: self.workers.or(earlier.workers),
        }
    }

    fn source(self) -> Source {
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
        Source::new(flags, Environment::of_process()).within_limits()
    }
}

/// Writes to stdout; a reader that went away (`| head`) is no error.
fn say(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes a line to stderr. There is nobody to tell if that fails.
fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{NAME}: {text}");
}

const NAME: &str = "anthropic-proxy";

/// For usage and configuration, as clap has it.
const EXIT_USAGE: u8 = 2;
