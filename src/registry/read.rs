//! Answers that change nothing: keys, limits with what is spent and left, budgets, and differences between what counts and
//! what is stored.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};

use super::{
    call::{KeyFilter, SpendBy},
    core::Registry,
    error::RegistryError,
    limits, money,
    shape::LimitShape,
    times,
    view::{
        self, KeyList, KeyRow, LimitAbove, LimitRow, LimitsChecked, LimitsOf, RegisterDifference,
        Reply, SharedRow, SpendBar, SpendBars, UsedLimit, UsedLimits,
    },
};
use crate::access::{
    Key, KeyId, KeyRecord, LimitKind, LimitRule, LimitState, Period, SharedState, SharedView,
    SubjectId, id_of, without_keys,
};

/// Rows of a page where none is asked for, and the most.
const ROWS: (usize, usize) = (1_000, 10_000);

/// Budgets that are shown at once, the most used ones.
const BARS: usize = 1_000;

/// Rates and exchanges at once that are shown where no number is asked for, and the most.
const USED: (usize, usize) = (100, 1_000);

impl Registry {
    /// The key of an id, or of a name: of the key that is not revoked, or else of the one that was.
    pub(super) fn found(&self, text: &str) -> Result<Arc<Key>, RegistryError> {
        let by_id = id_of(text).and_then(|id| self.access.key(id));
        if let Some(key) = by_id.or_else(|| self.active_by_name(text)) {
            return Ok(key);
        }
        let mut revoked = self.access.keys();
        revoked.retain(|key| key.name() == text);
        match &revoked[..] {
            [] => Err(RegistryError::NotFound(format!(
                "no key has the id or the name {:?}; keys list shows them",
                without_keys(text)
            ))),
            [key] => Ok(Arc::clone(key)),
            several => Err(RegistryError::NotFound(format!(
                "{} keys had the name {text:?}, and all of them were revoked; give the id of one; keys list {text:?} \
                 shows them",
                several.len()
            ))),
        }
    }

    /// The key of a name that is not revoked.
    pub(super) fn active_by_name(&self, name: &str) -> Option<Arc<Key>> {
        let keys = self.access.keys();
        let mut named = keys
            .into_iter()
            .filter(|key| key.name() == name && !key.is_revoked());
        named.next()
    }

    /// A key of this name that was revoked.
    pub(super) fn revoked_by_name(&self, name: &str) -> Option<Arc<Key>> {
        let mut keys = self.access.keys().into_iter();
        keys.find(|key| key.name() == name && key.is_revoked())
    }

    /// The row of a record, with the last uses of those of its secrets that are in effect.
    pub(super) fn row(&self, record: &KeyRecord, now: i64) -> KeyRow {
        let key = self.access.key(record.id);
        let last_use = |digest: &str| key.as_ref()?.last_use_of(digest);
        let secrets = record.secrets.iter();
        let uses: Vec<_> = secrets.map(|it| last_use(&it.digest)).collect();
        KeyRow::of(record, &uses, now)
    }

    pub(super) fn list(&self, filter: &KeyFilter) -> Result<Reply, RegistryError> {
        let now = times::now();
        let (usual, most) = ROWS;
        let limit = filter.limit.unwrap_or(usual);
        if limit == 0 || limit > most {
            return Err(RegistryError::Invalid(format!(
                "limit is not between 1 and {most}"
            )));
        }
        if let Some(state) = &filter.state
            && !["active", "expired", "revoked"].contains(&state.as_str())
        {
            let fault = "state is not one of active, expired, revoked";
            return Err(RegistryError::Invalid(fault.to_owned()));
        }
        let q = filter.q.as_deref().map(str::to_lowercase);
        let mut keys = self.access.keys();
        keys.retain(|key| {
            q.as_ref().is_none_or(|q| {
                let texts = [Some(key.name()), key.user(), key.team()];
                let mut texts = texts.into_iter().flatten();
                texts.any(|text| text.to_lowercase().contains(q.as_str()))
                    || key.id().to_string().to_lowercase().contains(q.as_str())
            })
        });
        if let Some(state) = &filter.state {
            keys.retain(|key| view::state(&key.record(), now) == state);
        }
        // people look for names; a name may be that of a revoked key, too
        keys.sort_unstable_by(|one, other| (one.name(), one.id()).cmp(&(other.name(), other.id())));
        let total = keys.len();
        let after = filter.after.as_deref().map(str::parse::<KeyId>);
        let after = after
            .transpose()
            .map_err(|error| RegistryError::Invalid(format!("after: {error}")))?;
        let before = after.and_then(|after| keys.iter().position(|key| key.id() == after));
        let from = before.map_or(0, |before| before + 1);
        let page = &keys[from.min(total)..(from + limit).min(total)];
        let next = (from + limit < total).then(|| page.last()).flatten();
        Ok(Reply::Keys(KeyList {
            items: page
                .iter()
                .map(|key| KeyRow::of(&key.record(), &last_uses(key), now))
                .collect(),
            total,
            next_after: next.map(|key| key.id().to_string()),
        }))
    }

