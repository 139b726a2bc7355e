use std::fs;

use arc_swap::ArcSwap;

use super::*;
use crate::{
    audit::{ActorKind, AuditFilter, AuditLine, search},
    config::{Environment, Flags, reload},
};

const TEXT: &str = "# ours\nAPI_BASE_URL=http://one.test # first\n\n# Port.\n#PORT=8088\n";

struct Site {
    dir: tempfile::TempDir,
    source: ConfigSource,
    audit: AuditLog,
}

impl Site {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        fs::write(dir.path().join("env/.env"), text).unwrap();
        Self {
            source: ConfigSource::new(Flags::default(), Environment::default()).rooted(dir.path()),
            audit: AuditLog::new(dir.path().join("audit"), b""),
            dir,
        }
    }

    fn editor(&self) -> Editor {
        Editor::new(self.source.clone(), Box::new(|_| Ok(())), None)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join("env/.env")).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(self.dir.path().join("env/.env"), text).unwrap();
    }

    fn apply(
        &self,
        editor: &Editor,
        request: &RevisionRequest,
    ) -> Result<RevisionResult, RevisionError> {
        let actor = AuditActor {
            kind: ActorKind::Cli,
            id: "ada".to_owned(),
            ip: None,
            ua: None,
        };
        let author = RevisionAuthor {
            actor: &actor,
            request_id: "r",
            audit: Some(&self.audit),
        };
        editor.apply(request, author)
    }

    fn lines(&self) -> Vec<AuditLine> {
        let filter = AuditFilter {
            limit: 100,
            ..AuditFilter::default()
        };
        search(&self.dir.path().join("audit"), &filter).unwrap()
    }
}

fn request(wanted: Wanted) -> RevisionRequest {
    RevisionRequest {
        wanted,
        reason: Some("because".to_owned()),
        expected: None,
        is_dry_run: false,
        may_create: true,
        takes_hand_edits: false,
    }
}

fn set(pairs: &[(&str, &str)]) -> RevisionRequest {
    let assignments = pairs.iter().map(|(name, value)| Assignment {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    });
    request(Wanted::Values(assignments.collect()))
}

#[test]
fn a_change_keeps_the_rest_and_can_be_undone() {
    let site = Site::new(TEXT);
    let editor = site.editor();
    let made = site.apply(
        &editor,
        &set(&[("PORT", "9090"), ("API_BASE_URL", "http://two.test")]),
    );
    let made = made.unwrap();
    assert_eq!((made.applied, made.id), (RevisionState::Written, Some(1)));
    assert_eq!(made.pending_restart, ["PORT"]);
    let after = "# ours\nAPI_BASE_URL=http://two.test # first\n\n# Port.\n#PORT=8088\nPORT=9090\n";
    assert_eq!(site.text(), after);
    let (entry, diff) = editor.since(None).unwrap();
    assert_eq!((entry.id, &*entry.actor), (1, "cli ada"));
    assert_eq!(entry.changed, ["API_BASE_URL", "PORT"]);
    assert_eq!(diff, made.diff);
    // the same again is no change
    let again = site.apply(&editor, &set(&[("PORT", "9090")])).unwrap();
    assert_eq!((again.applied, again.id), (RevisionState::Unchanged, None));

    site.apply(&editor, &request(Wanted::Before(None))).unwrap();
    assert_eq!(site.text(), TEXT);
    site.apply(&editor, &request(Wanted::Before(None))).unwrap();
    assert_eq!(site.text(), after, "undone is undone");
    assert_eq!(editor.history().unwrap().len(), 3);
    let missing = site.apply(&editor, &request(Wanted::Before(Some(9))));
    assert!(matches!(missing, Err(RevisionError::NoSuchRevision(9))));
}

