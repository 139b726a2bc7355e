//! The checks of the store that replicas share (`STATE_URL`): its servers, scripts and clock, and the replicas.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    check::{Check, CheckGroup},
    run::bounded_blocking,
};
use crate::config::settings_that_differ;
use crate::state::{RedisInspector, RedisServer, RedisSettings, StateError, fleet::StoredBeat};

const GROUP: CheckGroup = CheckGroup::SharedState;

/// Difference of clocks in milliseconds above which times of several replicas cannot be compared.
const APART: i64 = 2_000;

/// Most variables that are named.
const MOST_NAMED: usize = 8;

/// Checks the shared store, if there is one.
pub async fn shared_state_checks(settings: Option<Arc<RedisSettings>>) -> Vec<Check> {
    let Some(settings) = settings else {
        return Vec::new();
    };
    let place = settings.place();
    let asked = Arc::clone(&settings);
    let (servers, took) = bounded_blocking(move || {
        let mut inspector = RedisInspector::new(&asked);
        let servers = inspector.servers();
        (inspector, servers)
    })
    .await;
    let Some((inspector, servers)) = servers else {
        return vec![late("servers").took(took)];
    };
    let servers = match servers {
        Ok(servers) => servers,
        Err(error) => return vec![failed("servers", &error).took(took)],
    };
    let mut checks = vec![served(&place, &servers).took(took)];
    let (clock, took) = bounded_blocking(move || {
        let mut inspector = inspector;
        let clock = inspector.clock();
        (inspector, clock)
    })
    .await;
    let Some((mut inspector, clock)) = clock else {
        checks.push(late("scripts").took(took));
        return checks;
    };
    match clock {
        Ok((trip, apart)) => {
            let found = format!("scripts run; a round trip takes {} ms", trip.as_millis());
            checks.push(Check::ok(GROUP, "scripts", found).took(took));
            checks.push(clocks(apart));
        }
        Err(error) => checks.push(failed("scripts", &error).took(took)),
    }
    let (beats, took) = bounded_blocking(move || inspector.beats()).await;
    checks.push(match beats {
        Some(Ok(beats)) => replicas(&beats).took(took),
        Some(Err(error)) => failed("replicas", &error).took(took),
        None => late("replicas").took(took),
    });
    checks
}

fn late(id: &'static str) -> Check {
    Check::fail(
        GROUP,
        id,
        "the store does not answer within 5 s",
        "check that Redis runs, and that this host reaches it at the address in STATE_URL",
    )
}

/// A fault of the store: its text has the condition and, after the last semicolon, the remedy.
fn failed(id: &'static str, error: &StateError) -> Check {
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((found, fix)) => Check::fail(GROUP, id, found, fix),
        None => Check::fail(GROUP, id, text, "look at the log of Redis"),
    }
}

fn served(place: &str, servers: &[RedisServer]) -> Check {
    const ID: &str = "servers";
    let first = servers.first();
    let version = first.map_or("unknown", |server| &server.version);
    let policy = first.map_or("unknown", |server| &server.policy);
    let found = format!("{place} is Redis {version}, maxmemory-policy {policy}");
    let mut check = Check::ok(GROUP, ID, found);
    for server in servers {
        check = check.with_evidence(format!("{} {}", server.version, server.policy));
    }
    check
}

fn clocks(apart: i64) -> Check {
    let word = if apart < 0 { "behind" } else { "ahead of" };
    let found = format!(
        "this machine's clock is {} ms {word} the store's",
        apart.abs()
    );
    if apart.abs() > APART {
        let fix = "synchronise the clocks of this machine and of Redis' (timedatectl set-ntp true, or chrony)";
        return Check::warn(GROUP, "clock", found, fix);
    }
    Check::ok(GROUP, "clock", found)
}

/// Content of a heartbeat, as far as it is compared.
#[derive(Default, Deserialize)]
#[serde(default)]
struct HeardBeat {
    name: String,
    version: String,
    config: String,
    settings: BTreeMap<String, String>,
}

