//! `top`: a terminal view of a running proxy: requests in flight, sessions, upstreams, budgets, limits.
//!
//! It reads the API as the dashboard does, by the socket in `DATA_DIR` or by `--server`, on a thread of its own
//! ([`poll`]). What is shown and what a key does is a value without I/O ([`state`]), drawn by [`draw`].

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{
    desk::{Reach, VerbError, finish, print_json},
    output::say,
};

mod draw;
mod grid;
mod poll;
mod rates;
mod snapshot;
mod state;
mod terminal;
mod text;
mod tone;

#[derive(Debug, Clone, Args)]
pub(super) struct Top {
    /// Print what there is now, and end; --json prints it as JSON
    #[arg(long)]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    #[command(flatten)]
    pub(super) reach: Reach,
}

pub(super) fn run(asked: &Top) -> ExitCode {
    finish(shown(asked))
}

fn shown(asked: &Top) -> Result<ExitCode, VerbError> {
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !(asked.once || asked.reach.json || has_terminal) {
        return Err(VerbError::Usage(
            "top draws on a terminal, and standard input or output is none: add --once or --json to print \
             what there is now"
                .to_owned(),
        ));
    }
    let (server, name) = asked.reach.running()?;
    if asked.reach.json {
        return Ok(print_json(&snapshot::as_json(&server)?));
    }
    if asked.once {
        let everything = snapshot::Snapshot::of_all(&server)?;
        return Ok(say(text::page(&name, &everything).as_bytes()));
    }
    terminal::show(server, name, asked.interval)
        .map_err(|error| VerbError::Usage(format!("the terminal cannot be used: {error}")))
}

/// Seconds between two looks: from 0.2 to 60.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds from 0.2 to 60".to_owned()),
    }
}
