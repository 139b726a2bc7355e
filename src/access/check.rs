//! Faults of records, all at once: place, problem, remedy.

use std::{collections::BTreeSet, fmt};

use super::{
    pepper::Digest,
    period::{Calendar, nearest_zone},
    record::{
        BudgetGrant, KeyRecord, LimitKind, LimitRule, MOST_SECRETS, SubjectId, SubjectRecord,
        is_name,
    },
};

/// Fault of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// The member: `limits[1].zone`.
    pub place: String,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

impl KeyRecord {
    /// All faults.
    pub fn check(&self) -> Vec<RecordFault> {
        let mut faults = Faults::default();
        faults.name("name", Some(&self.name));
        faults.name("user", self.user.as_deref());
        faults.name("team", self.team.as_deref());
        if !(1..=MOST_SECRETS).contains(&self.secrets.len()) {
            let problem = format!("there are {}", self.secrets.len());
            faults.add(
                "secrets",
                problem,
                "a key has one secret, or two while a rotation overlaps",
            );
        }
        for (at, secret) in self.secrets.iter().enumerate() {
            if Digest::parse(&secret.digest).is_none() {
                let place = format!("secrets[{at}].digest");
                faults.add(
                    place,
                    "it is no digest",
                    "use the 64 hexadecimal digits of an export",
                );
            }
            if secret.last4.len() != 4 || !secret.last4.bytes().all(|it| it.is_ascii_alphanumeric())
            {
                let place = format!("secrets[{at}].last4");
                faults.add(
                    place,
                    "it is no end of a key",
                    "use its last four characters",
                );
            }
        }
        for (at, path) in self.paths.iter().enumerate() {
            if !path.as_str().starts_with(['/', '*']) {
                let place = format!("paths[{at}]");
                faults.add(
                    place,
                    format!("`{path}` is no path"),
                    "begin it with `/`: `/v1/complete`",
                );
            }
        }
        if self.expires.is_some_and(|expires| expires <= self.created) {
            faults.add(
                "expires",
                "it is not after the key's creation",
                "choose a later time",
            );
        }
        faults.variable(self.upstream_key_env.as_deref());
        faults.limits("limits", &self.limits);
        faults.0
    }
}

impl SubjectRecord {
    /// All faults of the record of a subject.
    pub fn check(&self, subject: &SubjectId) -> Vec<RecordFault> {
        let mut faults = Faults::default();
        let is_team = matches!(subject, SubjectId::Team(_));
        if !self.user_limits.is_empty() && !is_team {
            let problem = format!("{subject} has no users");
            faults.add(
                "user_limits",
                problem,
                "set them for a team, or use `limits`",
            );
        }
        if self.upstream_key_env.is_some() && !is_team {
            let problem = format!("{subject} has no credential for the upstream");
            faults.add("upstream_key_env", problem, "set it for a team or a key");
        }
        faults.variable(self.upstream_key_env.as_deref());
        faults.limits("limits", &self.limits);
        faults.limits("user_limits", &self.user_limits);
        for (at, grant) in self.grants.iter().enumerate() {
            faults.0.extend(
                grant
                    .check()
                    .into_iter()
                    .map(|fault| within(&format!("grants[{at}]"), fault)),
            );
        }
        faults.0
    }
}

impl LimitRule {
    /// All faults.
    pub fn check(&self) -> Vec<RecordFault> {
        let mut faults = Faults::default();
        let (longest, unit) = match &self.kind {
            LimitKind::RequestsPerMinute => (MOST_A_MINUTE, "requests"),
            LimitKind::InputTokensPerMinute | LimitKind::OutputTokensPerMinute => {
                (MOST_A_MINUTE, "tokens")
            }
            LimitKind::AtOnce => (MOST_AT_ONCE, "exchanges"),
            LimitKind::Spend { .. } => (MOST_MONEY, "billionths of a US dollar"),
        };
        if self.amount == 0 {
            let least = match &self.kind {
                LimitKind::Spend { .. } => "more than $0",
                LimitKind::RequestsPerMinute
                | LimitKind::InputTokensPerMinute
                | LimitKind::OutputTokensPerMinute
                | LimitKind::AtOnce => "at least 1",
            };
            faults.add(
                "amount",
                "0 would refuse every request",
                format!("use {least}; to stop a key, revoke it"),
            );
        } else if self.amount > longest {
            let problem = format!("{} is above {longest} {unit}", self.amount);
            faults.add("amount", problem, "use a smaller one, or no limit");
        }
        if let LimitKind::Spend {
            period,
            zone: Some(zone),
        } = &self.kind
            && Calendar::new(*period, Some(zone)).is_err()
        {
            let remedy = match nearest_zone(zone) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => "use a name such as Europe/Berlin".to_owned(),
            };
            faults.add("zone", format!("`{zone}` is no IANA time zone"), remedy);
        }
        faults.0
    }
}

impl BudgetGrant {
    /// All faults.
    pub fn check(&self) -> Vec<RecordFault> {
        let mut faults = Faults::default();
        if !(1..=MOST_MONEY).contains(&self.amount) {
            faults.add(
                "amount",
                format!("{} is no amount", self.amount),
                "grant more than 0",
            );
        }
        if self.until <= self.created {
            faults.add(
                "until",
                "it is not after the grant's creation",
                "choose a later time",
            );
        }
        if self.reason.trim().is_empty() {
            faults.add("reason", "it is empty", "say why: it is part of the audit");
        }
        faults.0
    }
}

