//! The process as Linux sees it: the names that every Prometheus client library exposes.
//!
//! Read from `/proc/self` (proc(5)) at a scrape; unreadable values are left out.

use std::{fmt::Result, fs};

use super::{
    family::{Family, Unit},
    writer::FamilyWriter,
};

/// Read at a scrape.
#[derive(Debug, Default)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    start_time: Option<f64>,
    threads: Option<u64>,
    resident: Option<u64>,
    virtual_memory: Option<u64>,
    open_files: Option<usize>,
    most_files: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let stat = read("/proc/self/stat").unwrap_or_default();
        let auxiliary = fs::read("/proc/self/auxv").unwrap_or_default();
        let ticks = auxiliary_value(&auxiliary, AT_CLKTCK).unwrap_or(USER_HZ) as f64;
        let page = auxiliary_value(&auxiliary, AT_PAGESZ);
        let field = |number| stat_field(&stat, number);
        let boot = read("/proc/stat").and_then(|text| boot_time(&text));
        Self {
            cpu_seconds: field(UTIME)
                .zip(field(STIME))
                .map(|(user, system)| (user + system) as f64 / ticks),
            start_time: boot
                .zip(field(STARTTIME))
                .map(|(boot, since)| boot as f64 + since as f64 / ticks),
            threads: field(NUM_THREADS),
            resident: field(RSS).zip(page).map(|(pages, page)| pages * page),
            virtual_memory: field(VSIZE),
            // the folder that is being read is one of them
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count().saturating_sub(1)),
            most_files: rlimit::Resource::NOFILE
                .get_soft()
                .ok()
                .filter(|most| *most != rlimit::INFINITY),
        }
    }

    /// Open file descriptors, and the upper bound of them.
    pub(super) fn descriptors(&self) -> Option<(u64, u64)> {
        let open = u64::try_from(self.open_files?).ok()?;
        Some((open, self.most_files?))
    }

    pub(super) fn write(&self, out: &mut FamilyWriter<'_>) -> Result {
        out.counters(&CPU, self.cpu_seconds.map(|seconds| ([], seconds)))?;
        out.gauges(&START, self.start_time.map(|time| ([], time)))?;
        out.gauges(&THREADS, self.threads.map(|threads| ([], threads)))?;
        out.gauges(&RESIDENT, self.resident.map(|bytes| ([], bytes)))?;
        out.gauges(&VIRTUAL, self.virtual_memory.map(|bytes| ([], bytes)))?;
        out.gauges(&OPEN_FILES, self.open_files.map(|files| ([], files)))?;
        out.gauges(&MOST_FILES, self.most_files.map(|files| ([], files)))
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc(5). The second is a name in parentheses,
/// which may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// Seconds since the epoch at which the system started.
fn boot_time(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// A value of the auxiliary vector: pairs of words of the machine.
fn auxiliary_value(vector: &[u8], kind: usize) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |octets: &[u8]| octets.try_into().ok().map(usize::from_ne_bytes);
    vector.chunks_exact(2 * WORD).find_map(|pair| {
        let (key, value) = pair.split_at(WORD);
        (word(key)? == kind).then(|| word(value).map(|value| value as u64))?
    })
}

// fields of /proc/PID/stat
const UTIME: usize = 14;
const STIME: usize = 15;
const NUM_THREADS: usize = 20;
const STARTTIME: usize = 22;
const VSIZE: usize = 23;
const RSS: usize = 24;

// keys of the auxiliary vector (getauxval(3))
const AT_PAGESZ: usize = 6;
const AT_CLKTCK: usize = 17;

/// Ticks of a second on every Linux that is in use.
const USER_HZ: u64 = 100;

const CPU: Family = Family {
    name: "process_cpu",
    unit: Some(Unit::Seconds),
    help: "Total user and system CPU time spent in seconds.",
};

const START: Family = Family {
    name: "process_start_time",
    unit: Some(Unit::Seconds),
    help: "Start time of the process since the Unix epoch in seconds.",
};

const THREADS: Family = Family {
    name: "process_threads",
    unit: None,
    help: "Number of threads of the process.",
};

const RESIDENT: Family = Family {
    name: "process_resident_memory",
    unit: Some(Unit::Bytes),
    help: "Resident memory size in bytes.",
};

const VIRTUAL: Family = Family {
    name: "process_virtual_memory",
    unit: Some(Unit::Bytes),
    help: "Virtual memory size in bytes.",
};

const OPEN_FILES: Family = Family {
    name: "process_open_fds",
    unit: None,
    help: "Number of open file descriptors.",
};

const MOST_FILES: Family = Family {
    name: "process_max_fds",
    unit: None,
    help: "Maximum number of open file descriptors.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 110 120 0 0 20 0 7 0 5000 1048576 300 1";
        for (number, value) in [
            (UTIME, 110),
            (STIME, 120),
            (NUM_THREADS, 7),
            (STARTTIME, 5000),
            (VSIZE, 1_048_576),
            (RSS, 300),
        ] {
            assert_eq!(stat_field(stat, number), Some(value), "{number}");
        }
        assert_eq!(stat_field(stat, 99), None);
        assert_eq!(stat_field("", UTIME), None);
    }

    #[test]
    fn the_auxiliary_vector_is_read_in_pairs() {
        let words = [17_usize, 6, 6, 4096, 0, 0];
        let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(auxiliary_value(&octets, AT_PAGESZ), Some(4096));
        assert_eq!(auxiliary_value(&octets, AT_CLKTCK), Some(6));
        assert_eq!(auxiliary_value(&octets, 3), None);
        assert_eq!(auxiliary_value(&[1, 2, 3], AT_PAGESZ), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        let process = Process::read();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let age = now - process.start_time.unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!((1 << 20..1 << 40).contains(&process.resident.unwrap()));
        assert!(process.virtual_memory.unwrap() >= process.resident.unwrap());
        assert!(process.threads.unwrap() >= 1);
        assert!(process.open_files.unwrap() >= 3);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
    }
}
