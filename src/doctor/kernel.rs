//! Facts of the machine that explain limits: kernel, cores, descriptors, queues, memory.

use std::{fs, thread};

/// Names and values; what a machine does not tell is left out.
pub fn kernel_facts() -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("os", std::env::consts::OS.to_owned()),
        ("architecture", std::env::consts::ARCH.to_owned()),
    ];
    if let Ok(cores) = thread::available_parallelism() {
        facts.push(("cores", cores.to_string()));
    }
    #[cfg(unix)]
    if let Ok((soft, hard)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
        facts.push(("open_files", format!("{soft} of {hard}")));
    }
    for (name, path) in FILES {
        if let Ok(text) = fs::read_to_string(path) {
            let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            facts.push((name, line.chars().take(200).collect()));
        }
    }
    facts
}

const FILES: [(&str, &str); 12] = [
    ("kernel", "/proc/sys/kernel/osrelease"),
    ("uptime", "/proc/uptime"),
    ("load", "/proc/loadavg"),
    ("somaxconn", "/proc/sys/net/core/somaxconn"),
    ("port_range", "/proc/sys/net/ipv4/ip_local_port_range"),
    ("syn_backlog", "/proc/sys/net/ipv4/tcp_max_syn_backlog"),
    (
        "congestion_control",
        "/proc/sys/net/ipv4/tcp_congestion_control",
    ),
    ("tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"),
    ("tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem"),
    ("system_files", "/proc/sys/fs/file-nr"),
    ("memory_limit", "/sys/fs/cgroup/memory.max"),
    ("cpu_limit", "/sys/fs/cgroup/cpu.max"),
];
