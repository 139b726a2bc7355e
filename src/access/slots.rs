//! Slots for exchanges at once, with a bounded queue that is fair over sessions.
//!
//! While a slot is free, taking and giving back are one atomic operation each. A lock is taken only while the
//! limit is reached. A waiter is a future, and the queue hands slots over in turns of sessions: the next
//! session's first waiter, not the next waiter, so that one session cannot starve the others.
//!
//! No wake-up is lost: who queues counts itself first and looks for a free slot then, who gives back frees
//! the slot first and looks for waiters then, all in one total order.
//!
//! Where replicas share the slots ([`SlotShare`]), the store gives this one some of them, to take and give back as
//! it likes. A replica that has more than its fair part gives back, while others lack slots.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;

use super::share::{Link, SharedMeter, Urgency};
use crate::state::{LEASE, MeterAnswer, ReportedState, SlotAnswer, SlotReport};

/// Slots of one limit.
#[derive(Debug)]
pub(super) struct Slots {
    limit: AtomicU64,
    /// [`Places`] in one number, so that both change together.
    places: AtomicU64,
    waiting: AtomicU64,
    queue: Mutex<Queue>,
    shared: Option<Box<SlotShare>>,
}

/// Slots of a process: those that may run, and those that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    most: u32,
    running: u32,
}

impl Places {
    const fn of(packed: u64) -> Self {
        Self {
            most: (packed >> 32) as u32,
            running: packed as u32,
        }
    }

    const fn packed(self) -> u64 {
        (self.most as u64) << 32 | self.running as u64
    }

    fn taken(self) -> Option<Self> {
        let running = self.running + 1;
        (self.running < self.most).then_some(Self { running, ..self })
    }
}

/// Part of this replica in slots.
#[derive(Debug)]
pub(super) struct SlotShare {
    pub(super) link: Link,
    /// Slots beyond which this replica gives back what becomes free.
    fair: AtomicU32,
    /// True if a request has come since the last report.
    is_used: AtomicBool,
    // what only the thread that reports reads and writes
    used_at: AtomicU64,
    is_wanted: AtomicBool,
}

/// Nanoseconds after the last request in which a replica gives back its slots.
const IDLE: u64 = 10_000_000_000;

