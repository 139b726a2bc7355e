//! `keys migrate`: from the file of one replica to the store of several, and back.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use super::{
    desk::{Reach, VerbError, author, print_json},
    output::say,
};
use crate::registry::{MigrateError, Migrated, Migration};

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreName {
    /// The file in DATA_DIR
    Sqlite,
    /// STATE_URL
    Redis,
}

pub(super) fn run(
    from: StoreName,
    to: StoreName,
    is_dry: bool,
    reach: &Reach,
) -> Result<ExitCode, VerbError> {
    if from == to {
        return Err(VerbError::Usage(
            "--from and --to name the same store: give sqlite and redis, or redis and sqlite"
                .to_owned(),
        ));
    }
    let (data_dir, access) = reach.place()?;
    let Some(state) = access.state else {
        return Err(VerbError::Usage(
            "STATE_URL is not set: it names the Redis to migrate to or from".to_owned(),
        ));
    };
    let migration = Migration {
        data_dir,
        pepper: access.pepper,
        state,
        is_to_shared: to == StoreName::Redis,
        is_dry,
    };
    let migrated = migration.run(&author()).map_err(|error| match error {
        MigrateError::Open(error) => VerbError::Open(error),
        MigrateError::Refused(error) => VerbError::Refused {
            status: error.status(),
            message: error.to_string(),
        },
    })?;
    let Migrated {
        keys,
        subjects,
        spends,
        checkpoints,
    } = migrated;
    if reach.json {
        return Ok(print_json(&json!({
            "dry_run": is_dry,
            "keys": keys,
            "subjects": subjects,
            "spends": spends,
            "checkpoints": checkpoints,
        })));
    }
    let done = match (migrated == Migrated::default(), is_dry) {
        (true, _) => return Ok(say(b"nothing to migrate: the target has everything\n")),
        (false, true) => "would migrate",
        (false, false) => "migrated",
    };
    let counted = |number: usize, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    };
    let text = format!(
        "{done} {}, {}, {}, {}\n",
        counted(keys, "key", "keys"),
        counted(subjects, "other subject", "other subjects"),
        counted(spends, "sum of spend", "sums of spend"),
        counted(checkpoints, "checkpoint", "checkpoints")
    );
    Ok(say(text.as_bytes()))
}
