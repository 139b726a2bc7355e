use std::thread;

use serde_json::json;

use super::*;
use crate::audit::{
    entry::ActorKind,
    search::{AuditFilter, search},
    verify::verify,
};

const PEPPER: &[u8] = b"a pepper of the tests";

pub(in crate::audit) fn entry(action: &str, id: &str) -> AuditEntry {
    AuditEntry {
        actor: AuditActor {
            kind: ActorKind::Key,
            id: "dashboard".to_owned(),
            ip: Some("192.0.2.7".to_owned()),
            ua: Some("curl/8 \"quoted\" \u{2028} é".to_owned()),
        },
        action: action.to_owned(),
        target: AuditTarget {
            kind: "key".to_owned(),
            id: id.to_owned(),
        },
        before: serde_json::Value::Null,
        after: json!({"name": id, "limits": [1.5, {"b": 1, "a": 2}]}),
        reason: Some("line\nbreak".to_owned()),
        request_id: format!("req_{id}"),
    }
}

fn log_in(directory: &Path) -> AuditLog {
    AuditLog::new(directory.join("audit"), PEPPER)
}

fn lines(directory: &Path) -> Vec<AuditLine> {
    let filter = AuditFilter {
        limit: 10_000,
        ..AuditFilter::default()
    };
    search(&directory.join("audit"), &filter).unwrap()
}

#[track_caller]
fn assert_whole(log: &AuditLog, last: u64) {
    let reports = verify(log.directory(), log.pepper(), &[]).unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].broken, None);
    assert_eq!((reports[0].first, reports[0].last), (1, last));
}

#[test]
fn a_change_is_written_before_and_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    let done = log.change(&entry("key.create", "a"), || {
        let before = lines(directory.path());
        assert_eq!(before.len(), 1);
        assert_eq!(before[0].result, "intent");
        Ok::<_, String>(7)
    });
    assert!(matches!(done, Ok(7)));
    let failed = log.change(&entry("key.revoke", "a"), || Err::<(), _>("no such key"));
    assert!(matches!(failed, Err(ChangeError::Failed("no such key"))));
    log.note(&entry("session.open", "a"), "refused: a wrong key")
        .unwrap();
    let results: Vec<_> = lines(directory.path())
        .into_iter()
        .map(|it| it.result)
        .collect();
    let expected = [
        "intent",
        "done",
        "intent",
        "failed: no such key",
        "refused: a wrong key",
    ];
    assert_eq!(results, expected);
    assert_whole(&log, 5);
}

#[test]
fn without_its_intent_a_change_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("audit"), "a file in its place").unwrap();
    let log = log_in(directory.path());
    let mut is_applied = false;
    let refused = log.change(&entry("key.create", "a"), || {
        is_applied = true;
        Ok::<_, String>(())
    });
    assert!(!is_applied);
    let Err(ChangeError::Unaudited(error)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        error.to_string().contains("the change is refused"),
        "{error}"
    );
}

#[test]
fn a_chain_goes_on_after_a_restart_and_a_line_that_was_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    log.note(&entry("a", "1"), "done").unwrap();
    let replica = lines(directory.path())[0].replica.clone();
    drop(log);
    let path = segment::path(&directory.path().join("audit"), 1);
    let mut file = segment::append(&path).unwrap();
    file.write_all(b"{\"seq\":2,\"at\":\"20").unwrap();
    let log = log_in(directory.path());
    log.note(&entry("a", "2"), "done").unwrap();
    assert_whole(&log, 2);
    assert!(
        lines(directory.path())
            .iter()
            .all(|it| it.replica == replica)
    );
}

#[test]
fn a_last_line_that_cannot_be_read_refuses_changes() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    log.note(&entry("a", "1"), "done").unwrap();
    let path = segment::path(&directory.path().join("audit"), 1);
    segment::append(&path)
        .unwrap()
        .write_all(b"nonsense\n")
        .unwrap();
    let refused = log.note(&entry("a", "2"), "done").unwrap_err();
    assert!(matches!(refused, AuditError::Unreadable(_)), "{refused:?}");
}

