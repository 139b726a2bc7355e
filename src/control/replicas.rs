//! The replicas: what each said last, and their sums.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use actix_web::{HttpRequest, web};
use serde::Serialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    heard::{FleetSnapshot, HeardReplica, ReplicaBeat},
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
use crate::{config::settings_that_differ, telemetry::activity::unix_millis};

/// The replicas.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Replicas))]
pub(super) struct ReplicaList {
    /// True if replicas share a store (`STATE_URL`); else this one is alone.
    shared: bool,
    /// Fault of the shared store; null while it is used.
    fault: Option<String>,
    /// The copy of the shared store that this replica keeps for a start without it; null without one.
    copy: Option<StoreCopy>,
    /// Time at which the replicas were read.
    read_at: u64,
    /// Those that run, the oldest first.
    items: Vec<ReplicaRow>,
    /// Their sums.
    sums: ReplicaSums,
}

/// The copy of keys and limits of the shared store.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct StoreCopy {
    /// Time at which it was last current.
    at: u64,
    /// True if keys and limits in effect are those of the copy: the store has not answered since the start.
    in_use: bool,
}

/// A replica.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Replica))]
struct ReplicaRow {
    /// Names this run of the process.
    boot_id: String,
    /// The name of its host, and its port.
    name: String,
    /// True for the replica that answers.
    own: bool,
    /// Its state.
    state: ReplicaState,
    /// The version of the program.
    version: String,
    /// True if most replicas have another version.
    version_differs: bool,
    /// Digest of the settings that replicas have in common, as far as they may be shown.
    #[cfg_attr(test, schema(example = "5f2b8c0e91aa"))]
    config: String,
    /// True if most replicas have other settings.
    config_differs: bool,
    /// Variables that are not as in a replica that has what most have.
    config_differing: Vec<String>,
    /// Time of its start.
    started_at: u64,
    /// Time of its last heartbeat.
    seen_at: u64,
    /// Exchanges in flight.
    in_flight: u64,
    /// Exchanges since its start.
    requests: u64,
    /// Those that failed.
    errors: u64,
    /// Upstreams whose circuit is open there.
    open_circuits: Vec<String>,
}

/// State of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
enum ReplicaState {
    /// It runs.
    Running,
    /// It ends: what it has in flight runs on.
    Draining,
    /// Its last heartbeats are missing.
    Silent,
}

/// Sums of all replicas.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct ReplicaSums {
    /// Replicas.
    replicas: usize,
    /// Exchanges in flight.
    in_flight: u64,
    /// Exchanges since their starts.
    requests: u64,
    /// Those that failed.
    errors: u64,
}

/// Milliseconds without a heartbeat after which a replica is silent: it says one each second.
const SILENT: u64 = 4000;