    pub(super) fn show(&self, key: &str) -> Result<Reply, RegistryError> {
        let key = self.found(key)?;
        Ok(Reply::Key(KeyRow::of(
            &key.record(),
            &last_uses(&key),
            times::now(),
        )))
    }

    /// The limits of a subject, with what is spent and left.
    pub(super) fn limits_of(&self, id: &SubjectId) -> LimitsOf {
        let (now, moment) = (times::now(), SystemTime::now());
        let states = self.access.explain(id, moment);
        let record = self.access.subject(id).unwrap_or_default();
        let key = match id {
            SubjectId::Key(key) => self.access.key(*key),
            _ => None,
        };
        LimitsOf {
            subject: id.to_string(),
            limits: states.iter().map(limit_row).collect(),
            above: self.above(id, moment),
            user_limits: record.user_limits.iter().map(LimitShape::of).collect(),
            grants: limits::grants(&record, now),
            upstream_key_env: match key {
                Some(key) => key.record().upstream_key_env,
                None => record.upstream_key_env,
            },
            warnings: Vec::new(),
        }
    }

    /// The limits above a subject that bind it: of the organisation, and of the teams and users of its keys.
    fn above(&self, id: &SubjectId, moment: SystemTime) -> Vec<LimitAbove> {
        let mut states = Vec::new();
        let mut add = |above: &SubjectId| {
            if above != id {
                states.extend(self.access.explain(above, moment));
            }
        };
        add(&SubjectId::Org);
        match id {
            SubjectId::Org | SubjectId::Team(_) => {}
            SubjectId::User(name) => {
                let keys = self.access.keys();
                let keys = keys
                    .iter()
                    .filter(|key| key.user() == Some(name) && !key.is_revoked());
                let teams: BTreeSet<_> = keys.filter_map(|key| key.team()).collect();
                for team in teams {
                    add(&SubjectId::Team(team.to_owned()));
                }
            }
            SubjectId::Key(own) => {
                let key = self.access.key(*own);
                states = key.map_or(states, |key| self.access.explain_key(&key, moment));
                states.retain(|state| state.subject != *id);
            }
        }
        let rows = states.iter().map(|state| LimitAbove {
            subject: state.subject.to_string(),
            limit: limit_row(state),
        });
        rows.collect()
    }

    /// Budgets, the most used ones first.
    pub(super) fn spend(&self, by: SpendBy) -> SpendBars {
        let moment = SystemTime::now();
        let now = times::unix(moment);
        let mut items = Vec::new();
        let mut subjects = self.subjects(by);
        if by == SpendBy::Key {
            // keys that were not used yet come last, and need no meters to be left out
            let is_used = |id: &SubjectId| match id {
                SubjectId::Key(id) => self
                    .access
                    .key(*id)
                    .is_some_and(|key| self.access.is_used(&key)),
                _ => true,
            };
            let (used, mut unused): (Vec<_>, Vec<_>) =
                subjects.into_iter().partition(|(id, _)| is_used(id));
            unused.sort_by_cached_key(|(id, _)| id.to_string());
            unused.truncate(BARS.saturating_sub(used.len()));
            subjects = [used, unused].concat();
        }
        for (id, name) in subjects {
            for state in self.access.explain(&id, moment) {
                items.extend(bar(&id, name.clone(), &state, now));
            }
        }
        items.sort_by(|one, other| {
            let by_percent = other.percent.partial_cmp(&one.percent);
            by_percent
                .unwrap_or(Ordering::Equal)
                .then_with(|| one.subject.cmp(&other.subject))
        });
        items.truncate(BARS);
        SpendBars { items }
    }

