//! The one place that writes to standard output and to standard error, and the exit codes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Writes to stdout; a reader that went away (`| head`) is no error.
pub(super) fn say(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes a line to stderr. A failure cannot be reported anywhere.
pub(super) fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{NAME}: {text}");
}

/// Writes a text to stderr, for the person at the terminal.
pub(super) fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The name of the program, as lines and help print it.
pub(super) const NAME: &str = "anthropic-proxy";

/// For usage and configuration, as clap has it.
pub(super) const EXIT_USAGE: u8 = 2;
