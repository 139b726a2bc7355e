//! Access as one worker uses it.
//!
//! A worker counts the shares of its requests apart from those of others, and tells a key that it told of late
//! again without a digest of its secret. No text of a key is kept for that: an entry has 128 bits of two keyed
//! hashes, from which no secret of 190 bits can be told, and it holds as long as no key and no limit changes.

use std::{
    cell::RefCell,
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::SystemTime,
};

use super::{
    Access, Admitted, Asked, context::LocalContext, key::Key, pepper::Digest, refusal::Refusal,
    shown::Shown,
};

/// Access as one worker uses it.
pub struct LocalAccess {
    access: Arc<Access>,
    local: Arc<LocalContext>,
    recent: RecentKeys,
}

/// A key as one worker told it: its requests count the references to it apart from those of others.
pub struct LocalKey {
    key: Arc<Key>,
    digest: Digest,
    needs_model: bool,
    /// The changes of the directory before it was told.
    changes: u64,
}

impl LocalAccess {
    /// Access for one worker.
    pub fn new(access: Arc<Access>) -> Self {
        let local = LocalContext::new(&access.context);
        let recent = RecentKeys::default();
        Self {
            access,
            local,
            recent,
        }
    }

    /// Tells the key of a request, as [`Access::identify`].
    ///
    /// # Errors
    /// The refusal of a key that is wrong, or may not be used from there or any longer.
    pub fn identify(
        &self,
        shown: &Shown<'_>,
        client: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Rc<LocalKey>, Refusal> {
        let text = shown.key().map_err(|kind| self.refuse_key(kind))?;
        // before the look-up: what changes meanwhile makes the entry void
        let changes = self.directory.changes();
        let print = self.recent.print(text);
        if let Some(known) = self.recent.find(print, changes) {
            self.judge(&known.key, &known.digest, client, now)?;
            return Ok(known);
        }
        let (key, digest) = self.look_up(text)?;
        self.judge(&key, &digest, client, now)?;
        let known = Rc::new(LocalKey {
            needs_model: self.needs_model(&key),
            key,
            digest,
            changes,
        });
        self.recent.put(print, &known);
        Ok(known)
    }

    /// Takes what a request needs of every limit, or nothing.
    pub fn admit(&self, key: &Arc<Key>, asked: &Asked<'_>, now: SystemTime) -> Admitted {
        self.access.admit_in(&self.local, key, asked, now)
    }
}

impl Deref for LocalAccess {
    type Target = Arc<Access>;

    fn deref(&self) -> &Arc<Access> {
        &self.access
    }
}

impl LocalKey {
    /// The key. One count of its references is enough for a worker: all workers write to it.
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// As [`Access::needs_model`].
    pub fn needs_model(&self) -> bool {
        self.needs_model
    }
}

/// Keys that a worker told of late, by the text that a client showed.
struct RecentKeys {
    hashers: [RandomState; 2],
    entries: RefCell<Box<[Option<RecentKey>]>>,
}

struct RecentKey {
    print: Print,
    key: Rc<LocalKey>,
}

/// Hashes of a text under secrets of the worker, which no client can aim at.
type Print = [u64; 2];

impl Default for RecentKeys {
    fn default() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            entries: RefCell::new((0..ENTRIES).map(|_| None).collect()),
        }
    }
}

impl RecentKeys {
    fn print(&self, text: &[u8]) -> Print {
        let hashed = |hasher: &RandomState| {
            let mut hasher = hasher.build_hasher();
            hasher.write(text);
            hasher.finish()
        };
        [hashed(&self.hashers[0]), hashed(&self.hashers[1])]
    }

    /// The key of a text, unless something changed since.
    fn find(&self, print: Print, changes: u64) -> Option<Rc<LocalKey>> {
        let entries = self.entries.borrow();
        let entry = entries.get(place(print))?.as_ref()?;
        // both halves at once: the time says nothing of where they differ
        let differing = (entry.print[0] ^ print[0]) | (entry.print[1] ^ print[1]);
        (differing == 0 && entry.key.changes == changes).then(|| Rc::clone(&entry.key))
    }

    fn put(&self, print: Print, key: &Rc<LocalKey>) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(place(print)) {
            let key = Rc::clone(key);
            *entry = Some(RecentKey { print, key });
        }
    }
}

fn place(print: Print) -> usize {
    print[0] as usize % ENTRIES
}

/// Keys that are kept: 6 KiB of each worker.
const ENTRIES: usize = 256;