    /// Rates and exchanges at once, the most used ones first.
    pub(super) fn used_limits(&self, most: Option<usize>) -> Result<Reply, RegistryError> {
        let (usual, bound) = USED;
        let most = most.unwrap_or(usual);
        if most == 0 || most > bound {
            return Err(RegistryError::Invalid(format!(
                "limit is not between 1 and {bound}"
            )));
        }
        let found = self.access.most_used(most, SystemTime::now());
        let items = found.states.iter().map(|state| UsedLimit {
            subject: state.subject.to_string(),
            name: match state.subject {
                SubjectId::Key(id) => self.access.key(id).map(|key| key.name().to_owned()),
                _ => None,
            },
            limit: limit_row(state),
        });
        Ok(Reply::Used(UsedLimits {
            items: items.collect(),
            total: found.total,
        }))
    }

    /// Subjects of a kind, with the names of keys.
    fn subjects(&self, by: SpendBy) -> Vec<(SubjectId, Option<String>)> {
        let keys = self.access.keys();
        let names = |of: fn(&Key) -> Option<&str>| {
            let names = keys.iter().filter_map(|key| of(key).map(str::to_owned));
            names.collect::<BTreeSet<_>>().into_iter()
        };
        match by {
            SpendBy::Org => vec![(SubjectId::Org, None)],
            SpendBy::Team => names(Key::team)
                .map(|name| (SubjectId::Team(name), None))
                .collect(),
            SpendBy::User => names(Key::user)
                .map(|name| (SubjectId::User(name), None))
                .collect(),
            SpendBy::Key => keys
                .iter()
                .filter(|key| key.budgets() > 0)
                .map(|key| (SubjectId::Key(key.id()), Some(key.name().to_owned())))
                .collect(),
        }
    }

    /// Compares what counts as spent with the registers of the store.
    pub(super) fn verify_limits(&self, subject: Option<&str>) -> Result<Reply, RegistryError> {
        let ids = match subject {
            Some(subject) => vec![self.subject(subject)?],
            None => SpendBy::ALL
                .into_iter()
                .flat_map(|by| self.subjects(by))
                .map(|(id, _)| id)
                .collect(),
        };
        // what this process spent since the last write is written first
        self.flush(self.access.take_dirty())?;
        let moment = SystemTime::now();
        let is_server = !self.boot.is_empty();
        let mut checked = LimitsChecked {
            compared: 0,
            differences: Vec::new(),
        };
        let mut book = self.book();
        if is_server {
            self.follow_spends(&mut book)?;
        }
        for id in ids {
            let subject = id.to_string();
            let mut stored: BTreeMap<String, u64> = BTreeMap::new();
            for register in book.store.registers(&subject)? {
                // what was spent counts while servers run, and what was reserved once none does
                let counted = match is_server {
                    true => register.spent,
                    false => register.counted(),
                };
                let sum = stored.entry(register.cell).or_default();
                *sum = sum.saturating_add(counted);
            }
            if stored.is_empty()
                && let SubjectId::Key(id) = &id
                && let Some(key) = self.access.key(*id)
                && !self.access.is_used(&key)
            {
                // neither counts anything
                checked.compared += key.budgets();
                continue;
            }
            for state in self.access.explain(&id, moment) {
                let Some(cell) = state.cell.as_deref() else {
                    continue;
                };
                checked.compared += 1;
                let stored = stored.get(cell).copied().unwrap_or_default();
                if stored != state.spent {
                    checked.differences.push(RegisterDifference {
                        subject: subject.clone(),
                        cell: cell.to_owned(),
                        in_effect_usd: money::number(state.spent),
                        stored_usd: money::number(stored),
                        difference_usd: money::difference(state.spent, stored),
                    });
                }
            }
        }
        Ok(Reply::Checked(checked))
    }
}

