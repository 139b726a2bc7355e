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
