//! argv in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    anthropic_proxy::cli::main()
}
