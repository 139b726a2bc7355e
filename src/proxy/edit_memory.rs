//! The memory that held request bodies share (`EDIT_MEMORY`, docs/contract.md §7.2).
//!
//! A body pays for octets that arrived, in steps, never for what its client declares. Bodies that
//! arrive at the same time must not wait for each other's memory for ever, so one of them, the *first*,
//! has the rest of the largest body kept free for it; others take a step only as long as that stays
//! so. The first ends, gives all of its memory back, and the next one that can end takes its place
//! (the banker's algorithm, with one customer looked at). A share of the memory is for small bodies
//! alone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{error::DeniedError, upstream::pieces::Pieces, wire::body::Framing};

/// Memory for held bodies, of the whole process.
#[derive(Debug, Clone)]
pub struct EditMemory(Arc<Mutex<MemoryPool>>);

/// One body's part of it, given back when dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    all: EditMemory,
    body: HeldBody,
    held: u64,
    /// The part of `held` that came from the memory for small bodies.
    held_small: u64,
}

/// A body as the memory knows it.
#[derive(Debug, Clone, Copy)]
struct HeldBody {
    id: u64,
    /// The most that it can need.
    most: u64,
    /// True if it needs exactly that much.
    is_exact: bool,
}

#[derive(Debug)]
struct MemoryPool {
    /// Memory for bodies of any size, free or not.
    common: u64,
    /// The largest body.
    largest: u64,
    /// Octets that are free for every body.
    free: u64,
    /// Octets that are free for small bodies.
    free_small: u64,
    first: Option<FirstBody>,
    waiting: VecDeque<QueuedStep>,
    next_id: u64,
}

/// The body for which the rest of the largest body is kept free.
#[derive(Debug)]
struct FirstBody {
    id: u64,
    /// Memory that it has of the common part.
    held: u64,
}

/// A step that is waited for.
#[derive(Debug)]
struct QueuedStep {
    step: MemoryStep,
    granted: oneshot::Sender<MemoryPart>,
}

/// A step that a body asks for.
#[derive(Debug, Clone, Copy)]
struct MemoryStep {
    body: HeldBody,
    octets: u64,
    /// Memory that the body has, in all and of the common part.
    held: u64,
    held_common: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemoryPart {
    Small,
    Common,
}

impl EditMemory {
    /// Memory of `total` octets for bodies of at most `largest`.
    pub fn new(total: u64, largest: u64) -> Self {
        let largest = largest.min(total);
        let small = (total / SMALL_PART).min(total - largest);
        Self(Arc::new(Mutex::new(MemoryPool {
            common: total - small,
            largest,
            free: total - small,
            free_small: small,
            first: None,
            waiting: VecDeque::new(),
            next_id: 0,
        })))
    }

    /// The share of a body that is held up to `limit` octets. It has nothing yet.
    pub(super) fn share(&self, framing: Framing, limit: u64) -> MemoryShare {
        let (most, is_exact) = match framing {
            Framing::Length(length) => (length.min(limit), true),
            Framing::Chunked | Framing::UntilClose | Framing::None => (limit, false),
        };
        let mut state = self.lock();
        // a reload may allow larger ones
        state.largest = state.largest.max(limit.min(state.common));
        // what can never be free is not waited for before a body needs it
        let (most, is_exact) = (most.min(state.common), is_exact && most <= state.common);
        state.next_id += 1;
        let body = HeldBody {
            id: state.next_id,
            most,
            is_exact,
        };
        drop(state);
        MemoryShare {
            all: self.clone(),
            body,
            held: 0,
            held_small: 0,
        }
    }

