//! The access log: a line of JSON for each exchange, written by a thread of its own.
//!
//! The caller never waits: lines that the disk or the reader of stdout does not take in time are
//! dropped and counted. At most 16 MiB of lines wait, and as many again are being written.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use crate::{config::AccessLogSettings, exchange::Exchange};

mod line;
mod lines;
mod output;

use self::{
    lines::{fitting, lines},
    output::Output,
};

/// Upper bound of bytes that wait to be written: about 30,000 lines of 500 bytes.
const MOST_WAITING: usize = 16 << 20;
/// Interval between writes, so that many lines go out in one.
const BATCH: Duration = Duration::from_millis(20);
/// Longest wait for the disk at the end of the process.
const PATIENCE: Duration = Duration::from_secs(1);

/// The access log of the process. Dropping it writes the lines that wait, within a second.
pub struct AccessLog {
    shared: Arc<WriterQueue>,
    is_done: mpsc::Receiver<()>,
    lines: Vec<u8>,
}

/// Cloneable handle of the access log: reopens it and reads its counts.
#[derive(Clone)]
pub struct Handle(Arc<WriterQueue>);

#[derive(Default)]
struct WriterQueue {
    waiting: Mutex<QueuedLines>,
    arrived: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct QueuedLines {
    lines: Vec<u8>,
    reopen: bool,
    is_ended: bool,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let shared = Arc::new(WriterQueue::default());
        let theirs = Arc::clone(&shared);
        let (done, is_done) = mpsc::channel();
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                theirs.write_until_ended(&mut Output::new(settings));
                let _ = done.send(());
            })?;
        Ok(Self {
            shared,
            is_done,
            lines: Vec::new(),
        })
    }

    /// Adds the line of an exchange; [`Self::flush`] hands it over.
    pub fn push(&mut self, exchange: &Exchange) {
        line::write(&mut self.lines, exchange);
    }

    /// Hands the lines over.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let mut waiting = locked(&self.shared.waiting);
        let room = MOST_WAITING.saturating_sub(waiting.lines.len());
        let fitting = fitting(&self.lines, room);
        if fitting == self.lines.len() && waiting.lines.is_empty() {
            std::mem::swap(&mut waiting.lines, &mut self.lines);
        } else {
            waiting.lines.extend_from_slice(&self.lines[..fitting]);
            let dropped = lines(&self.lines[fitting..]);
            self.shared.dropped.fetch_add(dropped, Relaxed);
        }
        drop(waiting);
        self.lines.clear();
        // of a burst
        self.lines.shrink_to(1 << 20);
        self.shared.arrived.notify_one();
    }

    /// A handle.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
        locked(&self.shared.waiting).is_ended = true;
        self.shared.arrived.notify_one();
        // no longer wait for a disk that does not respond
        let _ = self.is_done.recv_timeout(PATIENCE);
    }
}

impl Handle {
    /// Reopens the file before the next line.
    pub fn reopen(&self) {
        locked(&self.0.waiting).reopen = true;
        self.0.arrived.notify_one();
    }

    /// Number of dropped lines.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }
}

impl WriterQueue {
    fn write_until_ended(&self, output: &mut Output) {
        let mut batch = Vec::new();
        loop {
            let mut waiting = locked(&self.waiting);
            while waiting.lines.is_empty() && !waiting.reopen && !waiting.is_ended {
                let woken = self.arrived.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut waiting.lines);
            let reopen = std::mem::take(&mut waiting.reopen);
            let is_ended = waiting.is_ended;
            drop(waiting);

            let now = SystemTime::now();
            if reopen {
                output.reopen(now);
            }
            if !batch.is_empty() {
                let dropped = output.write(&batch, now);
                self.dropped.fetch_add(dropped, Relaxed);
            }
            batch.clear();
            batch.shrink_to(1 << 20);
            if is_ended {
                return;
            }
            thread::sleep(BATCH);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // lines are whole or absent, even after a panic
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Instant};

    use super::*;
    use crate::config::AccessLogTarget;

    fn settings(path: &Path) -> AccessLogSettings {
        AccessLogSettings {
            target: AccessLogTarget::File(path.into()),
            max_size: 1 << 30,
            keep: 1,
        }
    }

    fn eventually(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "not in time");
            thread::yield_now();
        }
    }

    #[test]
    fn every_line_is_written_before_the_log_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut log = AccessLog::start(settings(&path)).unwrap();
        for _ in 0..100 {
            for _ in 0..100 {
                log.push(&line::tests::exchange());
            }
            log.flush();
        }
        let handle = log.handle();
        drop(log);
        let written = lines(&fs::read(&path).unwrap());
        assert_eq!((written, handle.dropped()), (10_000, 0));
    }

    #[test]
    fn no_more_waits_than_is_said_however_much_comes_at_once() {
        let (_, is_done) = mpsc::channel();
        let shared = Arc::new(WriterQueue::default());
        let mut log = AccessLog {
            shared: Arc::clone(&shared),
            is_done,
            lines: Vec::new(),
        };
        let mut pushed = 0;
        for _ in 0..2 {
            while log.lines.len() <= MOST_WAITING {
                log.push(&line::tests::exchange());
                pushed += 1;
            }
            log.flush();
            let waiting = locked(&shared.waiting).lines.clone();
            assert!(waiting.len() <= MOST_WAITING && waiting.ends_with(b"\n"));
            assert_eq!(lines(&waiting) + log.handle().dropped(), pushed);
        }
    }

    #[test]
    fn reopening_follows_a_renamed_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, renamed) = (directory.path().join("a"), directory.path().join("b"));
        let mut log = AccessLog::start(settings(&path)).unwrap();
        log.push(&line::tests::exchange());
        log.flush();
        eventually(|| fs::read(&path).is_ok_and(|text| lines(&text) == 1));
        fs::rename(&path, &renamed).unwrap();
        log.handle().reopen();
        eventually(|| path.exists());
        log.push(&line::tests::exchange());
        drop(log);
        assert_eq!(lines(&fs::read(&path).unwrap()), 1);
        assert_eq!(lines(&fs::read(&renamed).unwrap()), 1);
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        // opening it waits for a reader that does not come
        let mut log = AccessLog::start(settings(&fifo)).unwrap();
        let handle = log.handle();
        let mut pushed = 0_u64;
        let started = Instant::now();
        while handle.dropped() == 0 {
            for _ in 0..2000 {
                log.push(&line::tests::exchange());
                pushed += 1;
            }
            log.flush();
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        assert!(pushed < 400_000, "more waits than is said: {pushed}");
        drop(log);
    }
}
