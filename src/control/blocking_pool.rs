//! Runs blocking work off the worker threads, at most 4 at a time.
//!
//! The threads for what blocks are those that resolve names, too: a client of the admin plane must not
//! take all of them.

use std::sync::Arc;

use actix_web::web;
use tokio::sync::Semaphore;

use super::problem::Problem;

/// Maximum of tasks at a time; further ones wait.
const AT_ONCE: usize = 4;

/// A pool of permits for blocking work.
pub(super) struct BlockingPool(Arc<Semaphore>);

impl BlockingPool {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Runs work on another thread, once a permit is free.
    ///
    /// # Errors
    /// The work panicked, or the process is ending.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.map_err(|_| FAILED)?;
        // the place is the work's, not that of whoever waits: who goes away does not end it
        let done = web::block(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| FAILED)
    }
}

const FAILED: Problem = Problem::Unavailable("the answer could not be made");

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::Duration,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn four_are_done_at_once_and_on_other_threads() {
        let (pool, here) = (BlockingPool::new(), thread::current().id());
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..20).map(|number| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            pool.run(move || {
                assert_ne!(thread::current().id(), here);
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, SeqCst);
                number
            })
        });
        let done: Vec<_> = join_all(all).await.into_iter().map(Result::ok).collect();
        assert_eq!(done, (0..20).map(Some).collect::<Vec<_>>());
        assert_eq!(most.load(SeqCst), AT_ONCE);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_no_place_to_another_before_its_end() {
        let pool = BlockingPool::new();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        {
            let gone = pool.run(move || ended.recv().is_ok());
            let soon = tokio::time::timeout(Duration::from_millis(20), gone);
            assert!(soon.await.is_err());
        }
        assert_eq!(pool.0.available_permits(), AT_ONCE - 1);
        drop(end);
        while pool.0.available_permits() < AT_ONCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_fails_gives_its_place_back() {
        let pool = BlockingPool::new();
        let failed = pool.run(|| -> () { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(failed.await, Err(FAILED));
        assert_eq!(pool.0.available_permits(), AT_ONCE);
    }
}
