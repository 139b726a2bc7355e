use std::fs;

use super::*;
use crate::audit::{entry::*, log::AuditLog};

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        actor: AuditActor::system(),
        action: "key.create".to_owned(),
        target: AuditTarget {
            kind: "key".to_owned(),
            id: number.to_string(),
        },
        before: serde_json::Value::Null,
        after: serde_json::json!({"name": format!("key {number}"), "budget": 100 + number}),
        reason: None,
        request_id: format!("req_{number}"),
    }
}

/// A chain of ten lines, and the checkpoints of its fifth and its last line.
struct Chain {
    directory: tempfile::TempDir,
    log: AuditLog,
    checkpoints: Vec<StoredCheckpoint>,
}

impl Chain {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditLog::new(directory.path().to_owned(), b"pepper");
        let mut checkpoints = Vec::new();
        for number in 1..=10 {
            log.note(&entry(number), "done").unwrap();
            if number % 5 == 0 {
                checkpoints.extend(log.checkpoint().unwrap());
            }
        }
        Self {
            directory,
            log,
            checkpoints,
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(segment::path(self.directory.path(), 1)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The break after its lines were replaced.
    fn broken(&self, lines: &[String], checkpoints: &[StoredCheckpoint]) -> Option<ChainBreak> {
        let mut text = lines.join("\n");
        text.push('\n');
        fs::write(segment::path(self.directory.path(), 1), text).unwrap();
        let reports = verify(self.log.directory(), self.log.pepper(), checkpoints).unwrap();
        reports[0].broken.clone()
    }
}

/// Writes a chain anew from a line on, with right hashes.
fn forge(lines: &mut [String], from: usize) {
    let mut prev = match from {
        0 => GENESIS.to_owned(),
        _ => chain::unsealed(&lines[from - 1]).unwrap().1.to_owned(),
    };
    for line in &mut lines[from..] {
        let (open, _) = chain::unsealed(line).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&open).unwrap();
        let old = value["prev"].as_str().unwrap().to_owned();
        value["prev"] = prev.clone().into();
        let open = open.replace(&old, &prev);
        let hash = chain::hash(&prev, &open);
        *line = chain::sealed(&open, &hash).trim_end().to_owned();
        prev = hash;
    }
}

#[test]
fn a_chain_that_was_not_touched_is_whole() {
    let chain = Chain::new();
    assert_eq!(chain.broken(&chain.lines(), &chain.checkpoints), None);
    let reports = verify(
        chain.log.directory(),
        chain.log.pepper(),
        &chain.checkpoints,
    )
    .unwrap();
    assert_eq!((reports[0].last, reports[0].checkpoints), (10, 2));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(empty.path(), chain.log.pepper(), &[]).unwrap(), []);
}

#[test]
fn each_changed_octet_is_found_at_its_line() {
    let chain = Chain::new();
    let lines = chain.lines();
    for at in [0, 3, 9] {
        let line = &lines[at];
        for octet in (0..line.len()).step_by(7) {
            let mut changed = lines.clone();
            let mut octets = line.clone().into_bytes();
            octets[octet] = if octets[octet] == b'0' { b'1' } else { b'0' };
            changed[at] = String::from_utf8(octets).unwrap();
            let broken = chain.broken(&changed, &[]).expect("it is found");
            // a number that was changed may look like a line that is missing: it breaks at the same place
            assert_eq!(broken.seq, at as u64 + 1, "octet {octet}: {broken:?}");
        }
    }
}

#[test]
fn missing_swapped_duplicated_and_inserted_lines_are_found() {
    let chain = Chain::new();
    let lines = chain.lines();
    let broken = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = lines.clone();
        change(&mut changed);
        chain.broken(&changed, &[]).expect("it is found")
    };
    assert_eq!(broken(&|it| drop(it.remove(4))).seq, 5);
    assert!(broken(&|it| drop(it.remove(4))).why.contains("missing"));
    assert_eq!(broken(&|it| drop(it.drain(4..7))).seq, 5);
    assert_eq!(broken(&|it| drop(it.remove(0))).seq, 1);
    assert_eq!(broken(&|it| it.swap(2, 3)).seq, 3);
    let again = broken(&|it| it.insert(5, it[4].clone()));
    assert_eq!(again.seq, 6);
    assert!(again.why.contains("again"), "{again:?}");
    // with a number and a `prev` that fit, and the right hash
    let inserted = broken(&|it| {
        let (open, hash) = chain::unsealed(&it[4]).unwrap();
        let forged = open.replace("\"seq\":5", "\"seq\":6");
        let old: AuditLine = serde_json::from_str(&it[4]).unwrap();
        let forged = forged.replace(&old.prev, hash);
        let hash = chain::hash(hash, &forged);
        it.insert(5, chain::sealed(&forged, &hash).trim_end().to_owned());
    });
    assert_eq!(inserted.seq, 7, "the line after it is there again");
    assert_eq!(broken(&|it| it.insert(3, String::new())).seq, 4);
    assert_eq!((again.line, again.file.as_str()), (6, "000000000001.jsonl"));
}

#[test]
fn a_chain_that_was_cut_at_its_end_is_found_by_its_checkpoint() {
    let chain = Chain::new();
    let lines = chain.lines();
    for kept in 0..10 {
        assert_eq!(chain.broken(&lines[..kept.max(1)], &[]), None, "no anchor");
        let broken = chain
            .broken(&lines[..kept.max(1)], &chain.checkpoints)
            .unwrap();
        assert_eq!(broken.seq, kept.max(1) as u64 + 1);
        assert!(broken.why.contains("cut"), "{broken:?}");
    }
    fs::remove_file(segment::path(chain.directory.path(), 1)).unwrap();
    let reports = verify(
        chain.log.directory(),
        chain.log.pepper(),
        &chain.checkpoints,
    )
    .unwrap();
    assert_eq!(reports[0].broken.as_ref().unwrap().seq, 1);
}

#[test]
fn a_chain_that_was_written_anew_is_found_by_its_checkpoint() {
    let chain = Chain::new();
    let mut lines = chain.lines();
    lines[2] = lines[2].replace("\"budget\":103", "\"budget\":999");
    forge(&mut lines, 2);
    assert_eq!(chain.broken(&lines, &[]), None, "the chain alone fits");
    let broken = chain.broken(&lines, &chain.checkpoints).unwrap();
    assert_eq!(broken.seq, 5);
    assert!(broken.why.contains("written anew"), "{broken:?}");
}

#[test]
fn a_checkpoint_that_was_changed_is_found() {
    let chain = Chain::new();
    let mut lines = chain.lines();
    lines[2] = lines[2].replace("\"budget\":103", "\"budget\":999");
    forge(&mut lines, 2);
    let mut checkpoints = chain.checkpoints.clone();
    for checkpoint in &mut checkpoints {
        let line = &lines[usize::try_from(checkpoint.seq).unwrap() - 1];
        checkpoint.hash = chain::unsealed(line).unwrap().1.to_owned();
    }
    let broken = chain.broken(&lines, &checkpoints).unwrap();
    assert_eq!(broken.seq, 5);
    assert!(broken.why.contains("checkpoint"), "{broken:?}");
}
