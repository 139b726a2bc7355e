//! The verbs: what the command line says, and the one place that writes to stdout.
//!
//! Exit codes: 0 ok, 1 run-time or refused, 2 usage or configuration, 3 warnings (`doctor --strict`), 4 not
//! authorised, 5 conflict. Values are taken as text and judged where all configuration is judged, so that a bad flag
//! is reported beside every other fault.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::output::{EXIT_USAGE, NAME, say};
use crate::config::{
    ConfigSource, Flags,
    env::{self, Language, reference},
};

mod audit;
mod check;
mod client;
mod configure;
mod desk;
mod doctor;
mod healthcheck;
mod init;
mod keys;
mod limit_flags;
mod limits;
mod man;
mod migrate;
mod operator;
mod output;
mod program;
mod serve;
mod statusline;
mod table;
mod top;
#[cfg(target_os = "linux")]
mod upgrade;
mod verify;

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            name_other_verb(&mut error);
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
    let code = match cli.verb.unwrap_or(Verb::Serve(Flags::default())) {
        Verb::Serve(settings) => serve::run(ConfigSource::of_process(settings.or(before))),
        Verb::Check(settings) => check::run(&ConfigSource::of_process(settings.or(before))),
        Verb::Healthcheck(mut asked) => {
            asked.settings = asked.settings.or(before);
            healthcheck::run(&asked)
        }
        Verb::Init(flags) => init::run(*flags, before),
        Verb::Doctor(mut asked) => {
            asked.settings = asked.settings.or(before);
            doctor::run(&asked)
        }
        #[cfg(target_os = "linux")]
        Verb::Upgrade(mut asked) => {
            asked.settings = asked.settings.or(before);
            upgrade::run(&asked)
        }
        Verb::Keys(mut verb) => {
            let reach = verb.reach();
            reach.settings = reach.settings.clone().or(before);
            keys::run(verb)
        }
        Verb::Limits(mut verb) => {
            let reach = verb.reach();
            reach.settings = reach.settings.clone().or(before);
            limits::run(verb)
        }
        Verb::Config(mut verb) => {
            let reach = verb.reach();
            reach.settings = reach.settings.clone().or(before);
            configure::run(verb)
        }
        Verb::Audit(mut verb) => {
            let reach = verb.reach();
            reach.settings = reach.settings.clone().or(before);
            audit::run(verb)
        }
        Verb::Top(mut asked) => {
            let reach = &mut asked.reach;
            reach.settings = reach.settings.clone().or(before);
            top::run(&asked)
        }
        Verb::Statusline(asked) => statusline::run(asked),
        Verb::Verify(mut asked) => {
            let reach = &mut asked.reach;
            reach.settings = reach.settings.clone().or(before);
            verify::run(&asked)
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            say(&script)
        }
        Verb::Man(asked) => man::run(&asked, Cli::command()),
        Verb::EnvExample => say(env::example::file().as_bytes()),
        Verb::Docs {
            page: DocsPage::Configuration,
            lang,
        } => {
            let language = match lang {
                DocsLanguage::En => Language::English,
                DocsLanguage::Zh => Language::Chinese,
            };
            say(reference::page(language).as_bytes())
        }
    };
    log::logger().flush();
    code
}

/// Verbs of other programs, and the way to the same here.
const OTHER_VERBS: [(&[&str], &str); 4] = [
    (
        &["start", "run", "up", "server"],
        "run it without a verb, or with `serve`",
    ),
    (
        &["stop", "down", "quit", "kill"],
        "it ends at SIGTERM or Ctrl-C (`systemctl stop` for a unit, `docker stop` for a container)",
    ),
    (
        &["status", "ps", "health"],
        "`healthcheck` asks if the server is healthy, `top` shows what it does",
    ),
    (
        &["restart", "reload"],
        "changed files are taken by themselves; `upgrade` hands over to a new process without a gap",
    ),
];

/// Replaces the suggestion of a similar word by that of the same meaning.
fn name_other_verb(error: &mut clap::Error) {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let mut others = OTHER_VERBS.iter();
    if let Some((_, way)) = others.find(|(names, _)| names.contains(&&**verb)) {
        error.remove(ContextKind::SuggestedSubcommand);
        let way = vec![(*way).into()];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(way));
    }
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
    settings: Flags,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Listen and forward (the default)
    Serve(Flags),
    /// Validate the configuration and print it with the origin of each value, secrets masked
    Check(Flags),
    /// Set up: ask for what a first start needs, test the answers, and write env/.env
    Init(Box<init::InitFlags>),
    /// Ask the running server for its health: exit 0 if healthy, 1 if not
    Healthcheck(healthcheck::Healthcheck),
    /// Find the fault: check configuration, upstreams, listeners, shared state and data
    Doctor(Box<doctor::Doctor>),
    /// Have the running server hand over to a new process of the program, without a gap
    #[cfg(target_os = "linux")]
    Upgrade(upgrade::Upgrade),
    /// Create, list, show, rotate and revoke keys of clients, or apply a file of them
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Show, set and explain limits and budgets
    #[command(subcommand)]
    Limits(limits::LimitsVerb),
    /// Read and change the configuration file, with a history
    #[command(subcommand)]
    Config(configure::ConfigVerb),
    /// Check and read the chain of changes
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Watch the running server: requests in flight, sessions, upstreams, budgets
    Top(top::Top),
    /// Print the digests of a request that was verified (VERIFY): exit 0 if the same octets came in and went out
    Verify(verify::Verify),
    /// Print one line on a session, for `statusLine` of Claude Code, whose JSON comes on standard input
    Statusline(statusline::Statusline),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page, or write them all
    Man(man::ManualPage),
    /// Print the file .env.example
    #[command(hide = true)]
    EnvExample,
    /// Print a generated page of docs/
    #[command(hide = true)]
    Docs {
        /// The page
        page: DocsPage,
        /// Its language
        #[arg(long, default_value = "en")]
        lang: DocsLanguage,
    },
}

/// A generated page.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DocsPage {
    Configuration,
}

/// A language of the pages.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DocsLanguage {
    En,
    Zh,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_of_other_programs_lead_to_the_same_here() {
        for (names, way) in OTHER_VERBS {
            for name in names {
                let mut error = Cli::try_parse_from([NAME, name]).unwrap_err();
                name_other_verb(&mut error);
                let told = error.to_string();
                assert!(told.contains(way), "{told}");
                assert!(!told.contains("similar subcommand"), "{told}");
            }
        }
        // a slip keeps the nearest word
        let mut error = Cli::try_parse_from([NAME, "checks"]).unwrap_err();
        name_other_verb(&mut error);
        assert!(error.to_string().contains("'check'"), "{error}");
    }
}