#[derive(Default)]
struct Faults(Vec<RecordFault>);

impl Faults {
    fn add(
        &mut self,
        place: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(RecordFault {
            place: place.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    fn name(&mut self, place: &str, name: Option<&str>) {
        if name.is_some_and(|name| !is_name(name)) {
            self.add(
                place,
                "it is no name",
                "use 1 to 128 printable characters without blanks at the ends",
            );
        }
    }

    fn variable(&mut self, name: Option<&str>) {
        let is_variable = |name: &str| {
            !name.is_empty()
                && !name.as_bytes()[0].is_ascii_digit()
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || it == b'_')
        };
        // the value may be a credential by mistake, so it is not repeated
        if name.is_some_and(|name| !is_variable(name)) {
            let remedy = "name the variable that holds the credential, such as TEAM_CORE_KEY";
            self.add("upstream_key_env", "it is no name of a variable", remedy);
        }
    }

    fn limits(&mut self, place: &str, rules: &[LimitRule]) {
        let mut seen = BTreeSet::new();
        for (at, rule) in rules.iter().enumerate() {
            let place = format!("{place}[{at}]");
            self.0
                .extend(rule.check().into_iter().map(|fault| within(&place, fault)));
            if !seen.insert((&rule.kind, &rule.models)) {
                self.add(
                    place,
                    "it bounds what another limit bounds already",
                    "keep one of them",
                );
            }
        }
    }
}

fn within(place: &str, fault: RecordFault) -> RecordFault {
    RecordFault {
        place: format!("{place}.{}", fault.place),
        ..fault
    }
}

/// Requests or tokens a minute.
const MOST_A_MINUTE: u64 = 1_000_000_000_000;

/// Exchanges at once.
const MOST_AT_ONCE: u64 = 1_000_000;

/// Billionths of a US dollar: a billion of dollars.
const MOST_MONEY: u64 = 1_000_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::record::{Period, SecretRecord};

    fn spend(amount: u64, zone: &str) -> LimitRule {
        LimitRule {
            kind: LimitKind::Spend {
                period: Period::Month,
                zone: Some(zone.into()),
            },
            amount,
            models: None,
            unreachable: None,
        }
    }

    fn key() -> KeyRecord {
        KeyRecord {
            id: "0000000001".parse().unwrap(),
            name: "ci".into(),
            user: None,
            team: Some("core".into()),
            secrets: vec![SecretRecord {
                digest: "0".repeat(64),
                last4: "aB3x".into(),
                created: 10,
                expires: None,
            }],
            models: Vec::new(),
            paths: Vec::new(),
            sources: Vec::new(),
            limits: vec![spend(1, "Europe/Berlin")],
            expires: Some(11),
            upstream_key_env: Some("KEY_1".into()),
            created: 10,
            revoked: None,
        }
    }

    fn texts(faults: &[RecordFault]) -> Vec<String> {
        faults.iter().map(RecordFault::to_string).collect()
    }

    #[test]
    fn a_sound_record_has_no_faults() {
        assert_eq!(key().check(), []);
        assert_eq!(SubjectRecord::default().check(&SubjectId::Org), []);
    }

    #[test]
    fn all_faults_of_a_key_are_told_at_once() {
        let mut key = key();
        key.name = " ci".into();
        key.secrets[0].digest = "x".into();
        key.secrets[0].last4 = "12345".into();
        key.paths = vec!["v1/complete".parse().unwrap()];
        key.expires = Some(10);
        key.upstream_key_env = Some("sk-ant-secret".into());
        key.limits = vec![spend(0, "Europe/Berln"), spend(5, "UTC"), spend(6, "UTC")];
        let faults = texts(&key.check());
        for (fault, expected) in faults.iter().zip([
            "name: ",
            "secrets[0].digest: ",
            "secrets[0].last4: ",
            "paths[0]: `v1/complete` is no path; begin it with `/`",
            "expires: ",
            "upstream_key_env: it is no name of a variable; ",
            "limits[0].amount: 0 would refuse every request; use more than $0; ",
            "limits[0].zone: `Europe/Berln` is no IANA time zone; did you mean Europe/Berlin?",
            "limits[2]: it bounds what another limit bounds already; ",
        ]) {
            assert!(fault.starts_with(expected), "{fault}");
        }
        assert_eq!(faults.len(), 9, "{faults:#?}");
        assert!(!faults.concat().contains("sk-ant"));
    }

    #[test]
    fn faults_of_subjects_depend_on_their_kind() {
        let record = SubjectRecord {
            user_limits: vec![spend(u64::MAX, "UTC")],
            upstream_key_env: Some("KEY".into()),
            grants: vec![BudgetGrant {
                amount: 0,
                until: 1,
                reason: " ".into(),
                created: 1,
            }],
            ..SubjectRecord::default()
        };
        let team = SubjectId::Team("core".into());
        assert_eq!(texts(&record.check(&team)).len(), 4);
        assert_eq!(texts(&record.check(&SubjectId::Org)).len(), 6);
    }
}
