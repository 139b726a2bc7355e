use super::*;
use crate::state::StoredState;

fn key(id: &str, record: &str) -> StoreChange {
    StoreChange::Key {
        id: id.to_owned(),
        record: record.to_owned(),
    }
}

fn subject(name: &str, record: &str) -> StoreChange {
    StoreChange::Subject {
        name: name.to_owned(),
        record: record.to_owned(),
    }
}

fn spent(subject: &str, cell: &str, spent: u64, upto: u64) -> SpendRegister {
    SpendRegister {
        subject: subject.to_owned(),
        cell: cell.to_owned(),
        spent,
        upto,
    }
}

fn counted(store: &mut SqliteStore, except: &str) -> Vec<(String, String, u64)> {
    let spends = store.spends(except).unwrap();
    let spends = spends.into_iter();
    spends.map(|it| (it.subject, it.cell, it.upto)).collect()
}

fn text(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

const MONTH: &str = "2026-11@Europe/Berlin";

#[test]
fn a_store_without_changes_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    assert_eq!(store.load(0).unwrap(), StoredState::default());
    assert_eq!(store.version().unwrap(), 0);
    assert_eq!(store.spends("a").unwrap(), []);
    store.end_boot("a").unwrap();
    store.merge_boots().unwrap();
    assert!(!store.exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn changes_outlive_a_restart_and_are_read_by_version() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    let changes = [key("a", "{1}"), key("b", "{2}"), subject("org", "{3}")];
    assert_eq!(store.change(0, &changes).unwrap(), 1);
    assert_eq!(store.change(1, &[key("a", "{4}")]).unwrap(), 2);
    drop(store);
    let mut store = SqliteStore::new(directory.path());
    let all = store.load(0).unwrap();
    assert_eq!(all.version, 2);
    assert_eq!(all.keys, [text("a", "{4}"), text("b", "{2}")]);
    assert_eq!(all.subjects, [text("org", "{3}")]);
    let changed = store.load(1).unwrap();
    assert_eq!(changed.keys, [text("a", "{4}")]);
    assert_eq!(changed.subjects, []);
}

#[test]
fn of_two_processes_that_change_one_version_the_second_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = SqliteStore::new(directory.path());
    let mut other = SqliteStore::new(directory.path());
    assert_eq!(one.change(0, &[key("a", "{1}")]).unwrap(), 1);
    let refused = other.change(0, &[key("a", "{2}"), key("b", "{2}")]);
    assert!(matches!(refused, Err(StateError::Conflict)), "{refused:?}");
    assert_eq!(other.version().unwrap(), 1, "the other process sees it");
    assert_eq!(other.load(0).unwrap().keys, [text("a", "{1}")]);
    assert_eq!(other.change(1, &[key("b", "{2}")]).unwrap(), 2);
    assert_eq!(one.load(1).unwrap().keys, [text("b", "{2}")]);
}

#[test]
fn a_boot_that_ended_counts_with_what_it_spent_and_a_killed_one_with_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    store
        .write_spends(
            "one",
            &[spent("org", MONTH, 70, 100), spent("org", "total", 70, 100)],
        )
        .unwrap();
    store
        .write_spends("one", &[spent("org", MONTH, 75, 100)])
        .unwrap();
    assert_eq!(
        counted(&mut store, "one"),
        [],
        "its own does not count twice"
    );
    // killed: nothing more is written
    drop(store);
    let mut store = SqliteStore::new(directory.path());
    let org = |cell: &str, spent: u64| ("org".to_owned(), cell.to_owned(), spent);
    assert_eq!(
        counted(&mut store, "two"),
        [org(MONTH, 100), org("total", 100)]
    );
    store
        .write_spends("two", &[spent("org", MONTH, 5, 50)])
        .unwrap();
    store
        .write_spends("two", &[spent("org", MONTH, 7, 50)])
        .unwrap();
    store.end_boot("two").unwrap();
    drop(store);
    let mut store = SqliteStore::new(directory.path());
    assert_eq!(
        counted(&mut store, "three"),
        [org(MONTH, 107), org("total", 100)]
    );
    let registers = store.registers("org").unwrap();
    assert_eq!(registers.len(), 3);
    store.merge_boots().unwrap();
    assert_eq!(
        counted(&mut store, "three"),
        [org(MONTH, 107), org("total", 100)]
    );
    let merged = store.registers("org").unwrap();
    assert!(merged.iter().all(|it| it.boot.is_empty() && it.is_ended));
    assert_eq!(merged.len(), 2);
    // what comes after is beside the sum
    store
        .write_spends("three", &[spent("org", MONTH, 1, 3)])
        .unwrap();
    assert_eq!(
        counted(&mut store, "three"),
        [org(MONTH, 107), org("total", 100)]
    );
    assert_eq!(
        counted(&mut store, "four"),
        [org(MONTH, 110), org("total", 100)]
    );
}