/// Nanoseconds after an answer in which the store still holds what it gave.
const HELD: u64 = (LEASE - 1000) * 1_000_000;

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
    /// Slots; with a link, those of a limit that replicas share.
    pub(super) fn new(limit: u64, link: Option<Link>) -> Arc<Self> {
        let most = match link {
            None => narrow(limit),
            Some(_) => 0,
        };
        let shared = link.map(|link| {
            Box::new(SlotShare {
                link,
                fair: AtomicU32::new(u32::MAX),
                is_used: AtomicBool::new(false),
                used_at: AtomicU64::new(0),
                is_wanted: AtomicBool::new(false),
            })
        });
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            places: AtomicU64::new(Places { most, running: 0 }.packed()),
            waiting: AtomicU64::new(0),
            queue: Mutex::default(),
            shared,
        })
    }

    /// The part of this replica, if replicas share the slots.
    pub(super) fn share(&self) -> Option<&SlotShare> {
        self.shared.as_deref()
    }

    /// Changes the limit. Exchanges that run go on; waiters get what a higher one frees.
    pub(super) fn limit_to(&self, limit: u64) {
        let before = self.limit.swap(limit, SeqCst);
        let narrow = narrow(limit);
        self.change(|places| match &self.shared {
            None => Places {
                most: narrow,
                ..places
            },
            // without a limit, nothing waits; one that comes back is the store's to give
            Some(_) if limit == u64::MAX => Places {
                most: u32::MAX,
                ..places
            },
            Some(_) if before == u64::MAX => Places {
                most: places.running.min(narrow),
                ..places
            },
            Some(_) => Places {
                most: places.most.min(narrow),
                ..places
            },
        });
        self.hand_over();
    }

    /// A slot, if one is free and nothing waits for it.
    pub(super) fn take(self: &Arc<Self>) -> Option<SlotPermit> {
        let is_taken = self.waiting.load(SeqCst) == 0 && self.try_take();
        let is_taken = match &self.shared {
            None => is_taken,
            Some(share) => self.taken_of(share, is_taken),
        };
        is_taken.then(|| SlotPermit(Arc::clone(self)))
    }

    /// Notes a request for a slot of a shared limit. While the store does not answer, a replica that has none has
    /// its part.
    fn taken_of(self: &Arc<Self>, share: &SlotShare, is_taken: bool) -> bool {
        if !share.is_used.load(Relaxed) {
            share.is_used.store(true, Relaxed);
        }
        let places = self.places();
        let mut is_taken = is_taken;
        if !is_taken && places.most == 0 && share.link.sharing.is_stale() {
            self.have_part(share);
            is_taken = self.try_take();
        }
        // one is kept free for the next request, and what an idle replica gave back is asked for anew
        let is_needed = !is_taken || places.most == places.running;
        if is_needed || share.link.age(0).is_none() {
            self.note(share);
        }
        is_taken
    }

    fn note(self: &Arc<Self>, share: &SlotShare) {
        let meter = || Arc::<Self>::clone(self) as Arc<dyn SharedMeter>;
        share.link.mark(Urgency::Urgent, meter);
    }

    /// Has its part of the limit, without the store: at least one, so that traffic goes on.
    fn have_part(&self, share: &SlotShare) {
        let limit = self.limit.load(SeqCst);
        let least = u64::from(limit > 0);
        let part = narrow((limit / share.link.sharing.replicas).max(least));
        self.change(|places| Places {
            most: part,
            ..places
        });
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
        if let Some(share) = &self.shared {
            self.note(share);
        }
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
        u64::from(self.places().running)
    }

    /// Exchanges that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Acquire)
    }

    fn places(&self) -> Places {
        Places::of(self.places.load(Acquire))
    }

    fn change(&self, change: impl Fn(Places) -> Places) {
        let changed = |packed| Some(change(Places::of(packed)).packed());
        let _ = self.places.fetch_update(SeqCst, SeqCst, changed);
    }

    fn try_take(&self) -> bool {
        self.places
            .fetch_update(SeqCst, SeqCst, |packed| {
                Places::of(packed).taken().map(Places::packed)
            })
            .is_ok()
    }

    /// Ends one that runs; its slot stays here.
    fn end(&self) {
        self.places.fetch_sub(1, SeqCst);
    }

    fn give_back(self: &Arc<Self>) {
        match &self.shared {
            None => self.end(),
            Some(share) => {
                let fair = share.fair.load(Relaxed);
                let before = self.places();
                self.change(|places| Places {
                    most: places.most - u32::from(places.most > fair),
                    running: places.running - 1,
                });
                if before.most > fair {
                    self.note(share);
                }
            }
        }
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
                self.end();
                break;
            };
            self.waiting.fetch_sub(1, SeqCst);
            place.has_slot.store(true, Release);
            served.push(place);
        }
        served
    }

    /// The report to the store, and whether a further one is due in a while.
    fn report_share(&self, share: &SlotShare, now: u64) -> (SlotReport, bool) {
        let waiting = self.waiting.load(SeqCst);
        if share.is_used.swap(false, SeqCst) || waiting > 0 {
            share.used_at.store(now, Relaxed);
        }
        let limit = self.limit.load(SeqCst);
        let is_idle = now.saturating_sub(share.used_at.load(Relaxed)) > IDLE;
        let is_wanted = share.is_wanted.load(Relaxed);
        // a lease that lapsed is not claimed, except for what runs: it may be another replica's by now
        let is_held = share.link.age(now).is_some_and(|age| age < HELD);
        if is_held && (is_idle || is_wanted) {
            self.change(|places| Places {
                most: places.most.min(places.running),
                ..places
            });
        }
        let places = self.places();
        let claim = match is_held {
            true => places.most.max(places.running),
            false => places.running,
        };
        let needs = u64::from(places.running) + waiting;
        let needs = needs.saturating_sub(u64::from(claim));
        let even = limit / share.link.replicas().max(1);
        let wishes = match is_idle || is_wanted {
            true => needs,
            false => {
                let used = u64::from(places.running) + waiting + 1;
                used.max(even).saturating_sub(u64::from(claim)).max(needs)
            }
        };
        let report = SlotReport {
            claim: u64::from(claim),
            needs,
            wishes,
            limit,
            is_known: share.link.age(now).is_some(),
        };
        (
            report,
            places.running > 0 || waiting > 0 || claim > 0 || !is_idle,
        )
    }

    /// Puts an answer to a report into effect, and gives waiters what there is.
    fn apply_share(
        &self,
        share: &SlotShare,
        report: &SlotReport,
        answer: &SlotAnswer,
        is_held: bool,
    ) {
        // a limit that was lowered is reached as exchanges end
        let is_above = answer.others.saturating_add(answer.claim) > report.limit;
        let is_wanted = answer.is_wanted || is_above;
        share.is_wanted.store(is_wanted, Relaxed);
        let fair = match (is_above, is_wanted) {
            // what others run counts first: a slot that becomes free is not taken again
            (true, _) => narrow(answer.fair.min(report.limit.saturating_sub(answer.others))),
            (false, true) => narrow(answer.fair),
            (false, false) => u32::MAX,
        };
        share.fair.store(fair, Relaxed);
        let more = narrow(answer.claim.saturating_sub(report.claim));
        let limit = self.limit.load(SeqCst);
        self.change(|places| match (limit, is_held) {
            (u64::MAX, _) => places,
            (_, true) => Places {
                most: places.most.saturating_add(more),
                ..places
            },
            (_, false) => Places {
                most: narrow(answer.claim),
                ..places
            },
        });
        self.hand_over();
    }

    /// The store has not answered for a while. What it gave lapses after its lease: from then on this replica has
    /// at most its part of the limit, and exactly its part once the store is lost.
    fn do_without(&self, share: &SlotShare, now: u64) {
        let limit = self.limit.load(SeqCst);
        if limit == u64::MAX {
            return;
        }
        let age = share.link.age(now);
        let is_lapsed = age.is_none_or(|age| age >= HELD);
        // one that gave all back has its part for those that wait, as for those that come now
        let has_nothing = age.is_none() || (self.places().most == 0 && self.waiting() > 0);
        if share.link.is_lost(now) || (has_nothing && share.link.sharing.is_stale()) {
            self.have_part(share);
        } else if is_lapsed {
            let part = narrow((limit / share.link.sharing.replicas).max(1));
            self.change(|places| Places {
                most: places.most.min(part),
                ..places
            });
        }
        share.fair.store(u32::MAX, Relaxed);
        self.hand_over();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedMeter for Slots {
    fn link(&self) -> Option<&Link> {
        self.share().map(|share| &share.link)
    }

    fn report(&self, now: u64) -> (ReportedState, bool) {
        let report = self.share().map(|share| self.report_share(share, now));
        let (report, is_kept) = report.unwrap_or_default();
        (ReportedState::Slots(report), is_kept)
    }

    fn apply(&self, report: &ReportedState, answer: &MeterAnswer, sent: u64, _now: u64) -> bool {
        let (Some(share), ReportedState::Slots(report), MeterAnswer::Slots(answer)) =
            (self.share(), report, answer)
        else {
            return false;
        };
        // what it had taken without the store is the store's to give, as the report said
        let is_held = share.link.age(sent).is_some_and(|age| age < HELD);
        share.link.answered(sent, answer.replicas);
        self.apply_share(share, report, answer, is_held);
        answer.is_new && report.is_known
    }

    fn unanswered(&self, _report: &ReportedState, now: u64) {
        if let Some(share) = self.share() {
            self.do_without(share, now);
        }
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

/// A number of slots: four billion are as good as any number.
fn narrow(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
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
        let slots = Slots::new(1, None);
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
        let slots = Slots::new(4, None);
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
        let slots = Slots::new(1, None);
        let first = slots.take().unwrap();
        let (gone, mut next) = (slots.wait(1).unwrap(), slots.wait(2).unwrap());
        drop(first);
        drop(gone);
        assert!(poll(&mut next).is_some());
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
    }

    #[test]
    fn a_higher_limit_serves_waiters_and_a_lower_one_stops_new_ones_alone() {
        let slots = Slots::new(1, None);
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
        let slots = Slots::new(LIMIT as u64, None);
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
            let slots = Slots::new(2, None);
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
