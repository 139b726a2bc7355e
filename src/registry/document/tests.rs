use super::*;

fn pepper() -> Pepper {
    Pepper::new(&[7; 32]).unwrap()
}

fn read_with(text: &str, secrets: &[(&str, &str)]) -> Result<KeyFile, Vec<FileFault>> {
    let secrets = secrets
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    read(text, &secrets, &pepper(), 1_795_402_800)
}

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_whole_file_is_read() {
    let full = FullKey::generate("0aB3zZ9xY1".parse().unwrap()).unwrap();
    let text = format!(
        r#"
        [org]
        budget = "$2000/month@Europe/Berlin"

        [[team]]
        name = "core"
        budget = ["$500/month@Europe/Berlin", "50/day"]
        rpm = 1_000
        upstream_key_env = "CORE_KEY"
        each_user = {{ budget = "$100/month", streams = 4 }}
        limits = [{{ models = "claude-opus-*", budget = "$20/day", unreachable = "open" }}]

        [[user]]
        name = "ann"
        output_tpm = 9000

        [[key]]
        name = "ann-laptop"
        key_env = "ANN_KEY"
        user = "ann"
        team = "core"
        models = "claude-*"
        sources = ["10.0.0.0/8", "2001:db8::1"]
        expires = 2027-03-01

        [[key]]
        name = "ci"
        id = "1111111111"
        digests = ["{DIGEST}:abcd"]
        paths = ["/v1/messages/batches*"]
        streams = 2
        "#
    );
    let file = read_with(&text, &[("ANN_KEY", full.reveal())]).unwrap();
    assert_eq!(variables(&text), ["ANN_KEY".to_owned()].into());
    let core = &file.subjects[&SubjectId::Team("core".to_owned())];
    assert_eq!(
        (core.line, core.limits.len(), core.user_limits.len()),
        (5, 4, 2)
    );
    assert_eq!(core.upstream_key_env.as_deref(), Some("CORE_KEY"));
    assert!(core.limits.iter().any(|it| it.amount == 1000));
    assert_eq!(file.subjects.len(), 3);
    let [ann, ci] = &file.keys[..] else {
        panic!("{file:?}")
    };
    assert_eq!(ann.id, Some(full.id()));
    assert_eq!(ann.secrets, [pepper().record(&full, 1_795_402_800)]);
    assert_eq!(ann.settings.sources.len(), 2);
    assert_eq!(ann.settings.expires, Some(1_803_859_200));
    assert_eq!((ci.line, ci.secrets[0].last4.as_str()), (26, "abcd"));
    assert!(!format!("{file:?}").contains(full.reveal()));
}

#[test]
fn all_faults_are_found_at_once_with_line_and_fix() {
    let text = r#"
[org]
budgets = "$1/day"

[[team]]
name = "cor"
budget = "$-5/month"
rpm = 0.5

[[team]]
budget = "$5/month@Europe/Bonn"

[[key]]
name = "a"
user = " ann "
team = "core"
secret = "ap_canary"
streams = 0
expires = "90d"
sources = ["10.0.0.0/40"]
upstream_key_env = "sk-ant-canary"

[[key]]
name = "a"
key_env = "NOT_SET"
models = ["", "claude-*"]
budget = ["$1/day", "$2/day@UTC"]
digests = ["xyz"]
"#;
    let faults = read_with(text, &[]).unwrap_err();
    let found: Vec<_> = faults
        .iter()
        .map(|it| (it.line, it.fault.as_str()))
        .collect();
    let expected = [
        (3, "\"budgets\" is unknown"),
        (7, "negative"),
        (8, "rpm is no whole number"),
        (10, "no name"),
        (15, "is no name"),
        (17, "a secret does not belong"),
        (11, "`Europe/Bonn` is no time zone"),
        (18, "0 at once: 0 would refuse every request"),
        (19, "a duration would begin anew"),
        (20, "is no network"),
        (21, "no name of a variable"),
        (23, "of the same kind, period and models"),
        (25, "NOT_SET is not set"),
        (26, "an empty pattern"),
        (28, "no digest"),
    ];
    for (line, part) in expected {
        let is_found = found
            .iter()
            .any(|(at, fault)| *at == line && fault.contains(part));
        assert!(is_found, "line {line}, {part}: {found:#?}");
    }
    assert!(faults.iter().all(|fault| !fault.fix.is_empty()));
    assert!(
        faults
            .iter()
            .any(|fault| fault.fix == "did you mean budget?")
    );
    let all = format!("{faults:?}");
    assert!(!all.contains("canary"), "{all}");
}