/// The replicas that run, with their versions, settings and sums.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/replicas",
    operation_id = "replicas",
    tag = "activity",
    responses(
        (status = 200, body = ReplicaList),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn answer(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<web::Json<ReplicaList>, Problem> {
    let NoParams {} = read(&request)?;
    let snapshot = (plane.sources.replicas)();
    let now = SystemTime::now();
    let mut list = ReplicaList::of(&snapshot, &plane.sources.boot_id, now);
    let registry = plane.sources.registry.as_ref();
    list.copy = registry
        .and_then(|registry| registry.copy_health())
        .map(|(at, in_use)| StoreCopy {
            at: at.max(0).unsigned_abs().saturating_mul(1000),
            in_use,
        });
    Ok(web::Json(list))
}

impl ReplicaList {
    fn of(snapshot: &FleetSnapshot, own: &str, now: SystemTime) -> Self {
        let mut replicas: Vec<&HeardReplica> = snapshot.replicas.iter().collect();
        replicas.sort_by_key(|it| (it.beat.started_at, &it.boot));
        let version = most(&replicas, own, |beat| &beat.version);
        let config = most(&replicas, own, |beat| &beat.config);
        let common = replicas.iter().find(|it| Some(&it.beat.config) == config);
        let differing = |beat: &ReplicaBeat| match common {
            // an earlier version says none
            Some(common) if !common.beat.settings.is_empty() && !beat.settings.is_empty() => {
                let names = settings_that_differ([&common.beat.settings, &beat.settings]);
                names.into_iter().map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let mut sums = ReplicaSums {
            replicas: replicas.len(),
            ..ReplicaSums::default()
        };
        for HeardReplica { beat, .. } in &replicas {
            sums.in_flight = sums.in_flight.saturating_add(beat.in_flight);
            sums.requests = sums.requests.saturating_add(beat.requests);
            sums.errors = sums.errors.saturating_add(beat.errors);
        }
        let row = |replica: &&HeardReplica| {
            let HeardReplica { boot, at, beat } = *replica;
            let (is_own, seen_at) = (*boot == own, unix_millis(*at));
            let is_late = unix_millis(now).saturating_sub(seen_at) >= SILENT;
            ReplicaRow {
                boot_id: boot.clone(),
                name: beat.name.clone(),
                own: is_own,
                state: match beat.draining {
                    _ if is_late && !is_own => ReplicaState::Silent,
                    true => ReplicaState::Draining,
                    false => ReplicaState::Running,
                },
                version: beat.version.clone(),
                version_differs: Some(&beat.version) != version,
                config: beat.config.clone(),
                config_differs: Some(&beat.config) != config,
                config_differing: differing(beat),
                started_at: beat.started_at,
                seen_at,
                in_flight: beat.in_flight,
                requests: beat.requests,
                errors: beat.errors,
                open_circuits: beat.open.iter().map(|(name, _)| name.to_string()).collect(),
            }
        };
        Self {
            shared: snapshot.is_shared,
            fault: snapshot.fault.clone(),
            copy: None,
            read_at: unix_millis(snapshot.read_at.unwrap_or(now)),
            items: replicas.iter().map(row).collect(),
            sums,
        }
    }
}

/// The value that most replicas have; of two that are as frequent, that of this one.
fn most<'a>(
    replicas: &[&'a HeardReplica],
    own: &str,
    of: impl Fn(&'a ReplicaBeat) -> &'a String,
) -> Option<&'a String> {
    let mut counts: HashMap<&String, (usize, bool)> = HashMap::new();
    for replica in replicas {
        let (count, is_own) = counts.entry(of(&replica.beat)).or_default();
        *count += 1;
        *is_own |= replica.boot == own;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(text, counts)| (*counts, *text));
    most.map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(boot: &str, version: &str, config: &str) -> HeardReplica {
        HeardReplica {
            boot: boot.to_owned(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            beat: ReplicaBeat {
                version: version.to_owned(),
                config: config.to_owned(),
                in_flight: 2,
                requests: 10,
                errors: 1,
                ..ReplicaBeat::default()
            },
        }
    }

    fn list(replicas: Vec<HeardReplica>, seconds: u64) -> ReplicaList {
        let snapshot = FleetSnapshot {
            replicas,
            is_shared: true,
            ..FleetSnapshot::default()
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        ReplicaList::of(&snapshot, "a", now)
    }

    #[test]
    fn what_few_replicas_have_is_marked() {
        let replicas = vec![
            heard("a", "1", "x"),
            heard("b", "1", "y"),
            heard("c", "2", "x"),
        ];
        let list = list(replicas, 100);
        let marks = list.items.iter();
        let marks: Vec<_> = marks
            .map(|it| (it.version_differs, it.config_differs))
            .collect();
        assert_eq!(marks, [(false, false), (false, true), (true, false)]);
        let sums = ReplicaSums {
            replicas: 3,
            in_flight: 6,
            requests: 30,
            errors: 3,
        };
        assert_eq!(list.sums, sums);
    }

    #[test]
    fn settings_that_differ_are_named() {
        let with = |boot: &str, config: &str, named: &[(&str, &str)]| {
            let mut heard = heard(boot, "1", config);
            let named = named
                .iter()
                .map(|(name, it)| ((*name).into(), (*it).into()));
            heard.beat.settings = named.collect();
            heard
        };
        let named = |replicas| {
            let named = list(replicas, 100).items.into_iter();
            named
                .map(|it| it.config_differing.join(" "))
                .collect::<Vec<_>>()
        };
        let one = with("a", "x", &[("TZ", "1")]);
        let other = with("b", "y", &[("TZ", "1"), ("ACCESS", "1")]);
        assert_eq!(named(vec![one.clone(), other]), ["", "ACCESS"]);
        assert_eq!(named(vec![one, with("c", "z", &[])]), ["", ""]);
    }

    #[test]
    fn of_two_the_other_one_differs() {
        let list = list(vec![heard("b", "1", "y"), heard("a", "2", "x")], 100);
        let marks = list
            .items
            .iter()
            .map(|it| (&*it.boot_id, it.version_differs));
        assert_eq!(marks.collect::<Vec<_>>(), [("a", false), ("b", true)]);
    }

    #[test]
    fn a_replica_without_heartbeats_is_silent() {
        let mut ends = heard("c", "1", "x");
        ends.beat.draining = true;
        let state = |seconds: u64| {
            let list = list(
                vec![heard("a", "1", "x"), heard("b", "1", "x"), ends.clone()],
                seconds,
            );
            let states = list.items.iter().map(|it| it.state);
            states.collect::<Vec<_>>()
        };
        use ReplicaState::{Draining, Running, Silent};
        assert_eq!(state(102), [Running, Running, Draining]);
        // the one that answers is not
        assert_eq!(state(104), [Running, Silent, Silent]);
    }
}
