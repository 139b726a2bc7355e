//! Idle connections to the upstream, of one worker.
//!
//! Last in, first out, so that the most recently used connection is taken and the others age. A
//! reaper closes connections that are idle for too long, too old, or closed by the upstream, as
//! soon as they are closed: nothing is left in CLOSE_WAIT, and no request is sent into a connection
//! that is known to be dead.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Context,
    time::{Duration, Instant},
};

use super::connection::Http1Connection;
use crate::config::Timers;

/// Interval of the reaper. A connection that the upstream closes wakes it at once, except within
/// the first interval after the connection went idle.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections of one worker to one endpoint.
#[derive(Debug)]
pub struct Http1Pool {
    idle: RefCell<Vec<Idle>>,
    keep_alive: Cell<Duration>,
    max_age: Cell<Duration>,
    /// The count over all workers, for the dashboard and metrics.
    count: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Idle {
    connection: Http1Connection,
    since: Instant,
}

impl Http1Pool {
    /// An empty pool and its reaper, which ends when the pool is dropped.
    ///
    /// Idle connections are counted in `count`, too.
    pub fn new(timers: &Timers, count: Arc<AtomicUsize>) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle: RefCell::default(),
            keep_alive: Cell::new(timers.upstream_keep_alive),
            max_age: Cell::new(timers.upstream_max_age),
            count,
        });
        actix_rt::spawn(reap(Rc::downgrade(&pool)));
        pool
    }

    /// Takes over the limits of idle time and age.
    pub fn follow(&self, timers: &Timers) {
        self.keep_alive.set(timers.upstream_keep_alive);
        self.max_age.set(timers.upstream_max_age);
    }

    /// A connection that has nothing to read and is not closed, as far as this end can know.
    pub fn take(&self, cx: &mut Context<'_>) -> Option<Http1Connection> {
        let (keep_alive, max_age) = (self.keep_alive.get(), self.max_age.get());
        let now = Instant::now();
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            self.count.fetch_sub(1, Relaxed);
            if now.saturating_duration_since(idle.since) < keep_alive
                && !idle.connection.age.is_over_at(max_age, now)
                && idle.connection.is_quiet(cx)
                && idle.connection.is_open()
            {
                return Some(idle.connection);
            }
        }
    }

    /// Takes a connection back whose exchange is complete.
    pub fn put(&self, mut connection: Http1Connection) {
        let now = Instant::now();
        if !self.keep_alive.get().is_zero() && !connection.age.is_over_at(self.max_age.get(), now) {
            connection.is_kept = true;
            connection.read.shrink();
            self.count.fetch_add(1, Relaxed);
            self.idle.borrow_mut().push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes all idle connections. Returns their number.
    pub fn close_idle(&self) -> usize {
        let closed = std::mem::take(&mut *self.idle.borrow_mut()).len();
        self.count.fetch_sub(closed, Relaxed);
        closed
    }

    fn sweep(&self, cx: &mut Context<'_>) {
        let (keep_alive, max_age) = (self.keep_alive.get(), self.max_age.get());
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| {
            idle.since.elapsed() < keep_alive
                && !idle.connection.age.is_over(max_age)
                && idle.connection.is_quiet(cx)
        });
        if idle.len() < before {
            self.count.fetch_sub(before - idle.len(), Relaxed);
        }
    }
}

impl Drop for Http1Pool {
    fn drop(&mut self) {
        self.count.fetch_sub(self.idle.get_mut().len(), Relaxed);
    }
}

/// Sweeps at every tick and whenever an idle connection stirs.
async fn reap(pool: Weak<Http1Pool>) {
    while let Some(keep_alive) = pool.upgrade().map(|pool| pool.keep_alive.get()) {
        let interval = (keep_alive / 2).clamp(Duration::from_millis(10), REAP_INTERVAL);
        let mut tick = pin!(actix_rt::time::sleep(interval));
        poll_fn(|cx| {
            let due = tick.as_mut().poll(cx);
            if let Some(pool) = pool.upgrade() {
                pool.sweep(cx);
            }
            due
        })
        .await;
    }
}
