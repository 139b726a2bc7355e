//! The syncer: which meters are reported to the store when, and what its answers change.
//!
//! It has no thread, no clock and no store: its owner asks it for reports, carries them to the store, and brings
//! the answers back. A meter that changed is reported within 5 ms if a request lacks something, else within 50 ms.
//! A meter that holds something in the store is reported once a second. Others are not.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use super::share::{STALE, SharedMeter, Sharing, SharingStatus, Urgency};
use crate::state::{MeterAnswer, MeterReport, ReportOrigin, ReportedState, Unanswered};

/// Nanoseconds between two calls at least.
const FLOOR: u64 = 5 * MILLISECOND;

/// Nanoseconds within which a meter is reported that has enough of its share.
const LAZY: u64 = 50 * MILLISECOND;

/// Nanoseconds within which a meter is reported for which requests wait.
const WAITING: u64 = 20 * MILLISECOND;

/// Nanoseconds within which a meter is reported that holds something in the store.
const UPKEEP: u64 = 1000 * MILLISECOND;

/// Nanoseconds after which reports that were not answered are sent again.
const RETRY: u64 = 100 * MILLISECOND;

/// Nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds between two reports of a meter for each replica that shares it: the store's time for one that
/// many share is bounded.
const EACH: u64 = 2 * MILLISECOND;

/// Nanoseconds for which a meter that needs no report is known, in case the store has to be told again.
const RECENT: u64 = 10 * UPKEEP;

/// Reports of one call: more would hold up the others.
const MOST: usize = 1000;

/// Least reports of one call, however long the store takes.
const LEAST: usize = 8;

/// Nanoseconds after which a call took long: half of the time that its answers may take.
const SLOW: u64 = 500 * MILLISECOND;

/// Syncer of the meters that replicas share.
pub struct Syncer {
    sharing: Arc<Sharing>,
    changed: Receiver<Arc<dyn SharedMeter>>,
    origin: ReportOrigin,
    meters: HashMap<usize, SyncedMeter>,
    /// Meters by the time of their next report.
    due: BTreeSet<(u64, usize)>,
    /// Meters of the call that is under way, with their reports.
    sent: Vec<usize>,
    sent_at: u64,
    reports: Vec<MeterReport>,
    was_flushed: bool,
    /// Reports of the next call at most. A store that has more to do than it can would come to none of them in time:
    /// so calls become smaller while it takes long, and the meters take turns.
    most: usize,
    /// Meters that need no further report, with the time of the last one: the oldest first.
    recent: VecDeque<(u64, Arc<dyn SharedMeter>)>,
}

/// Meter that is reported.
struct SyncedMeter {
    meter: Arc<dyn SharedMeter>,
    due: u64,
    /// The time before which it is not reported again.
    not_before: u64,
    /// True if the report that is under way leaves something in the store.
    is_kept: bool,
}

impl Syncer {
    /// A syncer of a boot, and how its meters reach it.
    pub(super) fn new(
        boot: &str,
        replicas: u32,
        is_absent: &Arc<AtomicBool>,
    ) -> (Self, Arc<Sharing>) {
        let (sender, changed) = mpsc::channel();
        let sharing = Arc::new(Sharing::new(replicas, sender, is_absent));
        let syncer = Self {
            sharing: Arc::clone(&sharing),
            changed,
            origin: ReportOrigin {
                boot: boot.into(),
                sequence: 0,
                replicas,
            },
            meters: HashMap::new(),
            due: BTreeSet::new(),
            sent: Vec::new(),
            sent_at: 0,
            reports: Vec::new(),
            was_flushed: false,
            most: MOST,
            recent: VecDeque::new(),
        };
        (syncer, sharing)
    }

    /// The state, for metrics.
    pub fn status(&self) -> &Arc<SharingStatus> {
        &self.sharing.status
    }

    /// The origin of the reports of the call that is under way.
    pub fn origin(&self) -> &ReportOrigin {
        &self.origin
    }

    /// The reports of the call that is under way.
    pub fn reports(&self) -> &[MeterReport] {
        &self.reports
    }

