//! Destination of log lines: a buffer for each thread, emptied by one writer thread.
//!
//! A worker never writes to stderr and never waits for another worker: its lines go to a buffer that
//! only it and the writer touch. Lines are at most [`BATCH`] late. If a terminal or pipe is not read,
//! lines are dropped and counted; no request waits.

use std::{
    cell::OnceCell,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

/// Time for which lines are gathered: at 20,000 lines a second, 400 go out in one write.
const BATCH: Duration = Duration::from_millis(20);
/// Bytes that may wait for one thread; about 5,000 lines.
const MOST_WAITING: usize = 1024 * 1024;
/// Longest wait for a reader of the log at the end of the process.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The sink of the process.
pub(super) struct Sink {
    shared: Arc<SinkState>,
    writer: SinkWriter,
}

/// Thread that writes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkWriter {
    Thread,
    /// No writer thread, because the system refused one: the logging thread writes.
    LoggingThread,
}

#[derive(Default)]
struct SinkState {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Held by who writes: lines of one thread stay in order.
    writing: Mutex<()>,
    /// The writer has been woken for waiting lines.
    woken: AtomicBool,
    wake: Mutex<()>,
    arrived: Condvar,
    /// Lines that were dropped and not yet spoken of.
    dropped: AtomicU64,
}

/// Lines that the process dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that the process dropped, because standard error was read too slowly or cannot be written.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

thread_local! {
    static BUFFER: OnceCell<Arc<Mutex<Vec<u8>>>> = const { OnceCell::new() };
}

impl Sink {
    /// Starts the writer thread.
    pub(super) fn start() -> Self {
        let shared = Arc::new(SinkState::default());
        let theirs = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("log".into())
            .spawn(move || theirs.write_forever());
        let writer = if writer.is_ok() {
            SinkWriter::Thread
        } else {
            SinkWriter::LoggingThread
        };
        Self { shared, writer }
    }

    /// Takes a line.
    pub(super) fn push(&self, line: &[u8]) {
        let is_taken = BUFFER.try_with(|buffer| {
            let buffer = buffer.get_or_init(|| {
                let buffer = Arc::new(Mutex::new(Vec::new()));
                locked(&self.shared.buffers).push(Arc::clone(&buffer));
                buffer
            });
            let mut buffer = locked(buffer);
            if buffer.len() + line.len() > MOST_WAITING {
                self.shared.dropped.fetch_add(1, Relaxed);
                DROPPED.fetch_add(1, Relaxed);
            } else {
                buffer.extend_from_slice(line);
            }
        });
        if is_taken.is_err() {
            // the thread is ending, and its buffer with it
            DROPPED.fetch_add(write(&mut io::stderr(), line), Relaxed);
        }
        if self.writer == SinkWriter::LoggingThread {
            self.shared.drain();
        } else if !self.shared.woken.swap(true, SeqCst) {
            let _guard = locked(&self.shared.wake);
            self.shared.arrived.notify_one();
        }
    }

    /// Writes what waits, or gives up after a while.
    pub(super) fn flush(&self) {
        let shared = Arc::clone(&self.shared);
        let (done, is_done) = std::sync::mpsc::channel();
        let flusher = thread::Builder::new().spawn(move || {
            shared.drain();
            let _ = done.send(());
        });
        if flusher.is_ok() {
            let _ = is_done.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

impl SinkState {
    fn write_forever(&self) {
        loop {
            let mut guard = locked(&self.wake);
            while !self.woken.load(SeqCst) {
                guard = self
                    .arrived
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            // the first line goes out at once, those that follow it together
            self.drain();
            thread::sleep(BATCH);
            self.woken.store(false, SeqCst);
            self.drain();
        }
    }

    fn drain(&self) {
        let _writing = locked(&self.writing);
        // the list is not held while writing: a thread that logs for the first time adds to it
        let buffers = locked(&self.buffers).clone();
        for buffer in &buffers {
            let lines = std::mem::take(&mut *locked(buffer));
            if !lines.is_empty() {
                DROPPED.fetch_add(write(&mut io::stderr(), &lines), Relaxed);
            }
        }
        drop(buffers);
        // buffers of threads that ended
        locked(&self.buffers)
            .retain(|buffer| Arc::strong_count(buffer) > 1 || !locked(buffer).is_empty());
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            let _ = writeln!(
                io::stderr(),
                "[Proxy] {dropped} log lines dropped: stderr is not read fast enough"
            );
        }
    }
}

/// Writes lines. Says how many could not be.
fn write(to: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match to.write(lines) {
            Ok(0) => break,
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    memchr::memchr_iter(b'\n', lines).count() as u64
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // a panic elsewhere leaves lines, which are whole or not there
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many octets, three at a time, and then no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let taken = octets.len().min(3).min(self.0);
            self.0 -= taken;
            match taken {
                0 => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(taken),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        for (room, lost) in [(100, 0), (12, 0), (11, 1), (8, 1), (7, 2), (0, 3)] {
            assert_eq!(write(&mut Full(room), b"one\ntwo\nsix\n"), lost, "{room}");
        }
    }

    #[test]
    fn lines_for_which_there_is_no_room_are_counted() {
        // a sink whose writer is never woken
        let sink = Sink {
            shared: Arc::new(SinkState::default()),
            writer: SinkWriter::Thread,
        };
        let before = dropped();
        let counted = thread::spawn(move || {
            let line = [&[b'x'; 1023][..], b"\n"].concat();
            for _ in 0..1030 {
                sink.push(&line);
            }
            sink.shared.dropped.load(Relaxed)
        });
        assert_eq!(counted.join().unwrap(), 6);
        assert_eq!(dropped() - before, 6);
    }
}
