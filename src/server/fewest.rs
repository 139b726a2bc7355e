//! The fewest file descriptors that the process can work with.
//!
//! Below that, workers would panic in the middle of their start while the listener accepts: a start
//! that fails is clear.

/// Standard streams, the reactor and signals of main, a listener, the watch of the files, and one
/// exchange with its two connections: 20 were open with one listener and the dashboard, without the
/// workers'.
const OF_THE_PROCESS: u64 = 24;
/// A worker's reactor: 4 were open for each.
const OF_A_WORKER: u64 = 4;

/// Too few file descriptors.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {files}, and {workers} workers need {needed} at least: raise it with \
     `ulimit -n`, LimitNOFILE= or ulimits.nofile, or lower WORKERS"
)]
pub(super) struct TooFewFiles {
    files: u64,
    workers: u64,
    needed: u64,
}

/// Raises the limit as far as is needed and allowed; fails where that is not enough.
pub(super) fn ensure(workers: usize) -> Result<(), TooFewFiles> {
    let needed = needed(workers as u64);
    match rlimit::increase_nofile_limit(needed) {
        Ok(files) => check(files, workers as u64),
        // nothing is known: it may be enough
        Err(_) => Ok(()),
    }
}

fn check(files: u64, workers: u64) -> Result<(), TooFewFiles> {
    let needed = needed(workers);
    match files < needed {
        true => Err(TooFewFiles {
            files,
            workers,
            needed,
        }),
        false => Ok(()),
    }
}

fn needed(workers: u64) -> u64 {
    OF_THE_PROCESS + OF_A_WORKER * workers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_says_what_is_needed() {
        assert_eq!(check(32, 2), Ok(()));
        let fault = check(22, 2).unwrap_err().to_string();
        assert!(
            fault.contains("open files is 22, and 2 workers need 32 at least"),
            "{fault}"
        );
    }
}