#[test]
fn what_is_at_fault_changes_nothing_and_is_in_the_audit() {
    let site = Site::new(TEXT);
    let editor = site.editor();
    for (name, value, part) in [
        ("PORT", "80a", "PORT (env/.env line 6): `80a`"),
        ("API_BASE_ULR", "http://a", "did you mean API_BASE_URL?"),
        ("UPSTREAM_API_KEYS", "sk-canary0123 x", "white space"),
        ("ACCESS", "required", "without DATA_DIR"),
    ] {
        let said = site
            .apply(&editor, &set(&[(name, value)]))
            .unwrap_err()
            .to_string();
        let said = said.replace(&format!("{}/", site.dir.path().display()), "");
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    assert_eq!(site.text(), TEXT);
    assert!(editor.history().unwrap().is_empty());
    let lines = site.lines();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        assert_eq!((&*line.action, &*line.target.kind), ("config.set", "file"));
        assert!(line.result.starts_with("refused: "), "{line:?}");
        assert!(!format!("{line:?}").contains("canary"), "{line:?}");
    }
}

#[test]
fn secrets_go_in_and_not_out() {
    let site = Site::new(TEXT);
    let editor = site.editor();
    let made = site
        .apply(&editor, &set(&[("UPSTREAM_API_KEYS", "sk-canary0123")]))
        .unwrap();
    assert!(site.text().contains("UPSTREAM_API_KEYS=sk-canary0123\n"));
    let shown = serde_json::to_string(&made).unwrap();
    assert!(
        shown.contains("UPSTREAM_API_KEYS=(13 octets)") && !shown.contains("canary"),
        "{shown}"
    );
    // to take it out is explicit, and so is its return
    let unset = Assignment {
        name: "UPSTREAM_API_KEYS".to_owned(),
        value: None,
    };
    site.apply(&editor, &request(Wanted::Values(vec![unset])))
        .unwrap();
    assert!(
        site.text().ends_with("UPSTREAM_API_KEYS=\n"),
        "{}",
        site.text()
    );
    site.apply(&editor, &request(Wanted::Before(Some(2))))
        .unwrap();
    site.apply(&editor, &request(Wanted::Before(Some(1))))
        .unwrap();
    assert_eq!(site.text(), format!("{TEXT}UPSTREAM_API_KEYS=\n"));
    let lines = format!("{:?}{:?}", site.lines(), editor.history().unwrap());
    assert!(!lines.contains("canary"), "{lines}");
    assert!(lines.contains("(13 octets)"), "{lines}");
}

#[test]
fn an_edit_of_an_old_version_is_refused_with_what_changed() {
    let site = Site::new(TEXT);
    let editor = site.editor();
    let seen = editor.view().unwrap().version;
    site.write(&TEXT.replace("one.test", "other.test"));
    let mut late = set(&[("PORT", "1")]);
    late.expected = Some(seen);
    let Err(RevisionError::Stale { version, diff }) = site.apply(&editor, &late) else {
        panic!("it was made");
    };
    let diff: Vec<_> = diff.unwrap().into_iter().map(|line| line.text).collect();
    assert!(
        diff.contains(&"API_BASE_URL=http://other.test # first".to_owned()),
        "{diff:?}"
    );
    late.expected = Some(version);
    site.apply(&editor, &late).unwrap();
    assert!(site.text().contains("other.test"), "the other edit is kept");
}

#[test]
fn a_dry_run_writes_nothing() {
    let site = Site::new(TEXT);
    let mut dry = set(&[("PORT", "1")]);
    dry.is_dry_run = true;
    let shown = site.apply(&site.editor(), &dry).unwrap();
    assert_eq!((shown.applied, shown.id), (RevisionState::Shown, None));
    assert_eq!(shown.diff.last().unwrap().text, "PORT=1");
    assert_eq!(site.text(), TEXT);
    assert_eq!(
        fs::read_dir(site.dir.path().join("env")).unwrap().count(),
        1
    );
    assert!(site.lines().is_empty());
}

