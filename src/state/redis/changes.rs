//! The subscription to changes of other replicas: a thread that waits for them, on a connection of its own.
//!
//! A message that is lost is no loss: the version is read every second, too.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::{connection::RedisConnection, settings::RedisSettings};

/// Longest wait before the thread looks whether it is to end.
const WAIT: Duration = Duration::from_millis(250);

/// The subscription, until it is dropped.
pub struct RedisChanges {
    is_ended: Arc<AtomicBool>,
}

impl RedisChanges {
    /// Starts the thread; `changed` is called after each change.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(
        settings: &Arc<RedisSettings>,
        changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let is_ended = Arc::<AtomicBool>::default();
        let (settings, ended) = (Arc::clone(settings), Arc::clone(&is_ended));
        let thread = thread::Builder::new().name("changes".to_owned());
        // it ends by itself within a moment, and holds nothing that others wait for
        thread.spawn(move || {
            let mut connection = RedisConnection::new(&settings);
            while !ended.load(SeqCst) {
                // the thread of the store reports what is wrong
                let _ = subscribe(&mut connection, &settings, &ended, &changed);
                thread::sleep(WAIT);
            }
        })?;
        Ok(Self { is_ended })
    }
}

impl Drop for RedisChanges {
    fn drop(&mut self) {
        self.is_ended.store(true, SeqCst);
    }
}

/// Follows the channel until the connection or the process ends.
fn subscribe(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
    ended: &AtomicBool,
    changed: &impl Fn(),
) -> Option<()> {
    let mut opened = connection.open().ok()?;
    let mut channel = opened.as_pubsub();
    channel.subscribe(settings.channel()).ok()?;
    channel.set_read_timeout(Some(WAIT)).ok()?;
    // what was told before the subscription
    changed();
    while !ended.load(SeqCst) {
        match channel.get_message() {
            Ok(_) => changed(),
            Err(error) if error.is_timeout() => {}
            Err(_) => return None,
        }
    }
    Some(())
}