    /// Waits for a meter that changes; true if one did, or a report is due.
    pub fn wait(&mut self, now: u64, longest: Duration) -> bool {
        let longest = match self.next_due() {
            Some(due) => longest.min(Duration::from_nanos(due.saturating_sub(now))),
            None => longest,
        };
        if longest.is_zero() {
            return true;
        }
        match self.changed.recv_timeout(longest) {
            Ok(meter) => {
                self.add(meter, now);
                true
            }
            // the end of Access: its owner ends
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(longest);
                false
            }
            Err(RecvTimeoutError::Timeout) => self.next_due().is_some(),
        }
    }

    /// The time of the next report; none if there is nothing to report.
    pub fn next_due(&self) -> Option<u64> {
        let first = self.due.first().map(|(due, _)| *due)?;
        Some(match self.origin.sequence {
            0 => first,
            _ => first.max(self.sent_at + FLOOR),
        })
    }

    /// Makes the reports that are due; true if there are some. Each call is followed by one of [`Self::answered`].
    pub fn collect(&mut self, now: u64) -> bool {
        self.receive(now);
        self.begin(now);
        while let Some((due, place)) = self.due.first().copied() {
            if due > now || self.sent.len() >= self.most {
                break;
            }
            self.due.pop_first();
            self.report(place, now, false);
        }
        !self.reports.is_empty()
    }

    /// Makes the last reports of the boot, of all meters: nothing runs any more.
    pub fn collect_last(&mut self, now: u64) -> bool {
        self.receive(now);
        self.begin(now);
        self.due.clear();
        let places: Vec<usize> = self.meters.keys().copied().collect();
        for place in places {
            self.report(place, now, true);
        }
        !self.reports.is_empty()
    }

    /// Takes the meters that changed. [`Self::next_due`] knows of them from then on.
    pub fn receive(&mut self, now: u64) {
        while let Ok(meter) = self.changed.try_recv() {
            self.add(meter, now);
        }
    }

    fn begin(&mut self, now: u64) {
        self.sent.clear();
        self.reports.clear();
        self.sent_at = now;
        self.origin.sequence += 1;
    }

    /// Takes a meter that changed.
    fn add(&mut self, meter: Arc<dyn SharedMeter>, now: u64) {
        let urgency = meter.link().and_then(|link| link.marked());
        let due = match urgency {
            Some(Urgency::Urgent) => now,
            _ => now + LAZY,
        };
        let place = Arc::as_ptr(&meter).addr();
        let known = self.meters.entry(place).or_insert(SyncedMeter {
            meter,
            due: u64::MAX,
            not_before: 0,
            is_kept: false,
        });
        let due = due.max(known.not_before);
        if due < known.due {
            self.due.remove(&(known.due, place));
            known.due = due;
            self.due.insert((due, place));
        }
    }

    fn report(&mut self, place: usize, now: u64, is_last: bool) {
        let Some(synced) = self.meters.get_mut(&place) else {
            return;
        };
        synced.due = u64::MAX;
        let Some(link) = synced.meter.link() else {
            return;
        };
        link.clean();
        link.sent(now);
        let name = link.name.clone();
        let (state, is_kept) = synced.meter.report(now);
        synced.is_kept = is_kept;
        self.sent.push(place);
        self.reports.push(MeterReport {
            name,
            state,
            is_last,
        });
    }

    /// Puts the answers to the reports into effect, or that there are none.
    pub fn answered(&mut self, now: u64, answers: Result<Vec<Option<MeterAnswer>>, Unanswered>) {
        self.adapt(now.saturating_sub(self.sent_at));
        let status = Arc::clone(&self.sharing.status);
        let is_answered = answers.is_ok();
        let mut answers = answers.unwrap_or_default().into_iter();
        if is_answered {
            status.syncs.fetch_add(1, Relaxed);
            status.reports.fetch_add(self.sent.len() as u64, Relaxed);
            status.answered_at.store(self.sent_at.max(1), Relaxed);
            status.unanswered_since.store(0, Relaxed);
            status.is_stale.store(false, SeqCst);
        } else {
            status.failures.fetch_add(1, Relaxed);
            let since = status.unanswered_since.load(Relaxed);
            if since == 0 {
                let since = self.sent_at.max(1);
                status.unanswered_since.store(since, Relaxed);
            } else if now.saturating_sub(since) >= STALE {
                status.is_stale.store(true, SeqCst);
            }
        }
        let sent = std::mem::take(&mut self.sent);
        let reports = std::mem::take(&mut self.reports);
        let mut are_unanswered = false;
        for (place, report) in sent.iter().zip(&reports) {
            let answer = answers.next().flatten();
            let Some(synced) = self.meters.get_mut(place) else {
                continue;
            };
            let next = match answer {
                Some(answer) => {
                    synced.not_before = self.sent_at + EACH * answer.replicas();
                    let meter = &synced.meter;
                    let is_lost = meter.apply(&report.state, &answer, self.sent_at, now);
                    self.was_flushed |= is_lost;
                    synced.next_after(report, &answer)
                }
                None => {
                    are_unanswered = true;
                    synced.meter.unanswered(&report.state, now);
                    Some(RETRY)
                }
            };
            // what was marked meanwhile is in the channel, and comes with its own time
            match next {
                Some(next) => {
                    let due = self.sent_at.max(now.saturating_sub(RETRY)) + next;
                    if due < synced.due {
                        self.due.remove(&(synced.due, *place));
                        synced.due = due;
                        self.due.insert((due, *place));
                    }
                }
                None if synced.due == u64::MAX => {
                    if let Some(synced) = self.meters.remove(place) {
                        self.recent.push_back((self.sent_at, synced.meter));
                    }
                }
                None => {}
            }
        }
        (self.sent, self.reports) = (sent, reports);
        let is_old = |at: u64| now.saturating_sub(at) > RECENT;
        while self.recent.front().is_some_and(|(at, _)| is_old(*at)) {
            self.recent.pop_front();
        }
        if are_unanswered || status.stale.load(Relaxed) + status.lost.load(Relaxed) > 0 {
            self.count(now);
        }
    }

    /// Adapts the size of calls to the time that one took.
    fn adapt(&mut self, took: u64) {
        let sent = self.sent.len();
        if took >= SLOW {
            self.most = (sent.min(self.most) / 2).max(LEAST);
        } else if sent >= self.most {
            let more = if took < SLOW / 2 { self.most } else { LEAST };
            self.most = (self.most + more).min(MOST);
        }
    }

    /// Reports again, and soon, what the store holds and the meters of the last while: it may have lost what it was
    /// told last.
    pub fn tell_again(&mut self, now: u64) {
        let recent = std::mem::take(&mut self.recent);
        let kept = self.meters.values().map(|it| Arc::clone(&it.meter));
        let again: Vec<_> = kept.chain(recent.into_iter().map(|(_, it)| it)).collect();
        for meter in again {
            self.add(meter, now);
        }
    }

    /// True once if the store was found to have lost what it knew: all that was spent is to be reported again.
    pub fn take_flush(&mut self) -> bool {
        std::mem::take(&mut self.was_flushed)
    }

    /// Counts meters without an answer.
    fn count(&self, now: u64) {
        let (mut stale, mut lost) = (0, 0);
        let links = self.meters.values().filter_map(|it| it.meter.link());
        for link in links {
            match link.waits_for(now) {
                _ if link.is_lost(now) => lost += 1,
                STALE.. => stale += 1,
                _ => {}
            }
        }
        self.sharing.status.stale.store(stale, Relaxed);
        self.sharing.status.lost.store(lost, Relaxed);
    }
}