#[test]
fn two_boots_at_once_have_registers_of_their_own_and_a_resend_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = SqliteStore::new(directory.path());
    let mut other = SqliteStore::new(directory.path());
    for _ in 0..3 {
        one.write_spends("one", &[spent("user:ann", MONTH, 10, 20)])
            .unwrap();
        other
            .write_spends("two", &[spent("user:ann", MONTH, 1, 2)])
            .unwrap();
    }
    one.end_boot("one").unwrap();
    let ann = |spent: u64| ("user:ann".to_owned(), MONTH.to_owned(), spent);
    assert_eq!(counted(&mut one, ""), [ann(12)]);
    assert_eq!(counted(&mut other, "two"), [ann(10)]);
}

#[test]
fn the_largest_spend_saturates() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    for boot in ["one", "two", "three"] {
        store
            .write_spends(boot, &[spent("org", "total", u64::MAX, u64::MAX)])
            .unwrap();
    }
    store.merge_boots().unwrap();
    let merged = counted(&mut store, "");
    assert_eq!(
        merged,
        [("org".to_owned(), "total".to_owned(), i64::MAX as u64)]
    );
}

#[test]
fn a_file_that_is_no_database_is_left_alone_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATE_FILE);
    let long = vec![b'x'; 10_000];
    for content in [&b"no database"[..], &long] {
        fs::write(&path, content).unwrap();
        let refused = SqliteStore::new(directory.path()).load(0).unwrap_err();
        assert!(matches!(refused, StateError::Damaged(..)), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("restore it from a backup"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_damaged_page_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    let many: Vec<_> = (0..2000)
        .map(|number| key(&format!("{number:010}"), &"r".repeat(200)))
        .collect();
    store.change(0, &many).unwrap();
    drop(store);
    let path = directory.path().join(STATE_FILE);
    let mut content = fs::read(&path).unwrap();
    let (from, to) = (content.len() / 4, content.len() / 4 * 3);
    content[from..to].fill(0xa5);
    fs::write(&path, &content).unwrap();
    let refused = SqliteStore::new(directory.path()).load(0);
    assert!(
        matches!(refused, Err(StateError::Damaged(..))),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn the_tables_of_another_program_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATE_FILE);
    for set_up in [
        "CREATE TABLE theirs (id INTEGER)",
        "CREATE TABLE theirs (id INTEGER); PRAGMA user_version = 1;",
    ] {
        let _ = fs::remove_file(&path);
        let theirs = Connection::open(&path).unwrap();
        theirs.execute_batch(set_up).unwrap();
        drop(theirs);
        let refused = SqliteStore::new(directory.path()).load(0);
        assert!(
            matches!(refused, Err(StateError::Damaged(..))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_file_of_a_later_release_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    store.change(0, &[key("a", "{}")]).unwrap();
    store
        .connection()
        .unwrap()
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    drop(store);
    let refused = SqliteStore::new(directory.path()).load(0).unwrap_err();
    assert!(matches!(refused, StateError::Newer(_, 99)), "{refused:?}");
    assert!(refused.to_string().contains("later release"), "{refused}");
}

#[test]
fn a_lock_of_another_process_is_an_error_that_ends_with_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    store.change(0, &[key("a", "{}")]).unwrap();
    let holder = Connection::open(directory.path().join(STATE_FILE)).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = store.change(1, &[key("a", "{1}")]).unwrap_err();
    assert!(matches!(refused, StateError::Locked(_)), "{refused:?}");
    assert!(refused.to_string().contains("fuser"), "{refused}");
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.change(1, &[key("a", "{1}")]).unwrap(), 2);
}

#[test]
fn a_file_that_was_replaced_while_it_is_open_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    store.change(0, &[key("a", "{}")]).unwrap();
    let path = directory.path().join(STATE_FILE);
    let away = directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    let refused = store.change(1, &[key("a", "{1}")]);
    assert!(matches!(refused, Err(StateError::Gone(_))), "{refused:?}");
    fs::rename(&away, &path).unwrap();
    assert_eq!(store.change(1, &[key("a", "{1}")]).unwrap(), 2);
}

#[cfg(unix)]
#[test]
fn the_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATE_FILE);
    for before in [None, Some(0o666), Some(0o640)] {
        if let Some(before) = before {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
        }
        let mut store = SqliteStore::new(directory.path());
        let version = store.version().unwrap();
        store.change(version, &[key("a", "{}")]).unwrap();
        let entries: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert!(entries.len() > 1, "the write-ahead log is beside it");
        for entry in entries {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{path:?} {before:?}");
        }
    }
}

