//! The access log: a line of JSON for each exchange, written by a thread of its own.
//!
//! A worker writes the line into a buffer of its own and never waits: lines that the disk or the reader of
//! stdout does not take in time are dropped and counted. At most 16 MiB of lines wait, and as many again are
//! being written.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use crate::{
    background::{self, Background, Consumer, Entrance, Terms},
    config::AccessLogSettings,
    exchange::Exchange,
};

mod line;
mod lines;
mod output;

use self::output::Output;

const TERMS: Terms = Terms {
    // about 30,000 lines of 500 bytes
    most: 16 << 20,
    // so that many lines go out in one write
    interval: Duration::from_millis(20),
    patience: Duration::from_secs(1),
};

/// The access log of the process. Dropping it writes the lines that wait, within a second.
pub struct AccessLog {
    handle: Handle,
    _lines: Background<Vec<u8>>,
}

/// Cloneable handle of the access log: reopens it and reads its counts.
#[derive(Clone)]
pub struct Handle {
    lines: background::Handle<Vec<u8>>,
    is_reopening: Arc<AtomicBool>,
}

/// Way of one worker to the access log; a clone of it is one for another worker.
#[derive(Clone)]
pub struct LineSender(Entrance<Vec<u8>>);

/// The thread's work: to write.
struct LineWriter {
    output: Output,
    is_reopening: Arc<AtomicBool>,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let is_reopening = Arc::<AtomicBool>::default();
        let writer = LineWriter {
            output: Output::new(settings),
            is_reopening: Arc::clone(&is_reopening),
        };
        let lines = Background::start("access-log", TERMS, writer)?;
        let handle = Handle {
            lines: lines.handle(),
            is_reopening,
        };
        Ok(Self {
            handle,
            _lines: lines,
        })
    }

    /// A handle.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A way for a worker.
    pub fn sender(&self) -> LineSender {
        LineSender(self.handle.lines.entrance())
    }
}

impl LineSender {
    /// Writes the line of an exchange, if there is room.
    pub fn push(&self, exchange: &Exchange) {
        self.0.add(|lines, most| {
            let begin = lines.len();
            if begin < most {
                line::write(lines, exchange);
            }
            let fits = begin < lines.len() && lines.len() <= most;
            if !fits {
                lines.truncate(begin);
            }
            fits
        });
    }
}

impl Handle {
    /// Reopens the file before the next line.
    pub fn reopen(&self) {
        self.is_reopening.store(true, SeqCst);
        self.lines.hurry();
    }

    /// Number of dropped lines.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }
}

impl Consumer<Vec<u8>> for LineWriter {
    fn begin_round(&mut self) {
        if self.is_reopening.swap(false, SeqCst) {
            self.output.reopen(SystemTime::now());
        }
    }

    fn take(&mut self, lines: &mut Vec<u8>) -> u64 {
        self.output.write(lines, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread, time::Instant};

    use super::{lines::lines, *};
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
        let log = AccessLog::start(settings(&path)).unwrap();
        let sender = log.sender();
        for _ in 0..10_000 {
            sender.push(&line::tests::exchange());
        }
        let handle = log.handle();
        drop(log);
        let written = lines(&fs::read(&path).unwrap());
        assert_eq!((written, handle.dropped()), (10_000, 0));
    }

    #[test]
    fn no_more_waits_than_is_said_however_much_comes_at_once() {
        let line_length = {
            let mut line = Vec::new();
            line::write(&mut line, &line::tests::exchange());
            line.len()
        };
        struct Nothing;
        impl Consumer<Vec<u8>> for Nothing {
            fn take(&mut self, _: &mut Vec<u8>) -> u64 {
                0
            }
        }
        let most = 100 * line_length;
        let lines = Background::new(Terms { most, ..TERMS }, Nothing);
        let sender = LineSender(lines.handle().entrance());
        sender
            .0
            .change(|lines| lines.resize(99 * line_length, b'x'));
        sender.push(&line::tests::exchange());
        assert_eq!(lines.handle().dropped(), 0);
        sender
            .0
            .change(|lines| lines.resize(99 * line_length + 1, b'x'));
        sender.push(&line::tests::exchange());
        assert_eq!(lines.handle().dropped(), 1);
    }

    #[test]
    fn reopening_follows_a_renamed_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, renamed) = (directory.path().join("a"), directory.path().join("b"));
        let log = AccessLog::start(settings(&path)).unwrap();
        let sender = log.sender();
        sender.push(&line::tests::exchange());
        eventually(|| fs::read(&path).is_ok_and(|text| lines(&text) == 1));
        fs::rename(&path, &renamed).unwrap();
        log.handle().reopen();
        eventually(|| path.exists());
        sender.push(&line::tests::exchange());
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
        let log = AccessLog::start(settings(&fifo)).unwrap();
        let (handle, sender) = (log.handle(), log.sender());
        let mut pushed = 0_u64;
        let started = Instant::now();
        while handle.dropped() == 0 {
            for _ in 0..2000 {
                sender.push(&line::tests::exchange());
                pushed += 1;
            }
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        assert!(pushed < 400_000, "more waits than is said: {pushed}");
        drop(log);
    }
}
