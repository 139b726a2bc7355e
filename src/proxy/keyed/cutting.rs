//! Running requests with a key, which a revocation may end at once.
//!
//! A list of each worker. A task looks four times a second whether the keys of those that run are revoked with
//! the wish to cut, and wakes them; a request that runs looks at its own mark whenever it is polled.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use crate::access::{Access, Key, local::LocalKey};

/// Requests with a key that run on one worker.
#[derive(Default)]
pub struct RunningKeys(RefCell<Vec<Weak<RunningKey>>>);

/// A request that runs.
pub(in crate::proxy) struct RunningKey {
    key: Rc<LocalKey>,
    is_cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Its place in the list.
    at: Cell<usize>,
    list: Weak<RunningKeys>,
}

impl RunningKeys {
    /// Makes the list of a worker, and watches it as long as the worker lives.
    pub fn watched(access: Arc<Access>) -> Rc<Self> {
        let list = Rc::<Self>::default();
        let watched = Rc::downgrade(&list);
        actix_rt::spawn(async move {
            loop {
                actix_rt::time::sleep(INTERVAL).await;
                match watched.upgrade() {
                    Some(list) => list.cut(&access),
                    None => return,
                }
            }
        });
        list
    }

    /// Registers a request.
    pub(super) fn enter(list: &Rc<Self>, key: Rc<LocalKey>) -> Rc<RunningKey> {
        let mut all = list.0.borrow_mut();
        let running = Rc::new(RunningKey {
            key,
            is_cut: Cell::new(false),
            waker: RefCell::default(),
            at: Cell::new(all.len()),
            list: Rc::downgrade(list),
        });
        all.push(Rc::downgrade(&running));
        running
    }

    fn cut(&self, access: &Access) {
        let all = self.0.borrow();
        for running in all.iter().filter_map(Weak::upgrade) {
            if access.is_cut(running.key()) && !running.is_cut.replace(true) {
                running.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl RunningKey {
    /// The key.
    pub(super) fn key(&self) -> &Arc<Key> {
        self.key.key()
    }

    /// Reports whether the model of a message decides.
    pub(super) fn needs_model(&self) -> bool {
        self.key.needs_model()
    }

    /// Reports whether the request is to end, and registers the task to be woken then.
    pub(in crate::proxy) fn poll_cut(&self, cx: &Context<'_>) -> bool {
        if self.is_cut.get() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        false
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        let Some(list) = self.list.upgrade() else {
            return;
        };
        let mut all = list.0.borrow_mut();
        let at = self.at.get();
        all.swap_remove(at);
        // the last one has its place now
        if let Some(moved) = all.get(at).and_then(Weak::upgrade) {
            moved.at.set(at);
        }
    }
}

/// Time between two looks: a revocation takes effect within a second.
const INTERVAL: Duration = Duration::from_millis(250);