impl SyncedMeter {
    /// Nanoseconds until the next report, if nothing changes.
    fn next_after(&self, report: &MeterReport, answer: &MeterAnswer) -> Option<u64> {
        let waits = match (&report.state, answer) {
            (ReportedState::Slots(report), MeterAnswer::Slots(answer)) => {
                let needed = report.claim + report.needs;
                answer.claim < needed
            }
            _ => false,
        };
        match (waits, self.is_kept) {
            _ if self.meter.gives() => Some(FLOOR),
            (true, _) => Some(WAITING),
            (false, true) => Some(UPKEEP),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::share::Link,
        state::{SlotAnswer, SlotReport},
    };

    /// A meter, and whether it holds something in the store.
    struct Told(Link, AtomicBool);

    impl SharedMeter for Told {
        fn link(&self) -> Option<&Link> {
            Some(&self.0)
        }

        fn report(&self, _: u64) -> (ReportedState, bool) {
            let is_kept = self.1.load(SeqCst);
            (ReportedState::Slots(SlotReport::default()), is_kept)
        }

        fn apply(&self, _: &ReportedState, _: &MeterAnswer, _: u64, _: u64) -> bool {
            false
        }

        fn unanswered(&self, _: &ReportedState, _: u64) {}
    }

    #[test]
    fn a_store_that_may_have_lost_the_last_reports_gets_them_again() {
        let (mut syncer, sharing) = Syncer::new("boot", 1, &Arc::default());
        let link = sharing.link("org", "s".to_owned());
        let meter = Arc::new(Told(link, AtomicBool::new(false)));
        let shared = || Arc::<Told>::clone(&meter) as Arc<dyn SharedMeter>;
        meter.0.mark(Urgency::Urgent, shared);
        let reports = |syncer: &mut Syncer, now: u64| {
            let count = usize::from(syncer.collect(now)) * syncer.reports().len();
            let answers = vec![Some(MeterAnswer::Slots(SlotAnswer::default())); count];
            syncer.answered(now, Ok(answers));
            count
        };
        assert_eq!(reports(&mut syncer, SECOND), 1);
        assert_eq!(syncer.next_due(), None);
        syncer.tell_again(2 * SECOND);
        assert_eq!(reports(&mut syncer, 2 * SECOND + LAZY), 1);
        // once, and not after a long time
        assert_eq!(reports(&mut syncer, 3 * SECOND), 0);
        assert_eq!(reports(&mut syncer, 30 * SECOND), 0);
        syncer.tell_again(30 * SECOND);
        assert_eq!(syncer.next_due(), None);
        // what it holds is not left to the upkeep
        meter.1.store(true, SeqCst);
        meter.0.mark(Urgency::Urgent, shared);
        assert_eq!(reports(&mut syncer, 40 * SECOND), 1);
        assert_eq!(syncer.next_due(), Some(40 * SECOND + UPKEEP));
        syncer.tell_again(40 * SECOND);
        assert_eq!(syncer.next_due(), Some(40 * SECOND + LAZY));
    }

    #[test]
    fn calls_become_smaller_while_the_store_takes_long_and_meters_take_turns() {
        const METERS: usize = 100;
        let (mut syncer, sharing) = Syncer::new("boot", 1, &Arc::default());
        let meters: Vec<_> = (0..METERS)
            .map(|number| {
                let link = sharing.link(&format!("key:{number}"), "s".to_owned());
                Arc::new(Told(link, AtomicBool::new(true)))
            })
            .collect();
        for meter in &meters {
            let shared = || Arc::<Told>::clone(meter) as Arc<dyn SharedMeter>;
            meter.0.mark(Urgency::Urgent, shared);
        }
        let mut now = SECOND;
        // the reports of a call, whose answers take a while
        let mut call = |took: u64, is_answered: bool| -> Vec<Box<str>> {
            // all are due, those first that were told long ago
            now += 2 * SECOND;
            assert!(syncer.collect(now));
            let reports = syncer.reports().iter();
            let told: Vec<_> = reports.map(|it| it.name.subject.clone()).collect();
            let answers = vec![Some(MeterAnswer::Slots(SlotAnswer::default())); told.len()];
            let lost = Unanswered("too late".to_owned());
            now += took;
            syncer.answered(now, if is_answered { Ok(answers) } else { Err(lost) });
            told
        };
        assert_eq!(call(SECOND, false).len(), METERS);
        for count in [50, 25, 12, 8] {
            assert_eq!(call(SLOW, true).len(), count);
        }
        assert_eq!(call(SLOW, false).len(), LEAST);
        // each has its turn
        let told: BTreeSet<_> = (0..=METERS / LEAST)
            .flat_map(|_| call(SLOW, true))
            .collect();
        assert_eq!(told.len(), METERS);
        // a store that is quick again has all of them soon
        let counts: Vec<_> = (0..5).map(|_| call(SLOW / 4, true).len()).collect();
        assert_eq!(counts, [8, 16, 32, 64, METERS]);
    }

    const SECOND: u64 = 1000 * MILLISECOND;
}
