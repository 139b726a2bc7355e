//! Tests of the room as a whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::*;
use crate::{
    config::prices::{Price, Rates},
    exchange::Tokens,
};

mod admission;
mod keys;
mod model;
mod replicas;
mod scale;
mod wave;

/// Billionths of a dollar.
const DOLLAR: u64 = 1_000_000_000;

/// Access with a clock that the test sets, and its keys.
struct Rig {
    access: Arc<Access>,
    now: AtomicU64,
    keys: BTreeMap<&'static str, FullKey>,
}

/// A key of a rig: name, team, user.
type Named = (&'static str, Option<&'static str>, Option<&'static str>);

impl Rig {
    fn new(keys: &[Named], change: impl FnOnce(&mut Records)) -> Self {
        let pepper = pepper();
        let mut records = Records::default();
        let mut full = BTreeMap::new();
        for (name, team, user) in keys {
            let id = KeyId::random().unwrap();
            let key = FullKey::generate(id).unwrap();
            records
                .keys
                .insert(id, record(&pepper, id, &key, (name, *team, *user)));
            full.insert(*name, key);
        }
        change(&mut records);
        let access = access(&records, &[], 1_000_000);
        Self {
            access: Arc::new(access),
            now: AtomicU64::new(1_000_000),
            keys: full,
        }
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now.load(SeqCst))
    }

    /// Lets time pass on both clocks.
    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, SeqCst);
        steady(&self.access).fetch_add(seconds * 1_000_000_000, SeqCst);
    }

    fn key(&self, name: &str) -> Arc<Key> {
        self.show(&self.keys[name]).unwrap()
    }

    fn show(&self, key: &FullKey) -> Result<Arc<Key>, Refusal> {
        let mut shown = Shown::default();
        shown.add(KeyField::ApiKey, key.reveal().as_bytes());
        self.access.identify(&shown, None, self.now())
    }

    fn admit(&self, name: &str, asked: &Asked<'_>) -> Admitted {
        self.access.admit(&self.key(name), asked, self.now())
    }

    #[track_caller]
    fn granted(&self, name: &str, asked: &Asked<'_>) -> Grant {
        match self.admit(name, asked) {
            Admitted::Granted(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(&self, name: &str, asked: &Asked<'_>) -> Refusal {
        match self.admit(name, asked) {
            Admitted::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

fn pepper() -> Pepper {
    Pepper::new(&[7; 32]).unwrap()
}

fn record(pepper: &Pepper, id: KeyId, key: &FullKey, named: Named) -> KeyRecord {
    let (name, team, user) = named;
    KeyRecord {
        id,
        name: name.to_owned(),
        user: user.map(str::to_owned),
        team: team.map(str::to_owned),
        secrets: vec![pepper.record(key, 1000)],
        models: Vec::new(),
        paths: Vec::new(),
        sources: Vec::new(),
        limits: Vec::new(),
        expires: None,
        upstream_key_env: None,
        created: 1000,
        revoked: None,
    }
}

fn access(records: &Records, spends: &[SpendRow], now: u64) -> Access {
    let variables = |name: &str| match name {
        "KEY_OF_CORE" => Some("sk-core".to_owned()),
        "KEY_OF_CI" => Some("Bearer ci".to_owned()),
        _ => None,
    };
    let now = UNIX_EPOCH + Duration::from_secs(now);
    let clock = SteadyClock::Manual(Arc::new(AtomicU64::new(1_000_000_000)));
    // of processes that have ended: what they had reserved is spent
    let spends = spends.iter().map(|row| SpendRow {
        spent: row.upto,
        ..row.clone()
    });
    let mut filling = AccessFilling::new(spends, variables, now);
    for (id, record) in &records.subjects {
        filling.subject(id.clone(), record.clone());
    }
    records.keys.values().for_each(|key| filling.key(key));
    filling.finish_with(pepper(), clock)
}

fn steady(access: &Access) -> &AtomicU64 {
    match &access.context.clock {
        SteadyClock::Manual(now) => now,
        SteadyClock::Machine(_) => panic!("a clock that no test sets"),
    }
}

fn limit(kind: LimitKind, amount: u64) -> LimitRule {
    LimitRule {
        kind,
        amount,
        models: None,
        unreachable: None,
    }
}

fn spend(period: Period, amount: u64) -> LimitRule {
    let zone = Some("Europe/Berlin".into());
    limit(LimitKind::Spend { period, zone }, amount)
}

/// $1 for a million tokens of input, $10 for those of output.
fn price() -> Price {
    let mut price = Price::default();
    price.rates = Rates {
        input: 1000,
        output: 10_000,
        cache_read: 100,
        cache_write_5m: 1000,
        cache_write_1h: 1000,
    };
    price
}

/// A generation of 300 octets, guessed to be 100 tokens, and at most 90 of output: $0.001.
fn generation(price: &Price) -> Asked<'_> {
    Asked {
        model: Some("m-1"),
        octets: 300,
        max_tokens: Some(90),
        session: Some(b"session"),
        is_generation: true,
        price: Some(price),
    }
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens {
        input,
        output,
        ..Tokens::default()
    }
}