#[test]
fn what_the_server_refuses_is_undone() {
    let site = Site::new("API_BASE_URL=http://one.test\nUPSTREAM_API_KEYS=sk-1\n");
    let loaded = site.source.load().unwrap();
    let live = Arc::new(ArcSwap::from_pointee(loaded.config.live.clone()));
    let handle = ReloadHandle::default();
    let watcher = reload::spawn(
        site.source.clone(),
        loaded,
        Arc::clone(&live),
        Arc::default(),
        Arc::default(),
        &handle,
    );
    let _watcher = watcher.unwrap();
    let editor = Editor::new(site.source.clone(), Box::new(|_| Ok(())), Some(handle));
    let made = site
        .apply(&editor, &set(&[("API_BASE_URL", "http://two.test")]))
        .unwrap();
    assert_eq!(made.applied, RevisionState::InEffect);
    assert_eq!(live.load().endpoints[0].upstream.host, "two.test");

    // the server holds on to a key whose line a person took out
    let cut = "API_BASE_URL=http://two.test\n";
    site.write(cut);
    let refused = site.apply(&editor, &set(&[("API_BASE_URL", "http://three.test")]));
    let Err(RevisionError::Refused {
        faults,
        is_restored,
    }) = refused
    else {
        panic!("{:?}", refused.map(|it| it.applied));
    };
    assert!(
        is_restored && faults.contains("UPSTREAM_API_KEYS"),
        "{faults}"
    );
    assert_eq!(site.text(), cut);
    assert_eq!(editor.history().unwrap().len(), 1);
    assert_eq!(live.load().endpoints[0].upstream.host, "two.test");
    let last = &site.lines();
    assert!(last.iter().any(|line| {
        line.result
            .starts_with("failed: the running server refused")
    }));
}

#[test]
fn a_place_that_takes_no_change_is_told_with_the_lines_to_write_elsewhere() {
    let site = Site::new("");
    // a folder where the history would be, that is a file
    let flags = Flags {
        env_file: Some(site.dir.path().join("f/.env")),
        ..Flags::default()
    };
    fs::write(site.dir.path().join("f"), "").unwrap();
    let source = ConfigSource::new(flags, Environment::default()).rooted(site.dir.path());
    let editor = Editor::new(source, Box::new(|_| Ok(())), None);
    let change = set(&[
        ("PORT", "9090"),
        ("LIMITS_CONTACT", "#a b"),
        ("UPSTREAM_API_KEYS", "sk-canary"),
    ]);
    let said = site.apply(&editor, &change).unwrap_err();
    let RevisionError::ReadOnly { lines, .. } = &said else {
        panic!("{said}");
    };
    assert_eq!(
        lines[..],
        [
            "LIMITS_CONTACT='#a b'",
            "PORT=9090",
            "UPSTREAM_API_KEYS=(the value that you entered)"
        ]
    );
    assert!(editor.history().unwrap().is_empty());
}

/// Reloads what an editor writes, as a server does.
fn serve(site: &Site) -> (Editor, reload::Watcher) {
    let loaded = site.source.load().unwrap();
    let live = Arc::new(ArcSwap::from_pointee(loaded.config.live.clone()));
    let handle = ReloadHandle::default();
    let watcher = reload::spawn(
        site.source.clone(),
        loaded,
        live,
        Arc::default(),
        Arc::default(),
        &handle,
    );
    let editor = Editor::new(site.source.clone(), Box::new(|_| Ok(())), Some(handle));
    (editor, watcher.unwrap())
}

#[test]
fn a_file_that_is_gone_is_not_made_anew_with_one_line() {
    let site = Site::new(TEXT);
    let file = site.dir.path().join("env/.env");
    let editor = site.editor();
    site.apply(&editor, &set(&[("PORT", "9090")])).unwrap();
    let after = site.text();
    fs::remove_file(&file).unwrap();
    for request in [
        set(&[("PORT", "1")]),
        RevisionRequest {
            is_dry_run: true,
            ..set(&[("PORT", "1")])
        },
    ] {
        let said = site.apply(&editor, &request).unwrap_err();
        assert!(matches!(said, RevisionError::Gone { id: 1, .. }), "{said}");
        assert!(!file.exists());
    }
    // to bring it back is to undo what was done last
    site.apply(&editor, &request(Wanted::Before(None))).unwrap();
    assert_eq!(site.text(), after);
}

