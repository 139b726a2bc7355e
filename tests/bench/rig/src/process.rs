//! CPU time and memory of processes, from `/proc`.

use std::{fs, path::PathBuf};

use rustix::param::clock_ticks_per_second;

/// What a group of processes has used so far.
#[derive(Default)]
pub struct Usage {
    /// Nanoseconds of CPU time.
    pub cpu: u64,
    /// KiB of resident memory.
    pub resident: u64,
    /// KiB of resident memory at its most.
    pub peak: u64,
}

/// The processes and all that descend from them.
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut at = 0;
    while at < found.len() {
        let tasks = PathBuf::from(format!("/proc/{}/task", found[at]));
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split(' ')
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    found
}

/// The usage of these processes, by the scheduler's own count of nanoseconds.
pub fn usage(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let counts = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum.cpu += number(counts.split(' ').next());
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = |name: &str| {
            let mut lines = status.lines();
            number(lines.find_map(|line| line.strip_prefix(name)?.split_whitespace().next()))
        };
        sum.resident += value("VmRSS:");
        sum.peak += value("VmHWM:");
    }
    sum
}

/// Nanoseconds of CPU time that the machine has used, without waiting for its host.
pub fn machine() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .map(|text| number(Some(text)))
                .collect()
        })
        .unwrap_or_default();
    // user, nice, system, irq, softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
    busy * (1_000_000_000 / clock_ticks_per_second())
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