fn replicas(beats: &[StoredBeat]) -> Check {
    const ID: &str = "replicas";
    let heard: Vec<HeardBeat> = beats
        .iter()
        .filter_map(|beat| serde_json::from_str(&beat.text).ok())
        .collect();
    if heard.is_empty() {
        return Check::skip(
            GROUP,
            ID,
            "no replica is heard of: none runs with this STATE_URL and STATE_PREFIX",
        );
    }
    let differing = |of: fn(&HeardBeat) -> &String| {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        heard
            .iter()
            .for_each(|beat| *counts.entry(of(beat)).or_default() += 1);
        counts.len() > 1
    };
    let (versions, configs) = (
        differing(|beat| &beat.version),
        differing(|beat| &beat.config),
    );
    let found = match heard.len() {
        1 => "1 replica runs".to_owned(),
        many => format!("{many} replicas run"),
    };
    let mut check = match (versions, configs) {
        (true, _) => Check::warn(
            GROUP,
            ID,
            format!("{found}, of different versions"),
            "bring all of them to one version, unless an update is under way",
        ),
        (false, true) => Check::warn(
            GROUP,
            ID,
            match &*differing_settings(&heard) {
                "" => format!("{found}, with different settings"),
                named => format!("{found}, with different settings: {named}"),
            },
            "give all of them the same settings (anthropic-proxy check shows them)",
        ),
        (false, false) => Check::ok(
            GROUP,
            ID,
            format!("{found}, of one version, with the same settings"),
        ),
    };
    for beat in &heard {
        let shown = |text: &str| -> String {
            text.chars()
                .filter(|it| !it.is_control())
                .take(60)
                .collect()
        };
        check = check.with_evidence(format!(
            "{} version {} settings {}",
            shown(&beat.name),
            shown(&beat.version),
            shown(&beat.config)
        ));
    }
    check
}

/// The variables that differ, as text; empty where a replica says none.
fn differing_settings(heard: &[HeardBeat]) -> String {
    let named = heard.iter().all(|beat| !beat.settings.is_empty());
    let names = match named {
        true => settings_that_differ(heard.iter().map(|beat| &beat.settings)),
        false => Vec::new(),
    };
    let is_name = |it: &&str| {
        it.bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'_')
    };
    let names: Vec<_> = names.into_iter().filter(is_name).collect();
    match names.len() {
        0..=MOST_NAMED => names.join(", "),
        many => format!(
            "{} and {} more",
            names[..MOST_NAMED].join(", "),
            many - MOST_NAMED
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::check::CheckStatus;
    use super::*;

    fn beat(name: &str, version: &str, config: &str) -> StoredBeat {
        StoredBeat {
            boot: name.to_owned(),
            age: Duration::ZERO,
            text:
                serde_json::json!({"name": name, "version": version, "config": config, "more": 1})
                    .to_string(),
        }
    }

    #[test]
    fn replicas_that_differ_are_a_warning() {
        let of = |beats: &[StoredBeat]| replicas(beats).status;
        assert_eq!(of(&[]), CheckStatus::Skip);
        assert_eq!(
            of(&[beat("a", "1", "x"), beat("b", "1", "x")]),
            CheckStatus::Ok
        );
        assert_eq!(
            of(&[beat("a", "1", "x"), beat("b", "2", "x")]),
            CheckStatus::Warn
        );
        let check = replicas(&[beat("a", "1", "x"), beat("b", "1", "y")]);
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.detail.contains("settings"), "{check:?}");
        let with = |name: &str, config: &str, settings: serde_json::Value| {
            let text = serde_json::json!({"name": name, "config": config, "settings": settings});
            StoredBeat {
                text: text.to_string(),
                ..beat(name, "", "")
            }
        };
        let one = with("a", "x", serde_json::json!({"ACCESS": "1", "TZ": "1"}));
        let other = with("b", "y", serde_json::json!({"ACCESS": "2", "TZ": "1"}));
        let check = replicas(&[one, other]);
        assert!(
            check.detail.ends_with("different settings: ACCESS"),
            "{check:?}"
        );
    }

    #[test]
    fn clocks_that_are_apart_are_a_warning() {
        assert_eq!(clocks(-1500).status, CheckStatus::Ok);
        assert_eq!(clocks(2500).status, CheckStatus::Warn);
        assert!(clocks(-2500).detail.contains("2500 ms behind"));
    }
}