    /// The state is whole between any two statements that can panic.
    fn lock(&self) -> MutexGuard<'_, MemoryPool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryShare {
    /// Grows to `octets` in all; waits its turn for a while. Gives the time that it waited.
    pub(super) async fn grow_to(&mut self, octets: u64) -> Result<Duration, DeniedError> {
        if octets <= self.held {
            return Ok(Duration::ZERO);
        }
        // each step is as large as all before it, within bounds, so that a large body asks seldom
        let ahead = self.held.clamp(SMALLEST_STEP, LARGEST_STEP);
        let wanted = octets.max((self.held + ahead).min(self.body.most));
        let step = MemoryStep {
            body: self.body,
            octets: wanted - self.held,
            held: self.held,
            held_common: self.held - self.held_small,
        };
        let granted = {
            let mut state = self.all.lock();
            let had_first = state.first.is_some();
            match state.grant(&step) {
                Some(pool) => {
                    if had_first && state.first.is_none() {
                        state.serve();
                    }
                    drop(state);
                    self.add(step.octets, pool);
                    return Ok(Duration::ZERO);
                }
                None => state.wait(step),
            }
        };
        let began = Instant::now();
        let mut turn = PendingStep {
            share: self,
            octets: step.octets,
            granted,
        };
        let outcome = tokio::time::timeout(PATIENCE, &mut turn.granted).await;
        match outcome {
            Ok(Ok(pool)) => {
                turn.share.add(step.octets, pool);
                Ok(began.elapsed())
            }
            Ok(Err(_)) | Err(_) => Err(DeniedError::EditMemory),
        }
    }

    /// The body is complete: it needs no more than it has.
    pub(super) fn complete(&mut self) {
        self.body.most = self.held;
        let mut state = self.all.lock();
        if state.is_first(self.body) {
            state.first = None;
            state.serve();
        }
    }

    /// Ties the memory to the content itself: it is given back when the last piece has left.
    pub(super) fn tied_to(mut self, content: Pieces) -> Pieces {
        self.complete();
        let share = Arc::new(self);
        content
            .into_iter()
            .map(|piece| {
                Bytes::from_owner(Tied {
                    piece,
                    _share: Arc::clone(&share),
                })
            })
            .collect()
    }

    fn add(&mut self, octets: u64, pool: MemoryPart) {
        self.held += octets;
        if pool == MemoryPart::Small {
            self.held_small += octets;
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.free_small += self.held_small;
        state.free += self.held - self.held_small;
        if state.is_first(self.body) {
            state.first = None;
        }
        state.serve();
    }
}

/// A piece of content that keeps its share.
struct Tied {
    piece: Bytes,
    _share: Arc<MemoryShare>,
}

impl AsRef<[u8]> for Tied {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

/// A body that waits. A step that is granted as the wait ends is not lost.
struct PendingStep<'a> {
    share: &'a mut MemoryShare,
    octets: u64,
    granted: oneshot::Receiver<MemoryPart>,
}

impl Drop for PendingStep<'_> {
    fn drop(&mut self) {
        self.granted.close();
        if let Ok(pool) = self.granted.try_recv() {
            self.share.add(self.octets, pool);
        }
    }
}

impl MemoryPool {
    fn is_first(&self, body: HeldBody) -> bool {
        let first = self.first.as_ref();
        first.is_some_and(|first| first.id == body.id)
    }

    /// Takes a step's octets, if they are free for it.
    fn grant(&mut self, step: &MemoryStep) -> Option<MemoryPart> {
        let MemoryStep {
            body,
            octets,
            held,
            held_common,
        } = *step;
        let after = held + octets;
        let is_small = body.most <= SMALL || (!body.is_exact && after <= SMALL);
        if is_small && self.free_small >= octets {
            self.free_small -= octets;
            return Some(MemoryPart::Small);
        }
        let left = self.free.checked_sub(octets)?;
        let is_last = body.is_exact && after >= body.most;
        match &mut self.first {
            Some(first) if first.id == body.id => {
                first.held += octets;
                if is_last {
                    self.first = None;
                }
            }
            // it needs no more, and gives it back whatever becomes of the others
            first if is_last => {
                let kept = first
                    .as_ref()
                    .map_or(0, |first| self.largest.saturating_sub(first.held));
                if left < kept {
                    return None;
                }
            }
            Some(first) => {
                if left < self.largest.saturating_sub(first.held) {
                    return None;
                }
            }
            first @ None => {
                if left < body.most.saturating_sub(after) {
                    return None;
                }
                *first = Some(FirstBody {
                    id: body.id,
                    held: held_common + octets,
                });
            }
        }
        self.free = left;
        Some(MemoryPart::Common)
    }

