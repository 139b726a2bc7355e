//! A hundred thousand keys and ten thousand subjects with limits.

use std::{fs, time::Instant};

use super::*;

/// Keys and subjects of the target.
const KEYS: u64 = 100_000;
const SUBJECTS: u64 = 10_000;

/// Records of the target: half of the subjects are teams, half are users, each with a budget and a rate.
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
            limits: Vec::new(),
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

#[test]
fn a_hundred_thousand_keys_are_found_and_changed() {
    let records = records();
    let (before, started) = (resident(), Instant::now());
    let access = access(&records, &[], 1_000_000);
    let (start, memory) = (started.elapsed(), resident().saturating_sub(before));
    println!(
        "{KEYS} keys and {SUBJECTS} subjects with limits: start {start:?}, {:.1} MB (not optimised, beside other tests)",
        memory as f64 / 1e6
    );
    let started = Instant::now();
    for id in records.keys.keys() {
        assert!(access.key(*id).is_some());
    }
    println!("a look-up takes {:?}", started.elapsed() / KEYS as u32);
    assert!(access.key("zzzzzzzzzz".parse().unwrap()).is_none());
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
    let team = SubjectId::Team("team-7".into());
    assert_eq!(access.explain(&team, UNIX_EPOCH).len(), 2);
    assert_eq!(access.records().subjects, records.subjects);
}