#[test]
fn files_rotate_whole_and_the_next_begins_with_the_head_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    let mut large = entry("a", "1");
    large.after = json!("x".repeat(3 << 20));
    for _ in 0..7 {
        log.note(&large, "done").unwrap();
    }
    let files = segment::all(log.directory()).unwrap();
    let firsts: Vec<_> = files.iter().map(|(first, _)| *first).collect();
    assert_eq!(firsts, [1, 4, 7]);
    assert_whole(&log, 7);
    let all = lines(directory.path());
    assert_eq!(all[3].prev, all[2].hash);
    // the oldest files may be archived elsewhere
    fs::remove_file(&files[0].1).unwrap();
    let report = &verify(log.directory(), log.pepper(), &[]).unwrap()[0];
    assert_eq!((report.first, report.last, &report.broken), (4, 7, &None));
    log.note(&entry("a", "8"), "done").unwrap();
}

#[test]
fn two_processes_append_to_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for process in 0..4 {
            let log = log_in(directory.path());
            scope.spawn(move || {
                for number in 0..25 {
                    let id = format!("{process}-{number}");
                    log.note(&entry("a", &id), "done").unwrap();
                }
            });
        }
    });
    let log = log_in(directory.path());
    assert_whole(&log, 100);
}

#[test]
fn a_checkpoint_is_due_after_a_thousand_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    assert_eq!(log.checkpoint().unwrap(), None);
    assert!(!directory.path().join("audit").exists());
    for number in 0..CHECKPOINT_LINES {
        assert!(!log.is_checkpoint_due(), "{number}");
        log.note(&entry("a", "1"), "done").unwrap();
    }
    assert!(log.is_checkpoint_due());
    let checkpoint = log.checkpoint().unwrap().unwrap();
    assert!(!log.is_checkpoint_due());
    assert_eq!(checkpoint.seq, CHECKPOINT_LINES);
    let report = &verify(log.directory(), log.pepper(), &[checkpoint]).unwrap()[0];
    assert_eq!((report.checkpoints, &report.broken), (1, &None));
}

#[cfg(unix)]
#[test]
fn the_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    log.note(&entry("a", "1"), "done").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(log.directory()), 0o700);
    for entry in fs::read_dir(log.directory()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn lines_are_searched_by_author_action_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path());
    for (action, id) in [
        ("key.create", "a"),
        ("key.revoke", "a"),
        ("keys.apply", "f"),
    ] {
        log.note(&entry(action, id), "done").unwrap();
    }
    let found = |actor: Option<&str>, action: Option<&str>, since: Option<&str>, limit: usize| {
        let filter = AuditFilter {
            actor: actor.map(str::to_owned),
            action: action.map(str::to_owned),
            since: since.map(str::to_owned),
            limit,
            ..AuditFilter::default()
        };
        let found = search(log.directory(), &filter).unwrap().into_iter();
        found.map(|it| it.seq).collect::<Vec<_>>()
    };
    assert_eq!(found(None, None, None, 10), [1, 2, 3]);
    assert_eq!(found(None, None, None, 2), [2, 3]);
    assert_eq!(found(None, Some("key"), None, 10), [1, 2]);
    assert_eq!(found(None, Some("key.revoke"), None, 10), [2]);
    assert_eq!(found(Some("dashb"), None, None, 10), [1, 2, 3]);
    assert_eq!(found(Some("192.0.2.7"), None, None, 10), [1, 2, 3]);
    assert_eq!(found(Some("ann"), None, None, 10), [] as [u64; 0]);
    assert_eq!(
        found(None, None, Some("2000-01-01T00:00:00.000Z"), 10),
        [1, 2, 3]
    );
    assert_eq!(
        found(None, None, Some("9999-01-01T00:00:00.000Z"), 10),
        [] as [u64; 0]
    );
}
