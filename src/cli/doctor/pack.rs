//! The parts of a bundle: the result, and what is around it.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::super::client::ApiClient;
use crate::{
    config::{AccessLogTarget, Loaded},
    doctor::{Bundle, BundlePart, DoctorReport, kernel_facts},
    secret::Secrets,
};

/// Lines of the access log, and bytes that are read for them.
const LINES: usize = 200;
const TAIL: u64 = 256 * 1024;

/// Time for the metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(5);

/// Sources of a bundle beside the checks.
pub(super) struct Around {
    /// The configuration, if it is valid.
    pub(super) loaded: Option<Loaded>,
    /// The running server.
    pub(super) server: Option<ApiClient>,
    /// Secrets that are not in the configuration.
    pub(super) secrets: Secrets,
}

impl Around {
    /// All secrets that are known.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = match &self.loaded {
            Some(loaded) => loaded.secrets(),
            None => Secrets::default(),
        };
        if self.loaded.is_none() {
            secrets.share(&Arc::new(self.secrets.clone()));
        }
        secrets
    }
}

/// Collects the parts.
pub(super) fn packed(report: &DoctorReport, around: &Around) -> Bundle {
    let mut parts = vec![
        BundlePart {
            name: "doctor",
            about: format!("the result of {} checks", report.checks.len()),
            content: json!(report),
            is_foreign: false,
        },
        BundlePart {
            name: "versions",
            about: "the version of this program and of the running server".to_owned(),
            content: versions(around),
            is_foreign: false,
        },
        BundlePart {
            name: "kernel",
            about: "operating system, cores, and limits of the machine".to_owned(),
            content: kernel_facts()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Value::String(value)))
                .collect::<Map<_, _>>()
                .into(),
            is_foreign: false,
        },
    ];
    if let Some(loaded) = &around.loaded {
        parts.push(BundlePart {
            name: "configuration",
            about: "each setting with its origin; of secrets the length".to_owned(),
            content: loaded
                .settings
                .iter()
                .map(|setting| {
                    json!({
                        "name": setting.variable.name,
                        "value": setting.shown(),
                        "origin": setting.origin.to_string(),
                    })
                })
                .collect(),
            is_foreign: false,
        });
        let log = loaded.config.boot.access_log.as_ref();
        if let Some(AccessLogTarget::File(path)) = log.map(|log| &log.target)
            && let Some(lines) = last_lines(path)
        {
            parts.push(BundlePart {
                name: "log",
                about: format!("the last {} lines of {}", lines.len(), path.display()),
                content: lines.into(),
                is_foreign: true,
            });
        }
    }
    if let Some(metrics) = around.server.as_ref().and_then(metrics) {
        parts.push(BundlePart {
            name: "metrics",
            about: "the metrics of the running server, with names of models and upstreams"
                .to_owned(),
            content: metrics.lines().collect(),
            is_foreign: false,
        });
    }
    Bundle { parts }
}

fn versions(around: &Around) -> Value {
    let server = around.server.as_ref();
    let overview = server.and_then(|server| server.ask("GET", "/overview", None, None).ok());
    json!({
        "program": env!("CARGO_PKG_VERSION"),
        "server": overview.map(|answer| answer.content["version"].clone()),
    })
}

fn metrics(server: &ApiClient) -> Option<String> {
    let answer = server
        .send("GET", "/metrics", None, None, METRICS_PATIENCE)
        .ok()?;
    match (answer.status, answer.content) {
        (200, Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The last lines of a file, whole ones.
fn last_lines(path: &Path) -> Option<Vec<String>> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut octets = Vec::new();
    file.take(TAIL).read_to_end(&mut octets).ok()?;
    let text = String::from_utf8_lossy(&octets);
    let mut lines: Vec<&str> = text.lines().collect();
    if from > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    let first = lines.len().saturating_sub(LINES);
    Some(
        lines[first..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect(),
    )
}