    fn wait(&mut self, step: MemoryStep) -> oneshot::Receiver<MemoryPart> {
        let (granted, receiver) = oneshot::channel();
        self.waiting.push_back(QueuedStep { step, granted });
        receiver
    }

    /// Gives what is free to those that wait, in their order; a smaller step may overtake.
    fn serve(&mut self) {
        let mut refused = 0;
        let mut at = 0;
        while at < self.waiting.len() && refused < MOST_REFUSED {
            if self.waiting[at].granted.is_closed() {
                self.waiting.remove(at);
                continue;
            }
            let (step, had_first) = (self.waiting[at].step, self.first.is_some());
            let Some(pool) = self.grant(&step) else {
                (at, refused) = (at + 1, refused + 1);
                continue;
            };
            let is_taken = self
                .waiting
                .remove(at)
                .is_some_and(|waiting| waiting.granted.send(pool).is_ok());
            if !is_taken {
                self.give_back(&step, pool);
            }
            if had_first && self.first.is_none() {
                // those before it may have their turn now
                at = 0;
            }
        }
    }

    fn give_back(&mut self, step: &MemoryStep, pool: MemoryPart) {
        match pool {
            MemoryPart::Small => self.free_small += step.octets,
            MemoryPart::Common => {
                self.free += step.octets;
                // whatever it was: its share is about to be dropped
                if self.is_first(step.body) {
                    self.first = None;
                }
            }
        }
    }
}

/// Maximum wait of a body for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Size of the first step, if the body is not shorter: most requests of tools, and a third of a Claude Code
/// turn, which takes two more.
const SMALLEST_STEP: u64 = 16 * 1024;
/// Maximum of later steps, and so of the memory that a body has taken and not used yet.
const LARGEST_STEP: u64 = 1024 * 1024;
/// A body of this size is small: five turns of Claude Code.
const SMALL: u64 = 256 * 1024;
/// Divisor of the part for small bodies.
const SMALL_PART: u64 = 8;
/// Steps that are looked at in vain when memory becomes free, so that a queue of thousands costs little.
const MOST_REFUSED: usize = 64;

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn exactly(memory: &EditMemory, octets: u64) -> MemoryShare {
        memory.share(Framing::Length(octets), 32 * MIB)
    }

    fn chunked(memory: &EditMemory) -> MemoryShare {
        memory.share(Framing::Chunked, 32 * MIB)
    }

    /// What is free in all.
    fn free(memory: &EditMemory) -> u64 {
        let state = memory.lock();
        state.free + state.free_small
    }

    #[test]
    fn a_body_that_a_reload_allowed_to_be_larger_begins_at_once() {
        let memory = EditMemory::new(64 * MIB, 8 * MIB);
        for limit in [60, 64, 1_000] {
            let mut share = memory.share(Framing::Chunked, limit * MIB);
            assert!(matches!(
                share.grow_to(MIB).now_or_never(),
                Some(Ok(Duration::ZERO))
            ));
        }
    }

