//! Slots for exchanges at once, with a bounded queue that is fair over sessions.
//!
//! While a slot is free, taking and giving back are one atomic operation each. A lock is taken only while the
//! limit is reached. A waiter is a future, and the queue hands slots over in turns of sessions: the next
//! session's first waiter, not the next waiter, so that one session cannot starve the others.
//!
//! No wake-up is lost: who queues counts itself first and looks for a free slot then, who gives back frees
//! the slot first and looks for waiters then, all in one total order.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;

/// Slots of one limit.
#[derive(Debug)]
pub(super) struct Slots {
    limit: AtomicU64,
    running: AtomicU64,
    waiting: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    sessions: HashMap<u64, VecDeque<Arc<Place>>>,
    /// Sessions with a waiter, in the order of their turns.
    turns: VecDeque<u64>,
}

/// Place of a waiter in the queue.
#[derive(Debug, Default)]
struct Place {
    session: u64,
    has_slot: AtomicBool,
    waker: AtomicWaker,
}

impl Slots {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            queue: Mutex::default(),
        })
    }

    /// Changes the limit. Exchanges that run go on; waiters get what a higher one frees.
    pub(super) fn limit_to(&self, limit: u64) {
        self.limit.store(limit, SeqCst);
        self.hand_over();
    }

    /// A slot, if one is free and nothing waits for it.
    pub(super) fn take(self: &Arc<Self>) -> Option<SlotPermit> {
        let is_taken = self.waiting.load(SeqCst) == 0 && self.try_take();
        is_taken.then(|| SlotPermit(Arc::clone(self)))
    }

    /// A place in the queue; none if it is full.
    pub(super) fn wait(self: &Arc<Self>, session: u64) -> Option<SlotWaiter> {
        let mut queue = self.lock();
        let longest = self.limit.load(SeqCst).saturating_mul(WAITERS_PER_SLOT);
        if self.waiting.load(SeqCst) >= longest {
            return None;
        }
        let place = Arc::new(Place {
            session,
            ..Place::default()
        });
        queue.push(Arc::clone(&place));
        self.waiting.fetch_add(1, SeqCst);
        // one may have become free before it was counted
        let served = self.serve(&mut queue);
        drop(queue);
        served.iter().for_each(|place| place.waker.wake());
        Some(SlotWaiter {
            slots: Arc::clone(self),
            place,
            is_done: false,
        })
    }

    /// Exchanges that run.
    pub(super) fn running(&self) -> u64 {
        self.running.load(Acquire)
    }

    /// Exchanges that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Acquire)
    }

    fn try_take(&self) -> bool {
        let limit = self.limit.load(SeqCst);
        self.running
            .fetch_update(SeqCst, SeqCst, |running| {
                (running < limit).then_some(running + 1)
            })
            .is_ok()
    }

    fn give_back(&self) {
        self.running.fetch_sub(1, SeqCst);
        self.hand_over();
    }

    fn hand_over(&self) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let served = self.serve(&mut self.lock());
        served.iter().for_each(|place| place.waker.wake());
    }

    /// Gives free slots to waiters, who are woken once the lock is released.
    fn serve(&self, queue: &mut Queue) -> SmallVec<[Arc<Place>; 2]> {
        let mut served = SmallVec::new();
        while !queue.turns.is_empty() && self.try_take() {
            let Some(place) = queue.pop() else {
                self.running.fetch_sub(1, SeqCst);
                break;
            };
            self.waiting.fetch_sub(1, SeqCst);
            place.has_slot.store(true, Release);
            served.push(place);
        }
        served
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, place: Arc<Place>) {
        let waiters = self.sessions.entry(place.session).or_default();
        if waiters.is_empty() {
            self.turns.push_back(place.session);
        }
        waiters.push_back(place);
    }

    fn pop(&mut self) -> Option<Arc<Place>> {
        let session = self.turns.pop_front()?;
        let waiters = self.sessions.get_mut(&session)?;
        let place = waiters.pop_front();
        if waiters.is_empty() {
            self.sessions.remove(&session);
        } else {
            self.turns.push_back(session);
        }
        place
    }

    /// Removes a waiter; false if it is not here.
    fn remove(&mut self, place: &Arc<Place>) -> bool {
        let Some(waiters) = self.sessions.get_mut(&place.session) else {
            return false;
        };
        let Some(at) = waiters.iter().position(|other| Arc::ptr_eq(other, place)) else {
            return false;
        };
        waiters.remove(at);
        if waiters.is_empty() {
            self.sessions.remove(&place.session);
            self.turns.retain(|session| *session != place.session);
        }
        true
    }
}