#[test]
fn the_newest_checkpoints_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::new(directory.path());
    let checkpoint = |seq: u64| StoredCheckpoint {
        chain: "c".to_owned(),
        seq,
        hash: format!("{seq:x}"),
        hmac: "00".to_owned(),
        at: 7,
    };
    for seq in [1, 2, 1000] {
        store.add_checkpoint(&checkpoint(seq)).unwrap();
        store.add_checkpoint(&checkpoint(seq)).unwrap();
    }
    let kept = store.checkpoints().unwrap();
    assert_eq!(kept, [checkpoint(1), checkpoint(2), checkpoint(1000)]);
    // beyond the bound, the oldest go
    let fill =
        "WITH RECURSIVE n (seq) AS (SELECT 2000 UNION ALL SELECT seq + 1 FROM n WHERE seq < 6093)
        INSERT INTO checkpoint SELECT 'c', seq, 'h', 'm', 0 FROM n";
    store.connection().unwrap().execute_batch(fill).unwrap();
    store.add_checkpoint(&checkpoint(9000)).unwrap();
    let kept = store.checkpoints().unwrap();
    assert_eq!(kept.len(), usize::try_from(CHECKPOINTS).unwrap());
    assert_eq!(kept[0].seq, 1000);
}

#[test]
fn what_other_boots_spend_is_read_once_they_have_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut earlier = SqliteStore::new(directory.path());
    let rows = [spent("org", MONTH, 5, 5), spent("org", "total", 5, 5)];
    earlier.write_spends("earlier", &rows).unwrap();
    earlier.end_boot("earlier").unwrap();
    earlier.merge_boots().unwrap();
    drop(earlier);
    let mut one = SqliteStore::new(directory.path());
    let mut other = SqliteStore::new(directory.path());
    let changed = |store: &mut SqliteStore, boot: &str| {
        let spends = store.changed_spends(boot).unwrap();
        let spends = spends.into_iter();
        spends
            .map(|it| (it.subject, it.cell, it.spent, it.upto))
            .collect::<Vec<_>>()
    };
    let org = |cell: &str, spent, upto| ("org".to_owned(), cell.to_owned(), spent, upto);
    assert_eq!(changed(&mut one, "one"), [], "no other boot runs");
    one.write_spends("one", &[spent("org", MONTH, 7, 8)])
        .unwrap();
    assert_eq!(changed(&mut one, "one"), [], "its own writes");
    for (boot, before) in [("a", 0), ("two", 10)] {
        other
            .write_spends(boot, &[spent("org", MONTH, 10, 20)])
            .unwrap();
        // with what was spent before both, and without its own
        let sum = org(MONTH, 15 + before, 25 + 2 * before);
        assert_eq!(changed(&mut one, "one"), [sum]);
        assert_eq!(changed(&mut one, "one"), [], "nothing was written since");
    }
    other.end_boot("two").unwrap();
    assert_eq!(changed(&mut one, "one"), [org(MONTH, 25, 35)]);
}

#[test]
fn last_uses_outlive_a_restart_and_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let seen = |key: &str, secret: &str, at| StoredUse {
        key: key.to_owned(),
        secret: secret.to_owned(),
        at,
    };
    let mut store = SqliteStore::new(directory.path());
    store.write_uses(&[]).unwrap();
    assert!(!store.exists());
    assert_eq!(store.uses(0).unwrap(), []);
    store
        .write_uses(&[seen("a", "1", 100), seen("a", "2", 200)])
        .unwrap();
    store.write_uses(&[seen("a", "2", 150)]).unwrap();
    drop(store);
    let mut store = SqliteStore::new(directory.path());
    assert_eq!(
        store.uses(0).unwrap(),
        [seen("a", "1", 100), seen("a", "2", 200)]
    );
    assert_eq!(store.uses(101).unwrap(), [seen("a", "2", 200)]);
}

#[test]
fn a_file_of_version_1_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STATE_FILE);
    let mut store = SqliteStore::new(directory.path());
    assert_eq!(store.change(0, &[key("a", "{1}")]).unwrap(), 1);
    drop(store);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TABLE last_use; DROP TABLE pepper; PRAGMA user_version = 1")
        .unwrap();
    drop(connection);
    let mut store = SqliteStore::new(directory.path());
    assert_eq!(store.uses(0).unwrap(), []);
    assert_eq!(store.load(0).unwrap().keys, [text("a", "{1}")]);
}

#[test]
fn keys_of_another_pepper_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SqliteStore::new(directory.path());
    let is_other = |checked| matches!(checked, Err(StateError::OtherPepper(_)));
    let mut store = open();
    store.check_pepper("one", None).unwrap();
    assert!(!store.exists(), "without keys there is nothing to tell");
    store.change(0, &[subject("org", "{}")]).unwrap();
    store.check_pepper("two", Some("one")).unwrap();
    store.change(1, &[key("a", "{1}")]).unwrap();
    assert!(is_other(open().check_pepper("one", None)));
    assert!(is_other(open().check_pepper("one", Some("one"))));
    open().check_pepper("two", Some("one")).unwrap();
    // a file of an earlier release
    let connection = Connection::open(directory.path().join(STATE_FILE)).unwrap();
    let earlier = "DROP TABLE pepper; PRAGMA user_version = 2";
    connection.execute_batch(earlier).unwrap();
    drop(connection);
    assert!(is_other(open().check_pepper("three", Some("two"))));
    open().check_pepper("three", None).unwrap();
    assert!(is_other(open().check_pepper("two", None)));
}
