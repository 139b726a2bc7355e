//! Destination of log lines: standard error, written by a thread of its own.
//!
//! A worker never writes to stderr and never waits for another worker. If a terminal or pipe is not read,
//! lines are dropped and counted; no request waits.

use std::{
    cell::OnceCell,
    io::{self, Write},
    sync::OnceLock,
    time::Duration,
};

use crate::background::{Background, Consumer, Entrance, Handle, Terms};

const TERMS: Terms = Terms {
    // about 80,000 lines
    most: 16 << 20,
    // at 20,000 lines a second, 400 go out in one write
    interval: Duration::from_millis(20),
    patience: Duration::from_secs(1),
};

/// The sink of the process.
pub(super) struct Sink(Background<Vec<u8>>);

/// The thread's work: to write.
struct StderrWriter;

static LINES: OnceLock<Handle<Vec<u8>>> = OnceLock::new();

thread_local! {
    static BUFFER: OnceCell<Entrance<Vec<u8>>> = const { OnceCell::new() };
}

/// Lines that the process dropped, because standard error was read too slowly or cannot be written.
pub(super) fn dropped() -> u64 {
    LINES.get().map_or(0, Handle::dropped)
}

impl Sink {
    /// Starts the writer thread.
    pub(super) fn start() -> Self {
        let lines = Background::new(TERMS, StderrWriter);
        // without a thread, each one that logs writes
        let _ = lines.spawn("log");
        let _ = LINES.set(lines.handle());
        Self(lines)
    }

    /// Takes a line.
    pub(super) fn push(&self, line: &[u8]) {
        let is_taken = BUFFER.try_with(|buffer| {
            let buffer = buffer.get_or_init(|| self.0.handle().entrance());
            buffer.add(|lines, most| {
                let fits = lines.len() + line.len() <= most;
                if fits {
                    lines.extend_from_slice(line);
                }
                fits
            })
        });
        if is_taken.is_err() {
            // the thread is ending, and its buffer with it
            self.0.handle().lose(write(&mut io::stderr(), line));
        }
    }

    /// Writes what waits, or gives up after a while.
    pub(super) fn flush(&self) {
        self.0.handle().flush();
    }
}

impl Consumer<Vec<u8>> for StderrWriter {
    fn take(&mut self, lines: &mut Vec<u8>) -> u64 {
        write(&mut io::stderr(), lines)
    }

    fn end_round(&mut self, refused: u64) -> bool {
        if refused > 0 {
            let _ = writeln!(
                io::stderr(),
                "[Proxy] {refused} log lines dropped: stderr is not read fast enough"
            );
        }
        false
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
}
