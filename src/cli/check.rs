//! `check`: the configuration as it would be in effect, with the origin of each value.
//!
//! It shows no secret, no custom field's value, and opens no connection.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use actix_web::http::header::HeaderName;

use super::output;
use crate::{
    config::{ConfigSource, Loaded, OutboundRoute, Setting},
    server,
};

pub(super) fn run(source: &ConfigSource) -> ExitCode {
    match source.load() {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                output::complain(&format_args!("warning: {warning}"));
            }
            if let Err(fault) = server::further_checks(&loaded.config) {
                output::complain(&fault);
                return output::EXIT_USAGE.into();
            }
            output::say(report(&loaded).as_bytes())
        }
        Err(faults) => {
            output::complain(&faults);
            output::EXIT_USAGE.into()
        }
    }
}

fn report(loaded: &Loaded) -> String {
    let name_width = width(loaded, |setting| setting.variable.name.len());
    let value_width = width(loaded, |setting| value(setting, loaded).chars().count());
    let mut out = String::new();
    let mut section = None;
    for setting in &loaded.settings {
        if section != Some(setting.variable.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            section = Some(setting.variable.section);
            let _ = writeln!(out, "{gap}[{}]", setting.variable.section.title().en);
        }
        let (name, value) = (setting.variable.name, value(setting, loaded));
        let _ = writeln!(
            out,
            "{name:name_width$}  {value:value_width$}  {}",
            setting.origin
        );
    }
    let live = &loaded.config.live;
    let boot = &loaded.config.boot;
    let _ = writeln!(out, "\n[In effect]");
    let _ = writeln!(out, "env file       {}", file(&boot.env_file));
    let _ = writeln!(out, "headers file   {}", file(&boot.headers_file));
    let plain = boot.listen.plain.iter().map(ToString::to_string);
    let tls = boot
        .listen
        .tls
        .iter()
        .map(|address| format!("{address} (TLS)"));
    let unix = boot
        .listen
        .unix
        .iter()
        .map(|path| path.display().to_string());
    let listen: Vec<_> = plain.chain(tls).chain(unix).collect();
    let _ = writeln!(out, "listen         {}", listen.join(", "));
    for endpoint in &*live.endpoints {
        let _ = writeln!(
            out,
            "upstream       {}, {}{}",
            endpoint.upstream,
            road(&endpoint.route),
            match &endpoint.credential {
                Some(credential) => format!(", its own {}", credential.name),
                None => String::new(),
            }
        );
    }
    let edit = if live.edit.is_some() { "on" } else { "off" };
    let _ = writeln!(out, "edit           {edit}");
    let fields: Vec<_> = live
        .custom_fields
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let fields = if fields.is_empty() {
        "none".to_owned()
    } else {
        fields.join(", ")
    };
    let _ = writeln!(out, "custom fields  {fields}");
    if !live.removed_fields.is_empty() {
        let removed: Vec<_> = live.removed_fields.iter().map(HeaderName::as_str).collect();
        let _ = writeln!(out, "removed fields {}", removed.join(", "));
    }
    out
}

fn width(loaded: &Loaded, of: impl Fn(&Setting) -> usize) -> usize {
    loaded
        .settings
        .iter()
        .map(of)
        .max()
        .unwrap_or(0)
        .min(MOST_WIDTH)
}

fn value(setting: &Setting, loaded: &Loaded) -> String {
    let shown = setting.shown().unwrap_or_else(|| "(unset)".to_owned());
    match setting.variable.name {
        "WORKERS" if shown == "auto" => format!("auto ({})", loaded.config.boot.workers),
        _ => shown.escape_debug().to_string(),
    }
}

fn file(path: &Path) -> String {
    let missing = if path.exists() {
        ""
    } else {
        " (does not exist)"
    };
    format!("{}{missing}", path.display())
}

fn road(route: &OutboundRoute) -> String {
    match route {
        OutboundRoute::Direct => "direct".to_owned(),
        OutboundRoute::HttpProxy(proxy) => format!("HTTP proxy {proxy:?}"),
        OutboundRoute::Socks5 { proxy, .. } => format!("SOCKS5 proxy {proxy:?}"),
    }
}

/// A longer value moves its own origin, not that of all values.
const MOST_WIDTH: usize = 50;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Environment, Flags};

    #[test]
    fn every_variable_is_shown_with_its_origin_and_no_secret_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        fs::write(
            dir.path().join("env/.env"),
            "UPSTREAM_TIMEOUT=2m\nSYSTEM_PROMPT_REPLACEMENT=canary\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("env/.env.headers.json"),
            r#"{"x-a":"canary"}"#,
        )
        .unwrap();
        let flags = Flags {
            port: Some("0".into()),
            ..Flags::default()
        };
        let environment: Environment = [("all_proxy", "socks5://u:canary@p:1")]
            .into_iter()
            .collect();
        let loaded = ConfigSource::new(flags, environment)
            .rooted(dir.path())
            .load()
            .unwrap();
        let report = report(&loaded);
        let line = |name: &str| {
            let line = report
                .lines()
                .find(|line| line.split(' ').next() == Some(name));
            line.unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(!report.contains("canary"), "{report}");
        assert_eq!(line("PORT"), "PORT 0 flag --port");
        assert_eq!(line("HOST"), "HOST 127.0.0.1 default");
        assert!(line("UPSTREAM_TIMEOUT").starts_with("UPSTREAM_TIMEOUT 2m "));
        assert!(line("UPSTREAM_TIMEOUT").ends_with("env/.env line 1"));
        assert!(line("SYSTEM_PROMPT_REPLACEMENT").contains(" (6 octets) "));
        assert_eq!(line("ALL_PROXY"), "ALL_PROXY socks5://***@p:1 environment");
        assert_eq!(line("RUST_LOG"), "RUST_LOG (unset) default");
        assert_eq!(line("listen"), "listen 127.0.0.1:0");
        assert_eq!(line("custom"), "custom fields x-a");
        for variable in crate::config::env::table() {
            line(variable.name);
        }
    }
}