fn last_uses(key: &Key) -> Vec<Option<i64>> {
    key.last_used().collect()
}

fn limit_row(state: &LimitState) -> LimitRow {
    let number = |amount: u64| match state.kind {
        LimitKind::Spend { .. } => money::number(amount),
        _ => amount as f64,
    };
    LimitRow {
        limit: LimitShape::of(&LimitRule {
            kind: state.kind.clone(),
            amount: state.amount.saturating_sub(state.granted),
            models: state.models.clone(),
            unreachable: state.unreachable,
        }),
        bound: number(state.amount),
        spent: number(state.spent),
        held: number(state.held),
        left: number(state.left),
        percent: percent(state),
        resets_at: state.resets.map(times::show),
        default_of: state.default_of.clone(),
        waiting: state.waiting,
        shared: state.shared.map(|shared| shared_row(state, shared)),
    }
}

fn shared_row(state: &LimitState, shared: SharedView) -> SharedRow {
    SharedRow {
        state: match shared.state {
            SharedState::Fresh => "fresh",
            SharedState::Stale => "stale",
            SharedState::Lost => "lost",
            SharedState::Unasked => "unasked",
        },
        age_seconds: shared.age.map(|age| age as f64 / 1000.0),
        replicas: shared.replicas,
        counts: match state.kind {
            _ if shared.is_absent => "unknown",
            LimitKind::AtOnce => "own",
            _ => "all",
        },
        unreachable: match state.is_closed() {
            true => "closed",
            false => "open",
        },
    }
}

/// Spent and held in percent of the bound, with one decimal.
fn percent(state: &LimitState) -> f64 {
    let used = state.spent.saturating_add(state.held);
    match (state.amount, used) {
        (0, _) => 100.0,
        (bound, used) => (used as f64 / bound as f64 * 1000.0).round() / 10.0,
    }
}

fn bar(id: &SubjectId, name: Option<String>, state: &LimitState, now: i64) -> Option<SpendBar> {
    let LimitKind::Spend { period, zone } = &state.kind else {
        return None;
    };
    let shared = state.shared.map(|shared| shared_row(state, shared));
    Some(SpendBar {
        subject: id.to_string(),
        name,
        period: money::period_name(*period).to_owned(),
        zone: zone.as_ref().map(ToString::to_string),
        models: state.models.as_ref().map(ToString::to_string),
        limit_usd: money::number(state.amount),
        spent_usd: money::number(state.spent),
        held_usd: money::number(state.held),
        left_usd: money::number(state.left),
        percent: percent(state),
        resets_at: state.resets.map(times::show),
        // from a part of what was spent nothing follows
        forecast_usd: match shared.as_ref() {
            Some(shared) if shared.counts == "unknown" => None,
            _ => forecast(state, *period, zone.as_deref(), now),
        },
        shared,
    })
}

/// US dollars at the end of the period, if it goes on as since its beginning.
fn forecast(state: &LimitState, period: Period, zone: Option<&str>, now: i64) -> Option<f64> {
    let end = state.resets?;
    let zone = TimeZone::get(zone.unwrap_or("UTC")).ok()?;
    let end_there = Timestamp::from_second(end).ok()?.to_zoned(zone);
    let length = match period {
        Period::Day => 1.day(),
        Period::Week => 1.week(),
        Period::Month => 1.month(),
        Period::Total => return None,
    };
    let start = end_there.checked_sub(length).ok()?.timestamp().as_second();
    let (whole, gone) = (end - start, now - start);
    // of the first moments nothing follows
    if gone * 50 < whole || gone <= 0 {
        return None;
    }
    let spent = money::number(state.spent);
    let forecast = spent * whole as f64 / gone as f64;
    // to the cent, but never less than there is
    Some(((forecast * 100.0).round() / 100.0).max(spent))
}
