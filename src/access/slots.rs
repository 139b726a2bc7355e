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

use smallvec::SmallVec;

mod places;
mod queue;

use self::{
    places::{Places, narrow},
    queue::{Place, Queue},
};
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
        // one that asks for the first time finds its part, too
        let replicas = share.link.replicas().max(share.link.sharing.replicas);
        let even = limit / replicas.max(1);
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

    fn gives(&self) -> bool {
        let places = self.places();
        let is_wanted = |share: &SlotShare| share.is_wanted.load(Relaxed);
        places.most > places.running && self.share().is_some_and(is_wanted)
    }

    fn unanswered(&self, _report: &ReportedState, now: u64) {
        if let Some(share) = self.share() {
            self.do_without(share, now);
        }
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
mod tests;
