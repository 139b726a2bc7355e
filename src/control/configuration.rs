//! The configuration as it is shown: values with their origins, how the last reload went, and the file that
//! `control::revisions` changes.

use std::{path::Path, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
use crate::{
    config::{
        Setting,
        env::{Applies, Redaction},
        reload::{ConfigStatus, Reload},
    },
    revision::{ConfigView, RevisionError},
    telemetry::activity::unix_millis,
};

/// The configuration in effect.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct Configuration {
    /// Every variable, in the order of the documentation.
    settings: Vec<SettingShown>,
    /// Result of the last reload.
    last_reload: Option<LastReload>,
    /// Variables whose change waits for a restart.
    pending_restart: Vec<&'static str>,
    /// The file of settings.
    file: SettingsFile,
    /// Addresses that the proxy listens on, as URLs begin. `0.0.0.0` and `[::]` stand for every address of
    /// its machine.
    #[cfg_attr(test, schema(example = json!(["http://127.0.0.1:8088", "unix:/run/proxy.sock"])))]
    proxy_urls: Vec<String>,
    /// Folder of keys and history (`DATA_DIR`) on the proxy's machine, from its root on: verbs there find the
    /// proxy by it. Null without one.
    #[cfg_attr(test, schema(example = "/var/lib/anthropic-proxy"))]
    data_dir: Option<String>,
}

/// The file of settings.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct SettingsFile {
    /// Its path, on the proxy's machine.
    #[cfg_attr(test, schema(example = "env/.env"))]
    path: String,
    /// Its version, for `If-Match`; also the `ETag` of this answer. Null if it cannot be read.
    #[cfg_attr(test, schema(example = "5f0c1a9be2d47763"))]
    version: Option<String>,
    /// Reason for which it cannot be changed here; null if it can.
    read_only: Option<String>,
    /// Variables that it sets.
    names: Vec<String>,
}

impl SettingsFile {
    fn of(seen: Result<ConfigView, RevisionError>, path: &Path) -> Self {
        match seen {
            Ok(view) => Self {
                path: view.path.display().to_string(),
                version: Some(view.version),
                read_only: view.read_only,
                names: view.names,
            },
            Err(error) => Self {
                path: path.display().to_string(),
                version: None,
                read_only: Some(error.to_string()),
                names: Vec::new(),
            },
        }
    }
}

/// One variable.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Setting))]
struct SettingShown {
    /// Its name.
    name: &'static str,
    /// The value in effect as it may be shown: of a secret, its length.
    value: Option<String>,
    /// The value after a restart, shown alike and empty for none; null where nothing waits.
    next: Option<String>,
    /// Its default; empty for none.
    default: &'static str,
    /// Source of the value in effect.
    #[cfg_attr(test, schema(example = "env/.env line 3"))]
    origin: String,
    /// Time at which a change takes effect.
    applies: When,
    /// Its heading.
    section: &'static str,
    /// Its heading in Chinese.
    section_zh: &'static str,
    /// Its description.
    doc: &'static str,
    /// Its description in Chinese.
    doc_zh: &'static str,
    /// True for a secret.
    secret: bool,
}

/// Time at which a change takes effect.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
enum When {
    /// On reload.
    Live,
    /// On restart.
    Restart,
}

/// A reload.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct LastReload {
    /// Its time, in Unix milliseconds.
    at: u64,
    /// True if it took effect.
    ok: bool,
    /// Faults that were found.
    faults: Vec<String>,
}

/// The configuration in effect, with the source of each value.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/config",
    operation_id = "config",
    tag = "configuration",
    responses(
        (status = 200, body = Configuration),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn answer(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    let plane = Arc::clone(&plane.0);
    let looked = Arc::clone(&plane);
    let file = plane.aside.run(move || {
        let editor = &looked.sources.editor;
        SettingsFile::of(editor.view(), &editor.path())
    });
    let file = file.await?;
    let standing = plane.sources.standing.load();
    let sources = &plane.sources;
    let data_dir = sources.data_dir.as_ref().map(|path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        path.display().to_string()
    });
    let places = (sources.proxy_urls.clone(), data_dir);
    let mut response = HttpResponse::Ok();
    if let Some(version) = &file.version {
        response.insert_header((header::ETAG, format!("\"{version}\"")));
    }
    Ok(response.json(Configuration::of(&standing, file, places)))
}

impl Configuration {
    fn of(
        standing: &ConfigStatus,
        file: SettingsFile,
        (proxy_urls, data_dir): (Vec<String>, Option<String>),
    ) -> Self {
        // both are in the order of the one table
        let settings = standing.settings.iter().zip(&standing.next);
        Self {
            settings: settings
                .map(|(now, next)| {
                    let waits = standing.pending_restart.contains(&next.variable.name);
                    SettingShown::of(now, waits.then_some(next))
                })
                .collect(),
            last_reload: standing.reloads.back().map(LastReload::of),
            pending_restart: standing.pending_restart.clone(),
            file,
            proxy_urls,
            data_dir,
        }
    }
}

impl SettingShown {
    fn of(setting: &Setting, next: Option<&Setting>) -> Self {
        let variable = setting.variable;
        let section = variable.section.title();
        Self {
            name: variable.name,
            value: setting.shown(),
            next: next.map(|next| next.shown().unwrap_or_default()),
            default: variable.default,
            origin: setting.origin.to_string(),
            applies: match variable.applies {
                Applies::Live => When::Live,
                Applies::Restart => When::Restart,
            },
            section: section.en,
            section_zh: section.zh,
            doc: variable.doc.en,
            doc_zh: variable.doc.zh,
            secret: variable.shown == Redaction::AsLength,
        }
    }
}

impl LastReload {
    fn of(reload: &Reload) -> Self {
        Self {
            at: unix_millis(reload.at),
            ok: reload.faults.is_empty(),
            faults: reload.faults.clone(),
        }
    }
}
