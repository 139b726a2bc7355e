//! Many keys, each with a budget of its own, and many subjects with limits.

use std::{fs, time::Instant};

use super::*;

/// A fifth of the target, a hundred thousand keys and ten thousand subjects: this is not optimised.
const KEYS: u64 = 20_000;
const SUBJECTS: u64 = 2_000;

/// Records: half of the subjects are teams, half are users, each with a budget and a rate.
fn records() -> Records {
    let mut records = Records::default();
    let digest = "0123456789abcdef".repeat(4);
    for number in 0..KEYS {
        let id: KeyId = format!("{number:010}").parse().unwrap();
        let key = KeyRecord {
            id,
            name: format!("key number {number}"),
            user: Some(format!("user-{}", number % (SUBJECTS / 2))),
            team: Some(format!("team-{}", number % (SUBJECTS / 2))),
            secrets: vec![SecretRecord {
                digest: digest.clone(),
                last4: "aB3x".into(),
                created: 0,
                expires: None,
            }],
            models: Vec::new(),
            paths: Vec::new(),
            sources: Vec::new(),
            limits: vec![spend(Period::Month, DOLLAR + number % 3)],
            expires: None,
            upstream_key_env: None,
            created: 0,
            revoked: None,
        };
        records.keys.insert(id, key);
    }
    for number in 0..SUBJECTS / 2 {
        let record = SubjectRecord {
            limits: vec![
                spend(Period::Month, DOLLAR),
                limit(LimitKind::RequestsPerMinute, 60),
            ],
            ..SubjectRecord::default()
        };
        records
            .subjects
            .insert(SubjectId::Team(format!("team-{number}")), record.clone());
        records
            .subjects
            .insert(SubjectId::User(format!("user-{number}")), record);
    }
    records
}

/// Resident bytes of the process.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// Keys and subjects whose meters were made.
fn made(access: &Access) -> usize {
    let keys = access.keys();
    let used = keys.iter().filter(|key| key.used().is_some()).count();
    let subjects = access.directory.all_subjects();
    used + subjects.iter().filter(|it| it.has_meters()).count()
}

#[test]
fn many_keys_are_found_and_changed_and_only_those_in_use_have_meters() {
    let records = records();
    let (before, started) = (resident(), Instant::now());
    let access = access(&records, &[], 1_000_000);
    let (start, memory) = (started.elapsed(), resident().saturating_sub(before));
    println!(
        "{KEYS} keys and {SUBJECTS} subjects with limits: start {start:?}, {:.1} MB (not optimised, beside other tests)",
        memory as f64 / 1e6
    );
    assert_eq!(made(&access), 0, "nothing is made before its first use");
    let started = Instant::now();
    for id in records.keys.keys() {
        assert!(access.key(*id).is_some());
    }
    println!("a look-up takes {:?}", started.elapsed() / KEYS as u32);
    assert!(access.key("zzzzzzzzzz".parse().unwrap()).is_none());
    let team = SubjectId::Team("team-7".into());
    assert_eq!(access.explain(&team, UNIX_EPOCH).len(), 2);
    assert_eq!(made(&access), 1, "the team that was explained");
    let key = access.key("0000000011".parse().unwrap()).unwrap();
    let price = price();
    let Admitted::Granted(_grant) = access.admit(&key, &generation(&price), UNIX_EPOCH) else {
        panic!("refused");
    };
    assert_eq!(made(&access), 1 + 3, "the key, its team and its user");
    // every subject has a rate, and no key
    let started = Instant::now();
    let listed = access.most_used(100, UNIX_EPOCH);
    println!(
        "the fullest of {} limits: {:?}",
        listed.total,
        started.elapsed()
    );
    assert_eq!(
        (listed.states.len(), listed.total),
        (100, SUBJECTS as usize)
    );
    let used = listed.states.iter().filter(|state| state.spent > 0);
    assert_eq!(used.count(), 2, "those of the one request come first");
    assert!(made(&access) <= 4 + 100, "no more than are listed");
    let (again, made_so_far) = (access.most_used(100, UNIX_EPOCH), made(&access));
    assert!(again.states == listed.states, "the order stays");
    assert_eq!(made(&access), made_so_far);
    let started = Instant::now();
    let changed: Vec<_> = records.keys.values().step_by(1000).collect();
    for record in &changed {
        let mut record = (*record).clone();
        record.name = "changed".into();
        access.put_key(&record);
        assert_eq!(access.key(record.id).unwrap().name(), "changed");
    }
    println!(
        "a change takes {:?}",
        started.elapsed() / changed.len() as u32
    );
    assert_eq!(access.records().subjects, records.subjects);
}
