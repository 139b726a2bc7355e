//! The rig of the benchmarks: a mock upstream and a load generator.
//!
//! Both are cheap, so that the proxy between them is what is measured. They speak HTTP/1.1 on one
//! thread each and refuse to be more general than the cells of `tests/bench/cells.py` need.

use std::{error::Error, io::Write as _};

use clap::Parser;
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

mod chunked;
mod client;
mod events;
mod load;
mod mock;
mod process;
mod request;

#[derive(Parser)]
#[command(about = "A mock upstream and a load generator for benchmarks")]
enum Command {
    /// Answers as an Anthropic-compatible upstream would; prints its port.
    Mock(mock::Options),
    /// Sends requests and prints one line of JSON.
    Load(load::Options),
    /// Prints a body of `POST /v1/messages` as Claude Code sends it.
    Body(BodyOptions),
}

#[derive(clap::Args)]
struct BodyOptions {
    /// Its size.
    #[arg(long, default_value_t = 2048)]
    bytes: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    // 5,000 streams are 5,000 sockets on each side
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    match Command::parse() {
        Command::Mock(options) => mock::run(&options)?,
        Command::Load(options) => println!("{}", load::run(options)?),
        Command::Body(options) => {
            std::io::stdout().write_all(&request::body(options.bytes, false))?;
        }
    }
    Ok(())
}

/// Nanoseconds of a clock that the mock and the load generator share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
