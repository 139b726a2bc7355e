//! The table of variables, and their raw values by name.
//!
//! `check`, `.env.example`, `docs/configuration.md` and every error are made from [`table()`]. envy
//! reads text only, so that all errors are found, not just the first.

use serde::Deserialize;

pub mod example;
pub mod reference;
mod table;
mod variable;

use self::table::{RETIRED, TABLE};
pub use self::variable::{Applies, Redaction, Section, Variable};

/// All variables, section by section.
pub fn table() -> &'static [Variable] {
    TABLE
}

/// The variable of that name.
pub fn variable(name: &str) -> Option<&'static Variable> {
    TABLE.iter().find(|variable| variable.name == name)
}

/// A name of the service we replace that means nothing here, and the line that says why.
pub(super) fn retired(name: &str) -> Option<&'static str> {
    RETIRED
        .iter()
        .find(|(retired, _)| *retired == name)
        .map(|(_, why)| *why)
}

/// The names that [`retired`] knows.
pub(super) fn retired_names() -> impl Iterator<Item = &'static str> {
    RETIRED.iter().map(|(name, _)| *name)
}

/// The values as text, as envy reads them: defaults filled in, none where there is no default.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawSettings {
    pub(super) api_base_url: Option<String>,
    pub(super) api_base_urls: Option<String>,
    pub(super) upstream_api_keys: Option<String>,
    pub(super) upstream_http_version: Option<String>,
    pub(super) failover_status: Option<String>,
    pub(super) preserve_host: Option<String>,
    pub(super) forwarded_headers: Option<String>,
    pub(super) headers_file: Option<String>,
    pub(super) allowed_origins: Option<String>,
    pub(super) system_prompt_replacement: Option<String>,
    pub(super) system_prompt_block_insert_if_not_exist: Option<String>,
    pub(super) system_prompt_target: Option<String>,
    pub(super) max_edit_body: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<String>,
    pub(super) tls_cert_file: Option<String>,
    pub(super) tls_key_file: Option<String>,
    pub(super) tls_port: Option<String>,
    pub(super) h2c: Option<String>,
    pub(super) unix_socket: Option<String>,
    pub(super) workers: Option<String>,
    pub(super) max_connections: Option<String>,
    pub(super) max_in_flight: Option<String>,
    pub(super) edit_memory: Option<String>,
    pub(super) max_replay_body: Option<String>,
    pub(super) replay_memory: Option<String>,
    pub(super) request_head_timeout: Option<String>,
    pub(super) request_body_timeout: Option<String>,
    pub(super) write_timeout: Option<String>,
    pub(super) keep_alive: Option<String>,
    pub(super) upstream_keep_alive: Option<String>,
    pub(super) upstream_max_age: Option<String>,
    pub(super) upstream_connect_timeout: Option<String>,
    pub(super) upstream_timeout: Option<String>,
    pub(super) generation_timeout: Option<String>,
    pub(super) stream_idle_timeout: Option<String>,
    pub(super) tunnel_idle_timeout: Option<String>,
    pub(super) drain_delay: Option<String>,
    pub(super) shutdown_timeout: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) rust_log: Option<String>,
    pub(super) debug_mode: Option<String>,
    pub(super) access_log: Option<String>,
    pub(super) access_log_max_size: Option<String>,
    pub(super) access_log_keep: Option<String>,
    pub(super) metering: Option<String>,
    pub(super) prices_file: Option<String>,
    pub(super) metrics_public: Option<String>,
    pub(super) enable_dashboard: Option<String>,
    pub(super) dashboard_api_key: Option<String>,
    pub(super) admin_listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) upstream_ca_file: Option<String>,
    pub(super) http_proxy: Option<String>,
    pub(super) https_proxy: Option<String>,
    pub(super) all_proxy: Option<String>,
    pub(super) no_proxy: Option<String>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "rustls-native-certs reads it by itself")
    )]
    pub(super) ssl_cert_file: Option<String>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "rustls-native-certs reads it by itself")
    )]
    pub(super) ssl_cert_dir: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_struct_and_the_table_agree() {
        let pairs = TABLE
            .iter()
            .map(|variable| (variable.name.to_owned(), "x".to_owned()));
        // Unknown fields are denied: every row has a field.
        let raw: RawSettings = envy::from_iter(pairs).unwrap();
        let raw = serde_json::to_value(&raw).unwrap();
        let fields = raw.as_object().unwrap();
        assert_eq!(fields.len(), TABLE.len());
        for (field, value) in fields {
            assert_eq!(value, "x", "`{field}` has no row");
        }
    }

    #[test]
    fn rows_are_complete_and_sections_are_contiguous() {
        let mut seen: Vec<Section> = Vec::new();
        for variable in TABLE {
            assert!(
                !variable.example.is_empty(),
                "{} has no example",
                variable.name
            );
            assert!(variable.doc.ends_with('.'), "{}", variable.name);
            assert!(!variable.doc.contains('\n'), "{}", variable.name);
            assert!(retired(variable.name).is_none(), "{}", variable.name);
            if seen.last() != Some(&variable.section) {
                assert!(!seen.contains(&variable.section), "{}", variable.name);
                seen.push(variable.section);
            }
        }
    }
}
