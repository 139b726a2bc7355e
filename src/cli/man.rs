//! `man`: the manual pages, made of the declarations that make the help and the list of settings.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::output::{self, EXIT_USAGE};
use crate::config::env;

/// Arguments of the verb.
#[derive(Debug, Args)]
pub(super) struct ManualPage {
    /// The verb whose page is printed, such as `keys create`; none: the page of the program
    verb: Vec<String>,
    /// Write the pages of all verbs to this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    output: Option<PathBuf>,
}

pub(super) fn run(asked: &ManualPage, command: Command) -> ExitCode {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    if let Some(directory) = &asked.output {
        return match write_all(&command, true, directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let directory = directory.display();
                output::complain(&format_args!(
                    "the manual pages cannot be written to {directory}: {error}; name a directory that this user \
                     may write"
                ));
                ExitCode::FAILURE
            }
        };
    }
    let mut found = &command;
    for verb in &asked.verb {
        let mut verbs = found.get_subcommands().filter(|it| !it.is_hide_set());
        match verbs.find(|it| it.get_name() == verb) {
            Some(verb) => found = verb,
            None => {
                output::complain(&format_args!(
                    "there is no verb `{verb}` of `{}`; `--help` lists them",
                    found.get_bin_name().unwrap_or(output::NAME)
                ));
                return EXIT_USAGE.into();
            }
        }
    }
    match page(found, asked.verb.is_empty()) {
        Ok(text) => output::say(&text),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes the page of a command and those of its verbs.
fn write_all(command: &Command, is_program: bool, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(output::NAME);
    let text = page(command, is_program)?;
    fs::write(directory.join(format!("{name}.1")), text)?;
    let mut verbs = command.get_subcommands().filter(|it| !it.is_hide_set());
    verbs.try_for_each(|verb| write_all(verb, false, directory))
}

/// The page of a command in roff.
fn page(command: &Command, is_program: bool) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let man = Man::new(command.clone()).manual("anthropic-proxy manual");
    man.render(&mut text)?;
    if is_program {
        rest().to_writer(&mut text)?;
    }
    Ok(text)
}

/// The sections that the program's page has beside those of its flags.
fn rest() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(
        "A variable outranks the same line of the file of settings. `anthropic-proxy check` prints each value in \
         effect with its origin.",
    )]);
    for variable in env::table() {
        let default = match variable.default {
            "" => String::new(),
            default => format!(" Default: {default}."),
        };
        let (doc, form) = (variable.doc.en, variable.form.en);
        item(
            &mut roff,
            variable.name,
            &format!("{doc} Form: {form}.{default}"),
        );
    }
    for (title, items) in REST {
        roff.control("SH", [*title]);
        for (name, meaning) in *items {
            item(&mut roff, name, meaning);
        }
    }
    roff
}

/// A tagged paragraph.
fn item(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(meaning)]);
}

/// Sections of tagged paragraphs.
const REST: &[(&str, &[(&str, &str)])] = &[
    (
        "FILES",
        &[
            (
                "env/.env",
                "Settings, below the working directory; --env-file names another file. Changes apply while requests run.",
            ),
            (
                "env/.env.headers.json",
                "Fields that replace those of clients; HEADERS_FILE names another file.",
            ),
            (
                "/etc/anthropic-proxy/.env",
                "Settings of the service of the package for Debian.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "End what runs, and exit. A second one cuts it.",
            ),
            ("SIGHUP", "Read the settings anew."),
            ("SIGUSR1", "Open the access log anew."),
            (
                "SIGUSR2",
                "Hand over to a new process of the program's file.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "All is well."),
            ("1", "It failed, was refused, or does not exist."),
            ("2", "The command line or the configuration is wrong."),
            ("4", "Not authorised."),
            ("5", "A conflict with another change."),
        ],
    ),
];
