//! The first log lines: where to reach the proxy and its dashboard, and where requests go.
//!
//! A warning is for what the operator set or must mend; the rest is information. The lines that say
//! `listening on` end with the address, since programs read them.

use std::net::{SocketAddr, TcpListener};

use super::{listener::Listener, listeners::Listeners};
use crate::config::{Boot, Live};

/// Facts about the listeners for the first log lines.
pub(super) struct StartupSummary {
    pub(super) origins: Vec<String>,
    are_passed: bool,
    are_inherited: bool,
    pub(super) are_local: bool,
    /// Addresses of `ADMIN_LISTEN`.
    pub(super) alone: Vec<SocketAddr>,
}

impl StartupSummary {
    pub(super) fn of(listeners: &Listeners, alone: &[TcpListener]) -> Self {
        Self {
            alone: alone.iter().filter_map(|it| it.local_addr().ok()).collect(),
            origins: listeners.sockets.iter().map(Listener::origin).collect(),
            are_passed: listeners.are_passed,
            are_inherited: listeners.are_inherited,
            are_local: listeners.are_local(),
        }
    }

    /// URL of the dashboard for a client on this machine; a path where it is at no TCP port.
    pub(super) fn dashboard_url(&self, boot: &Boot) -> String {
        let alone = self.alone.first().map(|at| format!("http://{at}"));
        let origin = match boot.dashboard {
            true => self.url(),
            false => alone.map(|origin| reachable(&origin)),
        };
        format!("{}/admin", origin.unwrap_or_default())
    }

    /// URL of the main ports for a client on this machine: without TLS, if that is served.
    fn url(&self) -> Option<String> {
        let of = |scheme: &str| self.origins.iter().find(|it| it.starts_with(scheme));
        of("http://")
            .or_else(|| of("https://"))
            .map(|it| reachable(it))
    }
}

/// Writes the lines.
pub(super) fn announce(
    listeners: &StartupSummary,
    boot: &Boot,
    live: &Live,
    max_connections: usize,
    sign_in: Option<&str>,
) {
    for origin in &listeners.origins {
        log::info!("[Proxy] listening on {origin}");
    }
    if listeners.are_inherited {
        log::info!(
            "[Upgrade] the sockets of the earlier process are used; changes of HOST, PORT, TLS_PORT, UNIX_SOCKET \
             and ADMIN_LISTEN need a stop and a start"
        );
    } else if listeners.are_passed {
        log::info!(
            "[Proxy] sockets passed by systemd are used (LISTEN_FDS); HOST, PORT, TLS_PORT and UNIX_SOCKET are ignored"
        );
    }
    if listeners.are_local {
        log::info!(
            "[Proxy] reachable from this machine only; HOST=0.0.0.0 opens it to the network"
        );
    }
    if let Some(url) = listeners.url() {
        log::info!("[Proxy] for clients: ANTHROPIC_BASE_URL={url}");
    }
    for address in &listeners.alone {
        log::info!("[Admin] listening on http://{address}");
    }
    match sign_in {
        // the key is in this line alone
        Some(line) => log::info!("[Admin] {line}"),
        None if boot.has_pages() => {
            log::info!(
                "[Admin] the dashboard is at {}",
                listeners.dashboard_url(boot)
            );
        }
        None => {}
    }
    if let Some(limit) = &boot.memory_limit {
        log::info!(
            "[Proxy] {limit}: held bodies take up to {} MiB for the edit and {} MiB for the next upstream",
            boot.edit_memory >> 20,
            boot.replay_memory >> 20
        );
    }
    let fields = (live.custom_fields.len(), live.removed_fields.len());
    if fields != (0, 0) {
        log::info!(
            "[Custom Headers] sets {} fields, removes {}",
            fields.0,
            fields.1
        );
    }
    let upstreams = live.endpoints.iter();
    let upstreams: Vec<String> = upstreams.map(|it| it.upstream.to_string()).collect();
    let upstreams = upstreams.join(",");
    log::info!(
        "[Proxy] upstream={upstreams} workers={} max_connections={max_connections} edit={}",
        boot.workers,
        if live.edit.is_some() { "on" } else { "off" },
    );
}

/// An origin as this machine can ask for it: "every address" is none to ask for.
fn reachable(origin: &str) -> String {
    origin
        .replace("://0.0.0.0:", "://127.0.0.1:")
        .replace("://[::]:", "://[::1]:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(origins: &[&str]) -> StartupSummary {
        StartupSummary {
            origins: origins.iter().map(|&it| it.to_owned()).collect(),
            are_passed: false,
            are_inherited: false,
            are_local: true,
            alone: Vec::new(),
        }
    }

    #[test]
    fn the_url_is_one_to_use() {
        for (origins, url) in [
            (&["http://127.0.0.1:80"][..], Some("http://127.0.0.1:80")),
            (&["http://0.0.0.0:80"], Some("http://127.0.0.1:80")),
            (&["https://[::]:443", "unix:/s"], Some("https://[::1]:443")),
            (
                &["https://[::]:443", "http://[::]:80"],
                Some("http://[::1]:80"),
            ),
            (&["unix:/s"], None),
        ] {
            assert_eq!(announced(origins).url().as_deref(), url, "{origins:?}");
        }
    }
}