    #[test]
    fn what_is_declared_costs_nothing_until_it_arrives() {
        let memory = EditMemory::new(512 * MIB, 32 * MIB);
        let mut idle: Vec<MemoryShare> = (0..1000).map(|_| exactly(&memory, 32 * MIB)).collect();
        for share in &mut idle {
            let grown = share.grow_to(1).now_or_never();
            assert!(matches!(grown, Some(Ok(Duration::ZERO))));
        }
        assert_eq!(free(&memory), 512 * MIB - 1000 * SMALLEST_STEP);
        let mut honest = exactly(&memory, 20 * MIB);
        assert!(honest.grow_to(20 * MIB).now_or_never().is_some());
        drop((idle, honest));
        assert_eq!(free(&memory), 512 * MIB);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn small_bodies_have_a_share_of_their_own() {
        let memory = EditMemory::new(64 * MIB, 32 * MIB);
        let mut large: Vec<MemoryShare> = (0..10).map(|_| exactly(&memory, 32 * MIB)).collect();
        for octets in (MIB..=30 * MIB).step_by(MIB as usize) {
            for share in &mut large {
                let _ = share.grow_to(octets).now_or_never();
            }
        }
        assert!(
            large
                .iter_mut()
                .any(|share| share.grow_to(31 * MIB).now_or_never().is_none())
        );
        let mut small: Vec<MemoryShare> = (0..32)
            .map(|at| {
                if at % 2 == 0 {
                    exactly(&memory, SMALL)
                } else {
                    chunked(&memory)
                }
            })
            .collect();
        for share in &mut small {
            assert!(share.grow_to(SMALL).now_or_never().is_some());
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let memory = EditMemory::new(MIB, MIB);
        let mut one = exactly(&memory, MIB);
        assert!(one.grow_to(MIB).now_or_never().is_some());
        let mut two = exactly(&memory, MIB);
        assert!(two.grow_to(MIB).now_or_never().is_none());
        let mut three = exactly(&memory, MIB);
        {
            let mut wait = std::pin::pin!(three.grow_to(MIB));
            assert!(wait.as_mut().now_or_never().is_none());
            // granted, and not taken any more
            drop((one, two));
        }
        drop(three);
        assert_eq!(free(&memory), MIB);
        assert!(memory.lock().first.is_none() && memory.lock().waiting.is_empty());
    }

    #[test]
    fn content_that_streams_on_gives_its_memory_back_as_it_leaves() {
        let memory = EditMemory::new(64 * MIB, 32 * MIB);
        let mut share = chunked(&memory);
        assert!(share.grow_to(32 * MIB).now_or_never().is_some());
        let pieces = Pieces::from_vec(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        let mut pieces = share.tied_to(pieces);
        assert_eq!(pieces.concat(), b"ab");
        let mut other = exactly(&memory, 20 * MIB);
        assert!(other.grow_to(20 * MIB).now_or_never().is_some());
        drop(other);
        pieces.remove(0);
        assert_eq!(free(&memory), 32 * MIB);
        drop(pieces);
        assert_eq!(free(&memory), 64 * MIB);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_waits_in_vain_is_refused_after_ten_seconds() {
        let memory = EditMemory::new(MIB, MIB);
        let mut one = exactly(&memory, MIB);
        one.grow_to(MIB).await.unwrap();
        let began = tokio::time::Instant::now();
        let mut two = exactly(&memory, MIB);
        assert!(matches!(
            two.grow_to(MIB).await,
            Err(DeniedError::EditMemory)
        ));
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        drop(two);
        one.complete();
        drop(one);
        assert_eq!(free(&memory), MIB);
    }

    /// Bodies of all sizes arrive piece by piece, all at the same time, in memory for few of them: each
    /// one gets its turn, whatever the sizes, and none is refused.
    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn bodies_do_not_wait_for_each_other_for_ever() {
        for (total, largest) in [(32, 32), (33, 32), (40, 32), (64, 32), (100, 32), (512, 32)] {
            let memory = EditMemory::new(total * MIB, largest * MIB);
            let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ total;
            let mut next = move |below: u64| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed % below
            };
            let mut bodies = FuturesUnordered::new();
            for at in 0..200 {
                let length = match next(3) {
                    0 => 1 + next(SMALL),
                    1 => 1 + next(largest * MIB),
                    _ => largest * MIB - next(1000),
                };
                let piece = 1 + next(600_000);
                let framing = if at % 4 == 0 {
                    Framing::Chunked
                } else {
                    Framing::Length(length)
                };
                let mut share = memory.share(framing, largest * MIB);
                bodies.push(async move {
                    let mut arrived = 0;
                    while arrived < length {
                        arrived = (arrived + piece).min(length);
                        // only who holds nothing may be refused: its turn came too late
                        share
                            .grow_to(arrived)
                            .await
                            .map_err(|_| (share.held, length))?;
                        tokio::task::yield_now().await;
                    }
                    share.complete();
                    Ok::<_, (u64, u64)>(())
                });
            }
            let began = tokio::time::Instant::now();
            while let Some(outcome) = bodies.next().await {
                assert_eq!(outcome, Ok(()), "{total} MiB");
            }
            // time stands still as long as one of them can go on
            assert_eq!(began.elapsed(), Duration::ZERO, "{total} MiB");
            assert_eq!(free(&memory), total * MIB);
        }
    }
}
