//! The checks of a server before it is used: is it one that can keep keys and limits, and is the prefix ours?

use super::{
    command::{Command, LuaScript},
    connection::RedisConnection,
    fault::{RedisFault, RedisFaultKind},
    settings::{RedisSettings, TAG},
};
use crate::state::store::StateError;

/// Version of the layout of the keys. A server with a later one is an error.
const SCHEMA: u32 = 1;

/// Oldest release that can be used.
const OLDEST: (u32, u32) = (6, 2);

/// Pages of names that are looked through for those of another program.
const PAGES: usize = 200;

/// Names in a page.
const PAGE: usize = 1_000;

static BEGIN: LuaScript = LuaScript::new(include_str!("begin.lua"));

/// Checks release and eviction of each server.
pub(super) fn server(connection: &mut RedisConnection) -> Result<(), StateError> {
    let answers = connection.send_to_all(|| Command::keyless("INFO"))?;
    for answer in answers {
        let value = answer.map_err(StateError::Redis)?;
        let info: String = connection.converted(value)?;
        let place = connection.place();
        info_of(&info, &place).map_err(StateError::Redis)?;
    }
    Ok(())
}

fn info_of(info: &str, place: &str) -> Result<(), RedisFault> {
    let fault = |kind, detail: String| {
        Err(RedisFault {
            kind,
            place: place.to_owned(),
            detail,
        })
    };
    let value = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let Some(version) = value("redis_version") else {
        return fault(
            RedisFaultKind::NotRedis,
            "INFO tells no redis_version".to_owned(),
        );
    };
    let mut numbers = version.split('.').map(|it| it.parse().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < OLDEST {
        return fault(RedisFaultKind::TooOld, format!("it is {version}"));
    }
    match value("maxmemory_policy") {
        Some(policy) if policy.starts_with("allkeys") => fault(
            RedisFaultKind::Evicts,
            format!("maxmemory-policy is {policy}"),
        ),
        _ => Ok(()),
    }
}

/// Checks that the keys under the prefix are ours, and marks them.
pub(super) fn begin(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
    fingerprint: &str,
) -> Result<(), StateError> {
    let keys = [
        "meta",
        "keys",
        "keys:v",
        "subjects",
        "subjects:v",
        "checkpoints",
        "cells",
    ]
    .map(|key| settings.key(TAG, key));
    let fault = |kind, detail: String| {
        StateError::Redis(RedisFault {
            kind,
            place: settings.place(),
            detail,
        })
    };
    let is_marked: bool = connection.query(&Command::new("EXISTS", &keys[0]))?;
    if !is_marked && let Some(name) = foreign(connection, settings)? {
        return Err(fault(RedisFaultKind::Foreign, format!("there is {name:?}")));
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let begin = BEGIN.call(&keys).arg(SCHEMA).arg(fingerprint);
    let (found, detail): (String, String) = connection.query(&begin)?;
    match found.as_str() {
        "foreign" => Err(fault(
            RedisFaultKind::Foreign,
            format!("{detail:?} is of another kind"),
        )),
        "newer" => Err(fault(
            RedisFaultKind::Newer,
            format!("their layout has version {detail}"),
        )),
        "pepper" => Err(fault(RedisFaultKind::OtherPepper, String::new())),
        _ => Ok(()),
    }
}

/// The name of a key under the prefix that is not named as ours are.
fn foreign(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
) -> Result<Option<String>, StateError> {
    if connection.primaries()?.len() > 1 {
        // a cursor is of one node; the types of our own names are checked anyway
        return Ok(None);
    }
    let (ours, mut cursor) = (format!("{}:{{", settings.prefix), 0_u64);
    for _ in 0..PAGES {
        let scan = Command::keyless("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{}:*", settings.prefix))
            .arg("COUNT")
            .arg(PAGE);
        let (next, names): (u64, Vec<String>) = connection.query(&scan)?;
        if let Some(name) = names.into_iter().find(|name| !name.starts_with(&ours)) {
            return Ok(Some(name));
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_forgetful_servers_are_refused() {
        let kind = |info: &str| info_of(info, "h:1").err().map(|fault| fault.kind);
        let info = |version: &str, policy: &str| {
            format!(
                "# Server\r\nredis_version:{version}\r\nos:Linux\r\n\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n"
            )
        };
        for version in ["6.2.0", "7.0.15", "7.2.4", "8.0.1", "10.0"] {
            assert_eq!(kind(&info(version, "noeviction")), None, "{version}");
            assert_eq!(kind(&info(version, "volatile-lru")), None);
        }
        for version in ["5.0.14", "6.0.16", "x"] {
            let too_old = Some(RedisFaultKind::TooOld);
            assert_eq!(kind(&info(version, "noeviction")), too_old, "{version}");
        }
        for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
            let evicts = Some(RedisFaultKind::Evicts);
            assert_eq!(kind(&info("7.0.0", policy)), evicts, "{policy}");
        }
        assert_eq!(kind("# Sentinel\r\n"), Some(RedisFaultKind::NotRedis));
    }
}
