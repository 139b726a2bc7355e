//! Verbs on keys, limits and audit: what they refuse, and what they say.

use super::{Desk, ask};

#[test]
fn a_rotation_while_an_older_one_overlaps_is_refused_unless_it_is_forced() {
    let desk = Desk::new();
    let first = desk.says(&["keys", "create", "--name", "a", "--quiet"]);
    let last4 = &first.trim()[48..];
    desk.says(&["keys", "rotate", "a", "--overlap", "48h"]);
    let said = desk.fails(5, &["keys", "rotate", "a"]);
    let until = desk.json(&["keys", "show", "a"])["secrets"][0]["expires_at"].clone();
    for part in [
        &format!("the secret …{last4} is valid until"),
        until.as_str().unwrap(),
        "--force",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let shown = desk.json(&["keys", "show", "a"]);
    assert_eq!(shown["last4"][0], last4, "it is valid still");

    let forced = desk.verb(&["keys", "rotate", "a", "--force"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let warning = format!("the secret …{last4} of an earlier rotation");
    assert!(
        forced.stderr.contains(&warning) && forced.stderr.contains("has ended"),
        "{forced:?}"
    );
    // without an overlap it is said that all others end
    let ended = desk.verb(&["keys", "rotate", "a", "--overlap", "0s"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("has ended"), "{ended:?}");
    // and what has ended already is in the way of nothing
    let ended = desk.verb(&["keys", "rotate", "a"]);
    assert!(!ended.stderr.contains("has ended"), "{ended:?}");
}

#[test]
fn a_file_ends_no_overlap_and_its_newest_secret_has_no_end() {
    let desk = Desk::new();
    let old = desk.says(&["keys", "create", "--name", "a", "--quiet"]);
    let new = desk.says(&["keys", "rotate", "a", "--quiet"]);
    let file = desk.file("keys.toml", "[[key]]\nname = \"a\"\nkey_env = \"OF_A\"\n");
    let apply = |key: &str| {
        let ended = desk.verb_with(&[("OF_A", key.trim())], &["keys", "apply", "-f", &file]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    assert!(apply(&new).contains("0 changes, 1 unchanged"));
    let secrets = || desk.json(&["keys", "show", "a"])["secrets"].clone();
    assert_eq!(secrets().as_array().unwrap().len(), 2);
    // back to the older one, which is the newest of the file
    let said = apply(&old);
    assert!(said.contains("last4: "), "{said}");
    let left = secrets();
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["last4"], old.trim()[48..]);
    assert!(left[0]["expires_at"].is_null(), "{left}");
}

#[test]
fn a_revoked_key_is_found_by_its_name() {
    let desk = Desk::new();
    let created = desk.json(&["keys", "create", "--name", "z"]);
    let id = created["id"].as_str().unwrap();
    desk.says(&["keys", "revoke", "z", "--reason", "lost"]);
    let shown = desk.json(&["keys", "show", "z"]);
    assert_eq!(
        (&shown["id"], &shown["state"]),
        (&id.into(), &"revoked".into())
    );
    let said = desk.fails(5, &["keys", "rotate", "z"]);
    let at = shown["revoked_at"].as_str().unwrap();
    assert!(
        said.contains(&format!("key {id} was revoked at {at}")),
        "{said}"
    );
    let again = desk.says(&["keys", "revoke", "z", "--reason", "once more"]);
    assert!(again.contains(at) && again.ends_with(": lost\n"), "{again}");
    // another one of the name that is not revoked comes first, and of several that were none is meant
    desk.says(&["keys", "create", "--name", "z"]);
    assert_eq!(desk.json(&["keys", "show", "z"])["state"], "active");
    desk.says(&["keys", "revoke", "z", "--reason", "lost"]);
    let said = desk.fails(1, &["keys", "show", "z"]);
    assert!(said.contains("2 keys had the name \"z\""), "{said}");
}

#[test]
fn names_with_characters_that_are_not_seen_are_refused() {
    let desk = Desk::new();
    for name in ["rtl\u{202e}evil", "zero\u{200b}width", "a\u{feff}b"] {
        for (flag, other) in [
            ("--name", None),
            ("--user", Some("a")),
            ("--team", Some("a")),
        ] {
            let mut verb = vec!["keys", "create", flag, name];
            verb.extend(other.iter().flat_map(|other| ["--name", *other]));
            let said = desk.fails(1, &verb);
            assert!(said.contains("printable characters"), "{said}");
        }
    }
    desk.says(&["keys", "create", "--name", "é 用户 👩"]);
}

#[test]
fn an_amount_of_0_or_less_is_refused_by_its_flag_in_the_api_and_in_a_file() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a", "--user", "ada"]);
    for (flag, amount, part) in [
        (
            "--budget",
            "0/day",
            "--budget: $0/day: 0 would refuse every request; use more than $0;",
        ),
        (
            "--rpm",
            "0",
            "--rpm: 0 requests/min: 0 would refuse every request; use at least 1;",
        ),
        ("--streams", "0", "--streams: 0 at once: 0 would refuse"),
        ("--budget", "-5/day", "--budget: `-5` is negative"),
        ("--rpm", "-5", "--rpm: `-5` is no whole number of 1 or more"),
    ] {
        for verb in [
            &["limits", "set", "user:ada"][..],
            &["keys", "create", "--name", "b"],
        ] {
            let said = desk.fails(2, &[verb, &[flag, amount]].concat());
            assert!(said.contains(part), "{said}");
        }
    }
    let said = desk.fails(
        1,
        &[
            "limits", "grant", "user:ada", "-5", "--until", "1h", "--reason", "r",
        ],
    );
    assert!(said.contains("`-5` is negative"), "{said}");
    let said = desk.fails(2, &["audit", "search", "--since", "-1h"]);
    assert!(said.contains("is no time"), "{said}");

    let file = desk.file("zero.toml", "[org]\nrpm = 0\nbudget = \"$0/day\"\n");
    let said = desk.fails(1, &["keys", "apply", "-f", &file]);
    assert!(
        said.contains("line 2: 0 requests/min: 0 would refuse every request; use at least 1")
            && said.contains("line 3: $0/day: 0 would refuse every request; use more than $0"),
        "{said}"
    );
    let server = desk.server();
    let (status, problem) = ask(
        &server,
        "PUT",
        "/limits/user:ada",
        r#"{"limits": [{"kind": "spend", "amount_usd": 0, "period": "day"}]}"#,
    );
    let said = problem["error"]["message"].as_str().unwrap();
    assert_eq!(status, 400);
    assert_eq!(
        said,
        "$0/day: 0 would refuse every request; use more than $0; to stop a key, revoke it; nothing was changed"
    );
}

#[test]
fn limits_of_one_pattern_and_budgets_alone_are_removed() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a"]);
    let set = |flags: &[&str]| desk.says(&[&["limits", "set", "org"][..], flags].concat());
    set(&[
        "--budget",
        "$2000/month",
        "--budget",
        "$90/day",
        "--rpm",
        "60",
    ]);
    set(&["--budget", "$5/day", "--rpm", "7", "--models", "gpt-5*"]);
    let left = set(&[
        "--models", "gpt-5*", "--clear", "--rpm", "9", "--budget", "none",
    ]);
    assert_eq!(
        left,
        "org\n  60 requests/min\n  9 requests/min of gpt-5*\n  $90/day@UTC\n  $2000/month@UTC\n"
    );
    let left = set(&["--models", "gpt-5*", "--clear"]);
    assert_eq!(
        left,
        "org\n  60 requests/min\n  $90/day@UTC\n  $2000/month@UTC\n"
    );
    assert_eq!(set(&["--budget", "none"]), "org\n  60 requests/min\n");
    assert_eq!(set(&["--clear"]), "org\n  no limits\n");
}

#[test]
fn a_file_without_keys_prunes_none_unless_that_is_asked_for() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a", "--team", "core"]);
    desk.says(&["limits", "set", "team:core", "--rpm", "5"]);
    let empty = desk.file("empty.toml", "");
    for more in [&[][..], &["--dry-run"]] {
        let apply = ["keys", "apply", "-f", &empty, "--prune"];
        let said = desk.fails(1, &[&apply[..], more].concat());
        assert!(
            said.contains("revoke keys (1)") && said.contains("--allow-empty"),
            "{said}"
        );
    }
    assert_eq!(desk.json(&["keys", "show", "a"])["state"], "active");
    assert!(
        desk.says(&["limits", "show", "team:core"])
            .contains("5 requests/min")
    );
    let said = desk.says(&["keys", "apply", "-f", &empty]);
    assert!(said.contains("0 changes"), "{said}");
    let said = desk.says(&["keys", "apply", "-f", &empty, "--prune", "--allow-empty"]);
    assert!(said.contains("2 changes"), "{said}");
    // nothing is taken away by then
    desk.says(&["keys", "apply", "-f", &empty, "--prune"]);
}

#[test]
fn limits_of_a_key_are_explained_with_those_above_it() {
    let desk = Desk::new();
    let create = [
        "keys", "create", "--name", "a", "--user", "ada", "--team", "core",
    ];
    desk.says(&[&create[..], &["--rpm", "5"]].concat());
    desk.says(&["limits", "set", "org", "--rpm", "500"]);
    desk.says(&["limits", "set", "team:core", "--rpm", "50"]);
    desk.says(&[
        "limits",
        "set",
        "team:core",
        "--each-user",
        "--streams",
        "3",
    ]);
    desk.says(&["limits", "set", "user:ada", "--budget", "$9/day"]);
    let explained = |subject: &str| {
        let answer = desk.json(&["limits", "explain", subject]);
        let of = |name: &str| -> Vec<String> {
            let rows = answer[name].as_array().unwrap().iter();
            let text = |row: &serde_json::Value| {
                let subject = row["subject"].as_str().unwrap_or("own");
                format!("{subject} {}", row["bound"])
            };
            rows.map(text).collect()
        };
        (of("limits"), of("above"))
    };
    let (own, above) = explained("key:a");
    assert_eq!(own, ["own 5.0"]);
    assert_eq!(
        above,
        [
            "org 500.0",
            "team:core 50.0",
            "user:ada 3.0",
            "user:ada 9.0"
        ]
    );
    let (own, above) = explained("user:ada");
    assert_eq!(own.len(), 2);
    assert_eq!(above, ["org 500.0", "team:core 50.0"]);
    assert_eq!(explained("team:core").1, ["org 500.0"]);
    assert_eq!(explained("org").1, [""; 0]);
    let text = desk.says(&["limits", "explain", "key:a"]);
    assert!(
        text.contains("team:core") && text.contains("50 requests/min") && text.contains("$9/day"),
        "{text}"
    );
    // `show` has what is set there alone
    let text = desk.says(&["limits", "show", "key:a"]);
    assert!(!text.contains("50 requests/min"), "{text}");
}

#[test]
fn lines_of_the_audit_are_found_by_their_object_and_say_what_changed() {
    let desk = Desk::new();
    let created = desk.json(&[
        "keys", "create", "--name", "a", "--team", "core", "--rpm", "5",
    ]);
    let id = created["id"].as_str().unwrap();
    desk.says(&["keys", "create", "--name", "b", "--budget", "$5/day"]);
    desk.says(&["limits", "set", "key:a", "--rpm", "9", "--budget", "$1/day"]);
    desk.says(&["limits", "set", "team:core", "--rpm", "50"]);
    desk.says(&[
        "limits",
        "grant",
        "key:a",
        "$5",
        "--until",
        "24h",
        "--reason",
        "a release",
    ]);
    let file = desk.file(
        "keys.toml",
        "[[key]]\nname = \"a\"\nteam = \"core\"\nrpm = 7\n[[team]]\nname = \"core\"\nrpm = 50\n",
    );
    desk.says(&["keys", "apply", "-f", &file]);
    desk.fails(5, &["keys", "create", "--name", "a"]);
    let found = |arguments: &[&str]| -> Vec<String> {
        let text = desk.says(&[&["audit", "search"], arguments].concat());
        let lines = text.lines().filter(|line| !line.starts_with("    "));
        lines
            .filter(|line| !line.contains(" intent"))
            .filter_map(|line| line.split(' ').nth(3).map(str::to_owned))
            .collect()
    };
    let of_a = [
        "key.create",
        "limits.set",
        "limits.grant",
        "keys.apply",
        "key.create",
    ];
    assert_eq!(found(&["--target", "a"]), of_a);
    assert_eq!(found(&["--target", "key:a"]), of_a);
    assert_eq!(found(&["--target", id]), of_a[..4]);
    assert_eq!(found(&["--target", &format!("key:{id}")]), of_a[..4]);
    assert_eq!(found(&["--target", "team:core"]), ["limits.set"]);
    assert_eq!(found(&["--target", "nothing"]), [""; 0]);
    assert_eq!(found(&["A RELEASE"])[..1], ["limits.grant"]);
    assert_eq!(found(&["team:core"]), ["limits.set"]);

    let text = desk.says(&["audit", "search", "--target", "a"]);
    for part in [
        "\n    limits: 5 requests/min\n",
        "\n    name: a\n",
        "\n    limits: 5 requests/min -> 9 requests/min, $1/day\n",
        "\n    grants: +$5 until ",
        &format!("\n    update key:{id} (a)\n"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        desk.says(&["audit", "tail", "-n", "3"])
            .contains("\n    update key:")
    );
    let json = desk.says(&["audit", "search", "--json"]);
    assert!(!json.contains("last_used_at"), "{json}");

    let server = desk.server();
    let (status, lines) = ask(&server, "GET", "/audit?target=a&q=release", "");
    assert_eq!(status, 200);
    let actions = lines["items"].as_array().unwrap().iter();
    assert!(
        actions.clone().count() > 0 && actions.clone().all(|it| it["action"] == "limits.grant"),
        "{lines}"
    );
}

#[test]
fn a_dry_run_in_an_empty_place_writes_nothing() {
    let desk = Desk::new();
    let file = desk.file("keys47.toml", "[org]\nrpm = 5\n");
    let apply = ["keys", "apply", "-f", &file, "--dry-run"];
    assert!(desk.says(&apply).contains("nothing was changed"));
    assert!(!desk.data().exists(), "no directory was made");
    std::fs::create_dir(desk.data()).unwrap();
    let ended = desk.verb(&apply);
    assert!(ended.stdout.contains("1 change,"), "{ended:?}");
    assert_eq!(ended.stderr, "");
    let entries = std::fs::read_dir(desk.data()).unwrap();
    assert_eq!(entries.count(), 0, "nothing was written");
}

#[test]
fn the_audit_has_the_name_of_the_file_that_was_applied() {
    let desk = Desk::new();
    let file = desk.file("keys47.toml", "[org]\nrpm = 5\n");
    desk.says(&["keys", "apply", "-f", &file]);
    let said = desk.says(&["audit", "search"]);
    assert!(said.contains("file:keys47.toml"), "{said}");
    assert!(!said.contains("file:keys.toml"), "{said}");
    let folder = file.trim_end_matches("keys47.toml");
    assert!(!said.contains(folder), "the folder is nobody's: {said}");
}