#[test]
fn names_that_no_key_has_and_names_that_two_have_are_faults() {
    let text = format!(
        "[[team]]\nname = \"cor\"\nrpm = 1\n[[key]]\nname = \"a\"\nteam = \"core\"\n\
         [[key]]\nname = \"a\"\nid = \"1111111111\"\ndigests = \"{DIGEST}\"\n\
         [[key]]\nname = \"b\"\nid = \"1111111111\"\n[[user]]\nname = \"bob\"\n"
    );
    let faults = read_with(&text, &[]).unwrap_err();
    let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let said = said.join("\n");
    assert!(
        said.contains("line 1: no key of the file has the team \"cor\"; did you mean \"core\"?"),
        "{said}"
    );
    assert!(
        said.contains("line 14: no key of the file has the user \"bob\"; give it a key"),
        "{said}"
    );
    assert!(
        said.contains("line 7: the name \"a\" is that of line 4, too"),
        "{said}"
    );
    assert!(
        said.contains("line 11: the id 1111111111 is that of line 7, too"),
        "{said}"
    );
}

#[test]
fn a_fault_of_a_key_hides_none_of_another_and_makes_none() {
    let lines = |text: &str| -> Vec<(usize, String)> {
        let faults = read_with(text, &[]).unwrap_err();
        faults.into_iter().map(|it| (it.line, it.fault)).collect()
    };
    let found = lines(
        "[[team]]\nname = \"core\"\nrpm = 1\n[[key]]\nname = \"a\"\nteam = \"core\"\nmodels = [\"\"]\n\
         [[key]]\nname = \"a\"\nid = 5\nlimits = [{ models = \"x\" }]\n",
    );
    let is = |at: usize, line: usize, part: &str| {
        assert!(
            found[at].0 == line && found[at].1.contains(part),
            "{at}: {found:#?}"
        );
    };
    is(0, 7, "an empty pattern");
    is(1, 8, "the name \"a\" is that of line 4, too");
    is(2, 10, "a text is expected");
    is(3, 11, "a limit without an amount");
    assert_eq!(found.len(), 4, "{found:#?}");

    // a key without a name, and one whose team cannot be read
    let found = lines(
        "[[team]]\nname = \"core\"\nrpm = 0\n[[key]]\nteam = \"core\"\nstreams = 0\n\
         [[team]]\nname = \"web\"\n[[key]]\nname = \"b\"\nteam = 5\nbudget = \"0/day\"\n",
    );
    let faults: Vec<_> = found.iter().map(|(_, fault)| &**fault).collect();
    assert_eq!(
        faults,
        [
            "0 requests/min: 0 would refuse every request",
            "[[key]] has no name",
            "0 at once: 0 would refuse every request",
            "a text is expected",
            "$0/day: 0 would refuse every request",
        ],
        "{found:#?}"
    );
}

#[test]
fn every_fault_of_the_form_is_found() {
    let faults = read_with("[org]\nbudget = \nrpm = = 5\n[[key\nname = \"a\"\n", &[]).unwrap_err();
    let lines: Vec<_> = faults.iter().map(|it| it.line).collect();
    assert!(
        lines.contains(&2) && lines.contains(&3) && lines.contains(&4),
        "{faults:?}"
    );
}

#[test]
fn a_file_of_other_forms_is_refused() {
    for text in [
        "key = 5",
        "key = [5]",
        "org = 5",
        "org = []",
        "[team]\nname = \"a\"",
        "[[key]]\nname = 5",
        "[[key]]\nname = \"a\"\nbudget = 5",
        "[[key]]\nname = \"a\"\nlimits = 5",
        "[[key]]\nname = \"a\"\nlimits = [{ models = \"x\" }]",
        "[[key]]\nname = \"a\"\nid = \"short\"",
        "[[key]]\nname = \"a\"\nexpires = true",
        "[[team]]\nname = \"a\"\neach_user = 5",
    ] {
        assert!(read_with(text, &[]).is_err(), "{text}");
    }
    assert!(read_with("", &[]).unwrap().keys.is_empty());
}
