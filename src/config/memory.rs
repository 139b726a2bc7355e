//! Memory limits of the process: its control group's limit and RLIMIT_AS.
//!
//! A budget above the limit is useless: the kernel ends the process, and every stream with it, before
//! the budget refuses anything. So budgets follow the limit, as connections follow the limit of file
//! descriptors. The machine's own memory is not read: it is shared, and may be swapped.

use std::{fs, path::Path};

/// Divisor for held bodies under a limit of resident memory: half of it. The other half is for
/// connections (10 KB a stream), the dashboard's history (98 MiB at most) and the allocator.
const RESIDENT_SHARE: u64 = 2;
/// The same of a limit of addresses, of which each thread's heap reserves 64 MiB or more.
const ADDRESS_SHARE: u64 = 4;

/// The limits of the process; none where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemoryLimits {
    /// Limit of resident memory, from a control group.
    pub(super) resident: Option<u64>,
    /// Limit of address space (`RLIMIT_AS`).
    pub(super) addresses: Option<u64>,
}

impl MemoryLimits {
    /// The limits of this process, as they are now.
    pub(super) fn of_process() -> Self {
        let addresses = rlimit::Resource::AS.get_soft().ok();
        Self {
            resident: cgroup(Path::new("/")),
            addresses: addresses.filter(|limit| *limit != rlimit::INFINITY),
        }
    }

    /// Bytes that all held bodies may take together.
    pub(super) fn for_bodies(self) -> Option<u64> {
        let resident = self.resident.map(|limit| limit / RESIDENT_SHARE);
        let addresses = self.addresses.map(|limit| limit / ADDRESS_SHARE);
        resident.into_iter().chain(addresses).min()
    }
}

impl std::fmt::Display for MemoryLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = [
            ("the control group's memory limit", self.resident),
            ("RLIMIT_AS", self.addresses),
        ];
        let said = limits
            .iter()
            .filter_map(|(what, limit)| Some((what, (*limit)?)));
        for (index, (what, limit)) in said.enumerate() {
            let and = if index > 0 { " and " } else { "" };
            write!(f, "{and}{what} of {} MiB", limit >> 20)?;
        }
        Ok(())
    }
}

/// The least limit of the control groups that the process is in, of version 2 or 1; below `root`.
fn cgroup(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounted = root.join("sys/fs/cgroup");
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => (mounted.clone(), "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // a limit of a group is one of those below it; a path may be of another namespace
        let path = mount.join(path.trim_start_matches('/'));
        for group in path.ancestors().take_while(|it| it.starts_with(&mount)) {
            let limit = fs::read_to_string(group.join(file)).ok();
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
            // version 1 has no word for "none", but a number beyond any machine
            if let Some(limit) = limit.filter(|limit| *limit < UNLIMITED) {
                least = Some(least.map_or(limit, |other| other.min(limit)));
            }
        }
    }
    least
}

const UNLIMITED: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        cgroup(dir.path())
    }

    #[test]
    fn the_least_limit_of_version_2_counts() {
        let own = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(system(&[own]), None);
        let unlimited = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(system(&[own, unlimited]), None);
        let above = ("sys/fs/cgroup/a/memory.max", "1000\n");
        assert_eq!(system(&[own, unlimited, above]), Some(1000));
        let lower = ("sys/fs/cgroup/a/b/memory.max", "500\n");
        assert_eq!(system(&[own, lower, above]), Some(500));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let limit = ("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(
            system(&[("proc/self/cgroup", "0::/\n"), limit]),
            Some(512 << 20)
        );
        // or as a path of the host's
        let host = ("proc/self/cgroup", "0::/../../docker/x\n");
        assert_eq!(system(&[host, limit]), Some(512 << 20));
    }

    #[test]
    fn version_1_is_read_too() {
        let own = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
        );
        let none = (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(system(&[own, none]), None);
        let limit = (
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
            "1000\n",
        );
        assert_eq!(system(&[own, none, limit]), Some(1000));
    }

    #[test]
    fn budgets_follow_the_limit_and_bodies_their_budget() {
        use super::super::{ConfigSource, Environment, Flags};
        let dir = tempfile::tempdir().unwrap();
        let load = |limit: u64, environment: &[(&str, &str)]| {
            let named = [("API_BASE_URL", "http://upstream.test")];
            let environment: Environment = environment.iter().copied().chain(named).collect();
            let mut source = ConfigSource::new(Flags::default(), environment).rooted(dir.path());
            source.memory.resident = Some(limit);
            source.load().unwrap()
        };
        let prompt = ("SYSTEM_PROMPT_REPLACEMENT", "x");
        let roomy = load(4 << 30, &[prompt]);
        let boot = roomy.config.boot;
        assert_eq!(
            (boot.edit_memory, boot.replay_memory),
            (512 << 20, 256 << 20)
        );
        assert_eq!(boot.memory_limit, None);
        // the defaults give way silently, in proportion
        let tight = load(96 << 20, &[prompt]);
        assert_eq!(tight.warnings, []);
        let boot = tight.config.boot;
        assert_eq!((boot.edit_memory, boot.replay_memory), (32 << 20, 16 << 20));
        assert!(boot.memory_limit.unwrap().contains("limit of 96 MiB"));
        let tiny = load(24 << 20, &[prompt]);
        assert_eq!(tiny.config.boot.edit_memory, 8 << 20);
        assert_eq!(tiny.config.live.edit.unwrap().max_body, 8 << 20);
        // what was set gives way with a warning
        let set = load(96 << 20, &[prompt, ("EDIT_MEMORY", "512MiB")]);
        let [warning] = &set.warnings[..] else {
            panic!("{:?}", set.warnings)
        };
        assert_eq!(warning.variable, "EDIT_MEMORY");
        assert!(warning.to_string().contains("using 32768 KiB"), "{warning}");
        // and what fits stays
        let fits = load(
            96 << 20,
            &[("EDIT_MEMORY", "32MiB"), ("REPLAY_MEMORY", "1MiB")],
        );
        assert_eq!(fits.config.boot.edit_memory, 32 << 20);
    }

    #[test]
    fn bodies_get_a_part() {
        let limits = |resident, addresses| {
            MemoryLimits {
                resident,
                addresses,
            }
            .for_bodies()
        };
        assert_eq!(limits(None, None), None);
        assert_eq!(limits(Some(1000), None), Some(500));
        assert_eq!(limits(Some(1000), Some(1000)), Some(250));
    }
}
