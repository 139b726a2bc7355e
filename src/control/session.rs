//! Sessions: random ids in cookies, of which only digests are stored.
//!
//! The table is bounded, its entries expire, and all of them end when the key changes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::http::header::{self, HeaderMap};
use ring::{
    digest::{Context, SHA256},
    rand::{SecureRandom as _, SystemRandom},
};

use crate::{config::Role, secret::Secret, wire::cookie};

/// Sessions at a time; beyond it the one that was used longest ago ends.
const CAPACITY: usize = 1_000;
/// Idle timeout of a session.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// Every session ends.
pub(super) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Digest of a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionDigest([u8; 32]);

impl SessionDigest {
    /// The digest of what only its owner knows. Parts cannot run into each other.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut name = [0; 32];
        name.copy_from_slice(context.finish().as_ref());
        Self(name)
    }
}

/// 256 random bits in hexadecimal digits.
pub(super) fn random_id() -> Option<String> {
    let mut octets = [0; 32];
    SystemRandom::new().fill(&mut octets).ok()?;
    Some(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

/// Tells whether a text has the form of a session id; others need not be looked up.
pub(super) fn is_id(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit)
}

/// The sessions that a request names: cookies of our name may be those of other ports and paths, and there
/// may be as many of them as a head holds.
pub(super) fn sessions(fields: &HeaderMap) -> impl Iterator<Item = SessionDigest> {
    fields
        .get_all(header::COOKIE)
        .flat_map(|cookies| cookie::sessions(cookies.as_bytes()))
        .filter(|id| is_id(id))
        .map(|id| SessionDigest::of(&[id]))
}

/// Open sessions, by the role of their key.
#[derive(Default)]
pub(super) struct RoleSessions {
    viewers: Sessions,
    operators: Sessions,
    admins: Sessions,
}

impl RoleSessions {
    /// Those of a role.
    pub(super) fn of(&self, role: Role) -> &Sessions {
        match role {
            Role::Viewer => &self.viewers,
            Role::Operator => &self.operators,
            Role::Admin => &self.admins,
        }
    }

    /// Ends a session.
    pub(super) fn close(&self, name: SessionDigest) {
        Role::ALL.iter().for_each(|role| self.of(*role).close(name));
    }
}

/// Open sessions, all of one key.
#[derive(Default)]
pub(super) struct Sessions(Mutex<SessionTable>);

#[derive(Default)]
struct SessionTable {
    /// The key of all these sessions.
    key: Option<Secret>,
    open: HashMap<SessionDigest, Times>,
}

struct Times {
    opened: Instant,
    used: Instant,
}

impl Times {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE || now.duration_since(self.opened) >= LIFETIME
    }
}

impl Sessions {
    /// Opens a session under this digest, authenticated by this key.
    pub(super) fn open(&self, name: SessionDigest, key: &Secret, now: Instant) {
        let mut table = self.of_key(key);
        if table.open.len() >= CAPACITY {
            table.open.retain(|_, times| !times.is_over(now));
        }
        if table.open.len() >= CAPACITY {
            let oldest = table.open.iter().min_by_key(|(_, times)| times.used);
            if let Some(name) = oldest.map(|(name, _)| *name) {
                table.open.remove(&name);
            }
        }
        let times = Times {
            opened: now,
            used: now,
        };
        table.open.insert(name, times);
    }

    /// Tells whether the session of this digest is open, and marks it as used.
    pub(super) fn is_open(&self, name: SessionDigest, key: &Secret, now: Instant) -> bool {
        let mut table = self.of_key(key);
        match table.open.get_mut(&name) {
            Some(times) if !times.is_over(now) => {
                times.used = now;
                true
            }
            Some(_) => {
                table.open.remove(&name);
                false
            }
            None => false,
        }
    }

    /// Tells whether the session of this digest is open, without marking it as used.
    pub(super) fn is_valid(&self, name: SessionDigest, key: &Secret, now: Instant) -> bool {
        let table = self.of_key(key);
        let times = table.open.get(&name);
        times.is_some_and(|times| !times.is_over(now))
    }

    /// Ends a session.
    fn close(&self, name: SessionDigest) {
        self.lock().open.remove(&name);
    }

    /// The table as this key leaves it.
    fn of_key(&self, key: &Secret) -> MutexGuard<'_, SessionTable> {
        let mut table = self.lock();
        if table.key.as_ref() != Some(key) {
            table.open.clear();
            table.key = Some(key.clone());
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> SessionDigest {
        SessionDigest::of(&[&number.to_be_bytes()])
    }

    #[test]
    fn a_session_ends_when_it_is_idle_old_closed_or_the_key_changes() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (key, other) = (Secret::new("one"), Secret::new("other"));
        let soon = |hours: u64| now + Duration::from_secs(hours * 3600);
        sessions.open(name(1), &key, now);
        assert!(sessions.is_open(name(1), &key, soon(11)));
        assert!(!sessions.is_open(name(2), &key, soon(11)));
        // it was used after 11 hours
        assert!(sessions.is_open(name(1), &key, soon(22)));
        assert!(!sessions.is_open(name(1), &key, soon(34)));

        sessions.open(name(1), &key, now);
        for hours in (0..7 * 24).step_by(6) {
            assert!(sessions.is_open(name(1), &key, soon(hours)), "{hours}");
        }
        assert!(!sessions.is_open(name(1), &key, soon(7 * 24)));

        sessions.open(name(1), &key, now);
        sessions.close(name(1));
        assert!(!sessions.is_open(name(1), &key, now));

        sessions.open(name(1), &key, now);
        assert!(!sessions.is_open(name(1), &other, now));
        assert!(!sessions.is_open(name(1), &key, now));
    }

    #[test]
    fn a_session_is_looked_at_without_being_used() {
        let (sessions, now, key) = (Sessions::default(), Instant::now(), Secret::new("key"));
        sessions.open(name(1), &key, now);
        for hours in 0..12 {
            let then = now + Duration::from_secs(hours * 3600);
            assert!(sessions.is_valid(name(1), &key, then), "{hours}");
        }
        assert!(!sessions.is_valid(name(1), &key, now + IDLE));
        assert!(!sessions.is_valid(name(2), &key, now));
        assert!(sessions.is_valid(name(1), &key, now));
        sessions.close(name(1));
        assert!(!sessions.is_valid(name(1), &key, now));
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_unused_goes_first() {
        let (sessions, now, key) = (Sessions::default(), Instant::now(), Secret::new("key"));
        for number in 0..CAPACITY {
            sessions.open(
                name(number),
                &key,
                now + Duration::from_millis(number as u64),
            );
        }
        let later = now + Duration::from_secs(60);
        assert!(sessions.is_open(name(0), &key, later));
        sessions.open(name(CAPACITY), &key, later);
        assert_eq!(sessions.lock().open.len(), CAPACITY);
        assert!(sessions.is_open(name(0), &key, later));
        assert!(!sessions.is_open(name(1), &key, later));
    }

    #[test]
    fn ids_are_long_and_differ() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert!(is_id(one.as_bytes()) && one != other);
        assert!(!is_id(b"0") && !is_id(&[b'x'; 64]));
        assert!(SessionDigest::of(&[b"ab", b"c"]) != SessionDigest::of(&[b"a", b"bc"]));
    }
}