/// A slot; its drop gives it back.
#[derive(Debug)]
pub(super) struct SlotPermit(Arc<Slots>);

impl SlotPermit {
    /// Reports whether it is a slot of these.
    pub(super) fn is_of(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.0, slots)
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A wait for a slot; its drop leaves the queue.
#[derive(Debug)]
pub(super) struct SlotWaiter {
    slots: Arc<Slots>,
    place: Arc<Place>,
    is_done: bool,
}

impl Future for SlotWaiter {
    type Output = SlotPermit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SlotPermit> {
        self.place.waker.register(cx.waker());
        if self.is_done || !self.place.has_slot.load(Acquire) {
            return Poll::Pending;
        }
        self.is_done = true;
        Poll::Ready(SlotPermit(Arc::clone(&self.slots)))
    }
}

impl Drop for SlotWaiter {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut queue = self.slots.lock();
        let was_waiting = queue.remove(&self.place);
        if was_waiting {
            self.slots.waiting.fetch_sub(1, SeqCst);
        }
        drop(queue);
        if !was_waiting {
            // it had a slot, and did not look yet
            self.slots.give_back();
        }
    }
}

/// Waiters for each slot: what is beyond would hardly get its turn in time.
const WAITERS_PER_SLOT: u64 = 2;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
        time::Duration,
    };

    use futures_util::{FutureExt, task::noop_waker_ref};
    use proptest::prelude::*;

    use super::*;

    fn poll(waiter: &mut SlotWaiter) -> Option<SlotPermit> {
        match waiter.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn slots_are_taken_given_back_and_waited_for() {
        let slots = Slots::new(1);
        let first = slots.take().unwrap();
        assert!(slots.take().is_none());
        let mut waiter = slots.wait(1).unwrap();
        let other = slots.wait(1).unwrap();
        assert!(slots.wait(2).is_none(), "twice the slots wait");
        assert!(poll(&mut waiter).is_none());
        drop(first);
        // it is the waiter's already
        assert!(slots.take().is_none());
        assert_eq!((slots.running(), slots.waiting()), (1, 1));
        let permit = poll(&mut waiter).unwrap();
        drop(other);
        assert_eq!((slots.running(), slots.waiting()), (1, 0));
        drop(permit);
        assert_eq!(slots.running(), 0);
    }

    #[test]
    fn sessions_have_their_turns() {
        let slots = Slots::new(4);
        let mut running: Vec<_> = (0..4).map(|_| slots.take().unwrap()).collect();
        let sessions = [1, 1, 1, 1, 1, 2, 3, 2];
        let mut waiters: Vec<_> = sessions
            .iter()
            .map(|session| (*session, slots.wait(*session).unwrap()))
            .collect();
        let mut order = Vec::new();
        for _ in 0..sessions.len() {
            running.remove(0);
            let at = waiters
                .iter_mut()
                .position(|(_, waiter)| poll(waiter).map(|it| running.push(it)).is_some());
            order.push(waiters.remove(at.unwrap()).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn a_slot_that_was_handed_over_and_not_looked_at_comes_back() {
        let slots = Slots::new(1);
        let first = slots.take().unwrap();
        let (gone, mut next) = (slots.wait(1).unwrap(), slots.wait(2).unwrap());
        drop(first);
        drop(gone);
        assert!(poll(&mut next).is_some());
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
    }

    #[test]
    fn a_higher_limit_serves_waiters_and_a_lower_one_stops_new_ones_alone() {
        let slots = Slots::new(1);
        let first = slots.take().unwrap();
        let mut waiter = slots.wait(1).unwrap();
        slots.limit_to(3);
        let second = poll(&mut waiter).unwrap();
        slots.limit_to(1);
        assert_eq!(slots.running(), 2);
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_none());
        drop(second);
        assert!(slots.take().is_some());
    }

    /// Waiters on threads of their own: each gets its slot or leaves, and no slot is lost.
    #[test]
    fn threads_that_race_never_exceed_the_limit_and_lose_no_wake_up() {
        const LIMIT: usize = 3;
        let slots = Slots::new(LIMIT as u64);
        let (running, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let enter = |permit: SlotPermit| {
            assert!(running.fetch_add(1, SeqCst) < LIMIT);
            served.fetch_add(1, Relaxed);
            thread::yield_now();
            running.fetch_sub(1, SeqCst);
            drop(permit);
        };
        thread::scope(|scope| {
            for session in 0..8 {
                let (slots, enter) = (&slots, &enter);
                scope.spawn(move || {
                    for round in 0..2000 {
                        match slots.take() {
                            Some(permit) => enter(permit),
                            None => match slots.wait(session) {
                                Some(waiter) if round % 5 == 0 => drop(waiter),
                                // waits for as long as it takes: a lost wake-up would hang the test
                                Some(waiter) => enter(block_on(waiter)),
                                None => thread::yield_now(),
                            },
                        }
                    }
                });
            }
        });
        assert!(served.into_inner() > 2000);
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
        assert!(slots.lock().sessions.is_empty() && slots.lock().turns.is_empty());
    }

    fn block_on(waiter: SlotWaiter) -> SlotPermit {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(async {
            let patience = tokio::time::timeout(Duration::from_secs(120), waiter);
            patience.await.expect("a lost wake-up")
        })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Wait(u64),
        Drop(usize),
        Leave(usize),
        Limit(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Take),
            3 => (0_u64..4).prop_map(Step::Wait),
            3 => any::<usize>().prop_map(Step::Drop),
            1 => any::<usize>().prop_map(Step::Leave),
            1 => (1_u64..5).prop_map(Step::Limit),
        ]
    }

    proptest! {
        #[test]
        fn slots_agree_with_a_count(steps in prop::collection::vec(step(), 1..200)) {
            let slots = Slots::new(2);
            let (mut limit, mut permits, mut waiters) = (2, Vec::new(), Vec::new());
            for step in steps {
                let before = permits.len();
                let is_free = permits.len() < limit && waiters.is_empty();
                match step {
                    Step::Take => {
                        let permit = slots.take();
                        prop_assert_eq!(permit.is_some(), is_free);
                        permits.extend(permit);
                    }
                    Step::Wait(session) => {
                        let waiter = slots.wait(session);
                        prop_assert_eq!(waiter.is_some(), waiters.len() < 2 * limit);
                        waiters.extend(waiter);
                    }
                    Step::Drop(at) if !permits.is_empty() => {
                        permits.swap_remove(at % permits.len());
                    }
                    Step::Leave(at) if !waiters.is_empty() => {
                        waiters.swap_remove(at % waiters.len());
                    }
                    Step::Drop(_) | Step::Leave(_) => {}
                    Step::Limit(to) => {
                        limit = to as usize;
                        slots.limit_to(to);
                    }
                }
                waiters.retain_mut(|waiter| match poll(waiter) {
                    Some(permit) => {
                        permits.push(permit);
                        false
                    }
                    None => true,
                });
                prop_assert!(permits.len() <= limit.max(before));
                prop_assert!(permits.len() >= limit || waiters.is_empty(), "a slot is free");
                prop_assert_eq!(slots.running() as usize, permits.len());
                prop_assert_eq!(slots.waiting() as usize, waiters.len());
            }
        }
    }
}
