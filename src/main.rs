//! argv in, exit code out.

use std::process::ExitCode;

/// musl's own allocator takes one lock for all workers.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anthropic_proxy::cli::main()
}
