//! Request content that is kept until the response head, in case the request is sent again.
//!
//! References to read buffers, not copies: the cost is that the buffers stay. One request is
//! bounded by `MAX_REPLAY_BODY`, all of them by `REPLAY_MEMORY`; a larger request is not kept, and
//! then has one upstream only. No request waits for memory here.

use std::sync::Arc;

use bytes::Bytes;

use super::{first_event, pieces::Pieces};
use crate::{
    config::Statuses,
    memory::{Budget, BudgetShare},
    wire::head::ResponseHead,
};

/// The content of one request, as long as it is kept.
#[derive(Debug)]
pub struct ReplayBuffer {
    content: Option<Pieces>,
    octets: usize,
    limit: usize,
    memory: BudgetShare<Arc<Budget>>,
    statuses: Statuses,
}

/// First amount of memory taken, so that a stream of small reads asks seldom; each further step
/// doubles it. A client that declares much and sends little takes no more.
const STEP: usize = 4 * 1024;

impl ReplayBuffer {
    /// Keeps up to `limit` bytes, if `memory` has room for them, until an answer comes; longer if it has one
    /// of `statuses`.
    pub fn new(statuses: &Statuses, limit: u64, memory: &Arc<Budget>) -> Self {
        Self {
            content: Some(Pieces::new()),
            octets: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            memory: BudgetShare::of(Arc::clone(memory)),
            statuses: statuses.clone(),
        }
    }

    /// Tells if a status is a reason to send the request again.
    pub(super) fn is_wanted_for(&self, status: u16) -> bool {
        self.statuses.contains(status)
    }

    /// Tells if an answer is one if its first event is an `overloaded_error`.
    pub(super) fn may_be_wanted_for(&self, answer: &ResponseHead) -> bool {
        self.statuses.contains(first_event::OVERLOADED) && first_event::is_event_stream(answer)
    }

    /// Keeps content that is about to leave.
    pub(super) fn push(&mut self, content: &Bytes) {
        let Some(kept) = &mut self.content else {
            return;
        };
        let octets = self.octets + content.len();
        // a body in small pieces takes more for the references than for the content
        let size = octets + (kept.len() + 1) * size_of::<Bytes>();
        if octets > self.limit || !grow(&mut self.memory, size.max(STEP.min(self.limit))) {
            self.content = None;
            self.memory.clear();
            return;
        }
        kept.push(content.clone());
        self.octets = octets;
    }

    /// Returns all kept content; content that is pushed next is a new beginning.
    pub(super) fn take(&mut self) -> Option<Pieces> {
        self.octets = 0;
        self.content.replace(Pieces::new())
    }
}

/// Grows a share to this many bytes; false if there is no room. Each further step doubles it, so that a large
/// body asks a few times, unless that is too much.
fn grow(memory: &mut BudgetShare<Arc<Budget>>, octets: usize) -> bool {
    let held = memory.octets();
    octets <= held || memory.grow_to(octets.max(2 * held)) || memory.grow_to(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(content: Option<Pieces>) -> Option<Vec<u8>> {
        content.map(|pieces| pieces.concat())
    }

    #[test]
    fn what_fits_is_given_back_and_more_is_not_kept() {
        let memory = Arc::new(Budget::new(1 << 20));
        let mut keep = ReplayBuffer::new(&Statuses::default(), 8, &memory);
        keep.push(&Bytes::from_static(b"four"));
        keep.push(&Bytes::from_static(b"more"));
        assert_eq!(joined(keep.take()).unwrap(), b"fourmore");
        // the next upstream gets the same, and it is kept again
        keep.push(&Bytes::from_static(b"fourmore"));
        keep.push(&Bytes::from_static(b"!"));
        assert_eq!(keep.take(), None);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn all_requests_share_one_memory() {
        let memory = Arc::new(Budget::new(100 << 10));
        let content = Bytes::from(vec![0; 60 * 1024]);
        let new = || ReplayBuffer::new(&Statuses::default(), 1 << 20, &memory);
        let (mut first, mut second) = (new(), new());
        first.push(&content);
        second.push(&content);
        assert_eq!(second.take(), None);
        assert_eq!(first.take().unwrap().len(), 1);
        drop((first, second));
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn what_fits_is_kept_even_if_twice_as_much_would_not() {
        let memory = Arc::new(Budget::new(64 << 10));
        let mut keep = ReplayBuffer::new(&Statuses::default(), 1 << 20, &memory);
        keep.push(&Bytes::from(vec![0; 40 * 1024]));
        keep.push(&Bytes::from(vec![0; 20 * 1024]));
        assert_eq!(keep.take().unwrap().len(), 2);
    }

    #[test]
    fn what_was_given_up_is_asked_for_again() {
        let memory = Arc::new(Budget::new(1 << 20));
        let mut keep = ReplayBuffer::new(&Statuses::default(), 100, &memory);
        keep.push(&Bytes::from_static(&[0; 90]));
        keep.push(&Bytes::from_static(&[0; 90]));
        assert_eq!(memory.taken(), 0);
        assert_eq!(keep.take(), None);
        keep.push(&Bytes::from_static(&[0; 90]));
        assert_eq!(memory.taken(), 90 + size_of::<Bytes>());
    }

    #[test]
    fn small_pieces_cost_what_they_take() {
        let memory = Arc::new(Budget::new(1 << 20));
        let mut keep = ReplayBuffer::new(&Statuses::default(), 1 << 20, &memory);
        for _ in 0..10_000 {
            keep.push(&Bytes::from_static(b"."));
        }
        let taken = memory.taken();
        assert!(taken >= 10_000 * size_of::<Bytes>(), "{taken}");
    }
}
