//! The check of the audit: against the checkpoints of the store, or against itself alone while a shared store does not
//! tell them.

use std::path::Path;

use super::{error::RegistryError, view::AuditVerified};
use crate::{
    audit::{AUDIT_FOLDER, AuditLog, verify},
    state::{RedisFault, StateError, StoredCheckpoint},
};

/// Checks the chains of an audit. Where replicas share a store and it does not tell its checkpoints, what is on the
/// disk is checked against itself.
pub(super) fn verified(
    audit: &AuditLog,
    checkpoints: Result<Vec<StoredCheckpoint>, StateError>,
) -> Result<AuditVerified, RegistryError> {
    let (checkpoints, unanchored) = match checkpoints {
        Ok(checkpoints) => (checkpoints, None),
        Err(error @ StateError::Redis(_)) => (Vec::new(), Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let chains = verify(audit.directory(), audit.pepper(), &checkpoints)?;
    Ok(AuditVerified {
        ok: chains.iter().all(|chain| chain.broken.is_none()),
        unanchored,
        chains,
    })
}

/// Checks the chains in a directory without the store, which does not answer for this reason.
///
/// # Errors
/// A file cannot be read.
pub fn verify_without_store(
    data_dir: &Path,
    why: RedisFault,
) -> Result<AuditVerified, RegistryError> {
    // the pepper is that of checkpoints alone
    let audit = AuditLog::new(data_dir.join(AUDIT_FOLDER), b"");
    verified(&audit, Err(StateError::Redis(why)))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        audit::{ActorKind, AuditActor, AuditEntry, AuditTarget},
        state::RedisFaultKind,
    };

    fn away() -> RedisFault {
        RedisFault {
            kind: RedisFaultKind::Unreachable,
            place: "redis.example:6379".to_owned(),
            detail: "Connection refused".to_owned(),
        }
    }

    #[test]
    fn without_the_shared_store_the_files_are_checked_and_it_is_told_so() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(AUDIT_FOLDER);
        let audit = AuditLog::new(folder.clone(), b"pepper");
        for _ in 0..3 {
            audit.note(&entry(), "done").unwrap();
        }
        let found = verify_without_store(root.path(), away()).unwrap();
        let why = found.unanchored.unwrap();
        assert!(found.ok && why.contains("redis.example:6379"), "{why}");
        let chain = &found.chains[0];
        assert_eq!((chain.first, chain.last, chain.checkpoints), (1, 3, 0));
        let known = verified(&audit, Ok(Vec::new())).unwrap();
        assert!(known.ok && known.unanchored.is_none());
        // a store of this host has no reason not to tell them
        let gone = Err(StateError::Conflict);
        assert!(verified(&audit, gone).is_err());

        let files = fs::read_dir(&folder).unwrap();
        let mut files = files.map(|it| it.unwrap().path());
        let of_text = |path: &PathBuf| fs::metadata(path).unwrap().len() > 0;
        let file = files.find(of_text).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("key.create", "key.revoke", 1)).unwrap();
        let found = verify_without_store(root.path(), away()).unwrap();
        assert!(!found.ok && found.unanchored.is_some());
    }

    fn entry() -> AuditEntry {
        AuditEntry {
            actor: AuditActor {
                kind: ActorKind::Cli,
                id: "ann".to_owned(),
                ip: None,
                ua: None,
            },
            action: "key.create".to_owned(),
            target: AuditTarget {
                kind: "key".to_owned(),
                id: "one".to_owned(),
            },
            before: serde_json::Value::Null,
            after: serde_json::Value::Null,
            reason: None,
            request_id: "cli_1".to_owned(),
        }
    }
}
