//! The channel of events: one text for every client that listens.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, broadcast};

/// Listeners at a time.
const LISTENERS: usize = 64;
/// Texts that wait for a listener.
const WAITING: usize = 8;

/// The channel to all listening clients.
pub(super) struct EventChannel {
    pub(super) sender: broadcast::Sender<Bytes>,
    pub(super) seats: Arc<Semaphore>,
}

impl EventChannel {
    pub(super) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(WAITING),
            seats: Arc::new(Semaphore::new(LISTENERS)),
        }
    }
}
