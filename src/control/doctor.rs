//! The doctor as the running server sees it: its own settings, and its upstreams through a worker's HTTP client.
//!
//! It reads, calls and answers; `doctor_desk` bounds the runs.

use std::{rc::Rc, sync::Arc, time::Instant};

use actix_web::{HttpRequest, web};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    content::json,
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
use crate::{
    doctor::{
        AuditCheck, AuditFinding, CheckGroup, DataPlaces, DoctorReport, Door, Examination,
        GroupRun, ListenerPlaces, ServerPresence, Telling, UpstreamPlace, UpstreamVerdicts,
        data_checks, listener_checks, refusal, run_groups, running_configuration,
        shared_state_checks, upstream_checks,
    },
    registry::{AuditVerified, Author, Call, Change, Registry, RegistryError, Reply},
};

/// Wishes for a run.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct DoctorWish {
    /// Makes the one request to each upstream that costs money: at most 48 tokens of output.
    #[serde(default)]
    spend: bool,
}

/// The last run.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct LastDoctorRun {
    /// True while one is under way.
    running: bool,
    /// Its report; none before the first one has ended.
    report: Option<DoctorReport>,
}

/// The report of the last run of the doctor.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/doctor",
    operation_id = "doctor",
    tag = "doctor",
    responses(
        (status = 200, body = LastDoctorRun),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn last(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<web::Json<LastDoctorRun>, Problem> {
    let NoParams {} = read(&request)?;
    let (has, needs) = (plane.author(&request)?.role, Change::RunDoctor.needs());
    if has < needs {
        return Err(RegistryError::Forbidden { has, needs }.into());
    }
    let runs = plane.doctor.runs();
    Ok(web::Json(LastDoctorRun {
        running: runs.is_running,
        report: runs.last.clone(),
    }))
}

/// Runs the doctor: checks the configuration, the upstreams, the shared store, the listeners and the data.
///
/// One run at a time; it takes up to half a minute where something does not answer.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/doctor",
    operation_id = "run_doctor",
    tag = "doctor",
    request_body(content = DoctorWish, description = "`{}` for checks that cost nothing"),
    responses(
        (status = 200, body = DoctorReport),
        (status = 400, description = "content that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn run(
    plane: web::ThinData<Arc<AdminState>>,
    door: web::ThinData<Rc<dyn Door>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<DoctorReport>, Problem> {
    let NoParams {} = read(&request)?;
    let author = call::permit(&plane, &request, Change::RunDoctor, "server").await?;
    let DoctorWish { spend } = json(&request, payload, "{\"spend\": false}").await?;
    let running = plane
        .doctor
        .begin(Instant::now())
        .map_err(Problem::TooSoon)?;
    let why = if spend {
        "with a request that costs money"
    } else {
        ""
    };
    call::note(
        &plane,
        author.clone(),
        (Change::RunDoctor, "server"),
        why.to_owned(),
    );
    let examination = Examination {
        spend,
        ..Examination::default()
    };
    let report = plane.examine(&**door, &examination, author).await;
    plane.doctor.runs().last = Some(report.clone());
    drop(running);
    Ok(web::Json(report))
}

impl AdminState {
    async fn examine(
        &self,
        door: &dyn Door,
        examination: &Examination,
        author: Author,
    ) -> DoctorReport {
        let sources = &self.sources.doctor;
        let live = self.sources.live.load_full();
        let live = &*live;
        let configuration = running_configuration(&self.sources.standing.load());
        let verdicts = UpstreamVerdicts::of(live.endpoints.len());
        let mut groups: Vec<GroupRun<'_>> = vec![Box::pin(std::future::ready(configuration))];
        for endpoint in 0..live.endpoints.len() {
            let place = UpstreamPlace {
                door,
                live,
                endpoint,
                ca_file: sources.ca_file.clone(),
                listeners: Arc::clone(&sources.addresses),
                group: CheckGroup::Upstream,
            };
            groups.push(Box::pin(verdicts.note(upstream_checks(place, examination))));
        }
        groups.push(Box::pin(shared_state_checks(sources.state.clone())));
        let certificate = live.tls.as_ref().map(|tls| tls.leaf().clone());
        let places = ListenerPlaces {
            targets: sources.targets.clone(),
            certificate,
            presence: ServerPresence::Runs,
            refusal: refusal(sources.access, live),
            are_settings_named: true,
        };
        groups.push(Box::pin(listener_checks(places, verdicts.verdict())));
        groups.push(Box::pin(data_checks(DataPlaces {
            directory: self.sources.data_dir.clone(),
            audit: self.sources.registry.clone().map(|it| audit(it, author)),
            denied: None,
        })));
        run_groups(groups, Telling::InOrder, |_| {}).await
    }
}

/// The check of the audit by the registry.
fn audit(registry: Arc<Registry>, author: Author) -> AuditCheck {
    Box::new(move || match registry.answer(&author, &Call::VerifyAudit) {
        Ok(Reply::Verified(AuditVerified {
            chains, unanchored, ..
        })) => Ok(AuditFinding::of(&chains, unanchored)),
        Ok(_) => Err("the audit gave another answer".to_owned()),
        Err(error) => Err(error.to_string()),
    })
}
