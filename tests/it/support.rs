//! What every test needs: the process under test, the raw sockets on both its sides, and the few
//! assertions that many themes share.

use std::time::{Duration, Instant};

pub(crate) mod client;
pub(crate) mod h2;
pub(crate) mod identity;
pub(crate) mod proxy;
#[cfg(unix)]
pub(crate) mod pty;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod sources;
#[cfg(target_os = "linux")]
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod wire;

pub(crate) use client::{assert_aborted, assert_proxy_error, get, post};
pub(crate) use identity::Identity;
pub(crate) use proxy::{Proxy, ProxyBuilder};
pub(crate) use upstream::{Answering, Upstream};
pub(crate) use wire::{Body, End, Head, Response, Wire};

/// How long a test waits for anything that must happen, and that nothing else bounds: minutes, since
/// the machine may have more to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How long what happens within `limit` on a machine with nothing else to do may take on a busy one. It
/// stays below the timers that would bring it about otherwise (30 s and more).
pub(crate) fn on_a_busy_machine(limit: Duration) -> Duration {
    limit.max((limit * 10).min(Duration::from_secs(25)))
}

/// Asserts that something did not take longer than `limit`, on a busy machine not much longer.
#[track_caller]
pub(crate) fn assert_prompt(start: Instant, limit: Duration) {
    let (taken, allowed) = (start.elapsed(), on_a_busy_machine(limit));
    assert!(taken < allowed, "{taken:?} is more than {allowed:?}");
}

/// How long a test watches for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// Octets without a pattern, the same for the same length.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(length);
    octets
}

/// Whether `needle` occurs in `octets`.
pub(crate) fn contains(octets: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(octets, needle).is_some()
}