#[test]
fn only_a_server_with_settings_of_its_file_misses_it() {
    let site = Site::new("PORT=0\nWRITE_TIMEOUT=5m\n");
    let file = site.dir.path().join("env/.env");
    let (editor, watcher) = serve(&site);
    fs::remove_file(&file).unwrap();
    let said = site
        .apply(&editor, &set(&[("KEEP_ALIVE", "9")]))
        .unwrap_err();
    assert!(
        matches!(said, RevisionError::Lost { count: 2, .. }),
        "{said}"
    );
    assert!(!file.exists());
    drop(watcher);
    // one that had none gets its first
    let (editor, _watcher) = serve(&site);
    let made = site.apply(&editor, &set(&[("KEEP_ALIVE", "9")])).unwrap();
    assert_eq!(made.applied, RevisionState::InEffect);
    assert_eq!(site.text(), "KEEP_ALIVE=9\n");
}

#[test]
fn where_no_file_is_known_none_is_made_unasked() {
    let site = Site::new("");
    fs::remove_dir_all(site.dir.path().join("env")).unwrap();
    let editor = site.editor();
    let unasked = RevisionRequest {
        may_create: false,
        ..set(&[("PORT", "9090")])
    };
    let said = site.apply(&editor, &unasked).unwrap_err();
    assert!(matches!(said, RevisionError::NoFile(_)), "{said}");
    assert!(
        said.to_string().contains("/env/.env does not exist"),
        "{said}"
    );
    let said = site.apply(&editor, &request(Wanted::Before(None)));
    assert!(matches!(said, Err(RevisionError::NoHistory)));
    assert!(!site.dir.path().join("env").exists(), "a folder was made");
    site.apply(&editor, &set(&[("PORT", "9090")])).unwrap();
    assert_eq!(site.text(), "PORT=9090\n");
    // what it leaves behind is told
    let made = site.apply(&editor, &request(Wanted::Before(None))).unwrap();
    assert_eq!(site.text(), "PORT=\n");
    assert!(
        made.warnings[0].contains("PORT stays as an empty line"),
        "{made:?}"
    );
}

#[test]
fn edits_by_hand_are_not_taken_back_unseen() {
    let site = Site::new(TEXT);
    let editor = site.editor();
    site.apply(&editor, &set(&[("PORT", "1")])).unwrap();
    let hand = site.text().replace("one.test", "hand.test");
    site.write(&hand);
    let back = |id| request(Wanted::Before(id));
    let refused = |request: &RevisionRequest| match site.apply(&editor, request) {
        Err(RevisionError::HandEdited { id, diff }) => {
            let lines = diff.iter().any(|line| line.text.contains("hand.test"));
            assert!(lines, "{diff:?}");
            id
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&back(None)), 1);
    // nor those between two changes
    site.apply(&editor, &set(&[("PORT", "2")])).unwrap();
    assert_eq!(refused(&back(Some(1))), 1);
    assert!(site.text().contains("hand.test"));
    // what was changed since is the verb's own
    site.apply(&editor, &back(Some(2))).unwrap();
    assert_eq!(site.text(), hand);
    let shown = RevisionRequest {
        is_dry_run: true,
        ..back(Some(1))
    };
    let shown = site.apply(&editor, &shown).unwrap();
    assert!(
        shown.warnings[0].contains("by hand after change 1"),
        "{shown:?}"
    );
    let forced = RevisionRequest {
        takes_hand_edits: true,
        ..back(Some(1))
    };
    site.apply(&editor, &forced).unwrap();
    assert_eq!(site.text(), TEXT);
}
