//! Work on a thread of its own, for threads that must not wait: lines of the logs, events of telemetry,
//! changes for the disk.
//!
//! A thread hands work over through an [`Entrance`]: a buffer that only it and the background thread touch.
//! The background thread takes whole buffers: what arrives after a silence at once, what follows it
//! together, an interval later. The buffers have a bound; work that does not fit is dropped and counted.

use std::{
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Work of one thread that waits.
pub trait Buffer: Default + Send + 'static {
    /// True if no work waits.
    fn is_empty(&self) -> bool;

    /// Removes the work that was taken, and the memory of a burst.
    fn reset(&mut self);

    /// Exchanges the waiting work of both.
    fn swap(&mut self, other: &mut Self) {
        mem::swap(self, other);
    }
}

/// Lines that wait to be written.
impl Buffer for Vec<u8> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn reset(&mut self) {
        self.clear();
        self.shrink_to(1 << 20);
    }
}

/// The part of the background thread that does the work.
pub trait Consumer<B>: Send + 'static {
    /// Begins a round over all buffers, empty or not.
    fn begin_round(&mut self) {}

    /// Does the work of one thread. Returns the number of items that had to be dropped.
    fn take(&mut self, work: &mut B) -> u64;

    /// Ends a round, before which the buffers refused this number of items. Returns true if another round
    /// is due after the interval, even if no work arrives.
    fn end_round(&mut self, _refused: u64) -> bool {
        false
    }

    /// Ends the work: there is no more.
    fn close(&mut self) {}
}

/// Bounds of a background thread.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Upper bound of the work that waits, in all buffers together, in the unit of the buffers.
    pub most: usize,
    /// Time for which work is gathered.
    pub interval: Duration,
    /// Longest wait at the end, and for a flush.
    pub patience: Duration,
}

/// A background thread. Its drop waits for the work that was handed over.
pub struct Background<B: Buffer> {
    handle: Handle<B>,
}

/// Cloneable handle of a background thread.
pub struct Handle<B>(Arc<Shared<B>>);

impl<B> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Buffer of one thread. A clone of it is another one, for another thread.
pub struct Entrance<B: Buffer> {
    buffer: Arc<Mutex<B>>,
    handle: Handle<B>,
}

struct Shared<B> {
    terms: Terms,
    buffers: Mutex<Vec<Arc<Mutex<B>>>>,
    /// Upper bound of each buffer.
    each: AtomicUsize,
    /// Held while work is done, so that the work of one thread stays in order.
    outlet: Mutex<Outlet<B>>,
    /// None if the system refused a thread: then the thread that hands work over does it.
    thread: OnceLock<Thread>,
    /// True once the thread was woken for the work that waits.
    is_woken: AtomicBool,
    /// True if the interval is to be cut short.
    is_hurried: AtomicBool,
    is_ended: AtomicBool,
    /// Receivers of the end of the next round.
    flushes: Mutex<Vec<mpsc::Sender<()>>>,
    /// Items that were refused or dropped.
    dropped: AtomicU64,
    /// Items that were refused since the last round.
    refused: AtomicU64,
}

struct Outlet<B> {
    consumer: Box<dyn Consumer<B>>,
    /// An empty buffer, exchanged for a full one.
    empty: B,
}

impl<B: Buffer> Background<B> {
    /// Prepares the work; until [`Self::spawn`], each thread does its own.
    pub fn new(terms: Terms, consumer: impl Consumer<B>) -> Self {
        let shared = Shared {
            terms,
            buffers: Mutex::default(),
            each: AtomicUsize::new(terms.most),
            outlet: Mutex::new(Outlet {
                consumer: Box::new(consumer),
                empty: B::default(),
            }),
            thread: OnceLock::new(),
            is_woken: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            flushes: Mutex::default(),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self {
            handle: Handle(Arc::new(shared)),
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn spawn(&self, name: &str) -> io::Result<()> {
        let shared = Arc::clone(&self.handle.0);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || shared.run())?;
        // there is one, set once
        let _ = self.handle.0.thread.set(thread.thread().clone());
        Ok(())
    }

    /// Starts a thread with this work.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn start(name: &str, terms: Terms, consumer: impl Consumer<B>) -> io::Result<Self> {
        let background = Self::new(terms, consumer);
        background.spawn(name)?;
        Ok(background)
    }

    /// Returns a handle.
    pub fn handle(&self) -> Handle<B> {
        self.handle.clone()
    }
}

impl<B: Buffer> Drop for Background<B> {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        shared.is_ended.store(true, SeqCst);
        self.handle.flush();
        if shared.thread.get().is_none() {
            locked(&shared.outlet).consumer.close();
        }
    }
}

impl<B: Buffer> Handle<B> {
    /// Adds a buffer, for the thread that keeps it.
    pub fn entrance(&self) -> Entrance<B> {
        let buffer = Arc::<Mutex<B>>::default();
        let mut buffers = locked(&self.0.buffers);
        buffers.push(Arc::clone(&buffer));
        self.0.share_among(buffers.len());
        drop(buffers);
        Entrance {
            buffer,
            handle: self.clone(),
        }
    }

    /// Does the work that waits now, on the calling thread.
    pub fn work(&self) {
        self.0.round();
    }

    /// Has the work that waits done, and waits for it, or gives up after a while.
    pub fn flush(&self) {
        if self.0.thread.get().is_none() {
            self.work();
            return;
        }
        let (done, is_done) = mpsc::channel();
        locked(&self.0.flushes).push(done);
        self.hurry();
        let _ = is_done.recv_timeout(self.0.terms.patience);
    }

    /// Has a round begin at once.
    pub fn hurry(&self) {
        self.0.is_hurried.store(true, SeqCst);
        self.0.is_woken.store(true, SeqCst);
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// Shows the buffer of each thread.
    pub fn visit(&self, mut show: impl FnMut(&B)) {
        let buffers = locked(&self.0.buffers).clone();
        buffers.iter().for_each(|buffer| show(&locked(buffer)));
    }

    /// Counts items as dropped.
    pub fn lose(&self, items: u64) {
        self.0.dropped.fetch_add(items, Relaxed);
    }

    /// Number of items that were dropped.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }
}

impl<B: Buffer> Clone for Entrance<B> {
    fn clone(&self) -> Self {
        self.handle.entrance()
    }
}

impl<B: Buffer> Entrance<B> {
    /// Hands work over: adds it to the buffer, whose bound is given. Returns false if it did not fit, which
    /// the addition says by returning false.
    pub fn add(&self, add: impl FnOnce(&mut B, usize) -> bool) -> bool {
        let shared = &self.handle.0;
        let fits = add(&mut locked(&self.buffer), shared.each.load(Relaxed));
        if !fits {
            shared.dropped.fetch_add(1, Relaxed);
            shared.refused.fetch_add(1, Relaxed);
        }
        match shared.thread.get() {
            None => {
                shared.round();
            }
            Some(thread) => {
                if !shared.is_woken.load(SeqCst) && !shared.is_woken.swap(true, SeqCst) {
                    thread.unpark();
                }
            }
        }
        fits
    }

    /// Changes the buffer without handing work over.
    pub fn change<T>(&self, change: impl FnOnce(&mut B) -> T) -> T {
        change(&mut locked(&self.buffer))
    }

    /// Returns a handle.
    pub fn handle(&self) -> &Handle<B> {
        &self.handle
    }
}

impl<B: Buffer> Shared<B> {
    fn run(&self) {
        let mut is_due = false;
        loop {
            while !is_due && !self.is_woken.load(SeqCst) {
                thread::park();
            }
            // in this order: a flush that is taken here sees its end, and one that is not cuts the interval
            self.is_hurried.store(false, SeqCst);
            let flushes = mem::take(&mut *locked(&self.flushes));
            let is_ended = self.is_ended.load(SeqCst);
            is_due = self.round();
            if is_ended {
                locked(&self.outlet).consumer.close();
            }
            for done in flushes {
                let _ = done.send(());
            }
            if is_ended {
                return;
            }
            let until = Instant::now() + self.terms.interval;
            while !self.is_hurried.load(SeqCst)
                && let Some(left) = until.checked_duration_since(Instant::now())
            {
                thread::park_timeout(left);
            }
            // what came meanwhile is part of the next round
            let is_woken = self.is_woken.swap(false, SeqCst);
            is_due |= self.is_hurried.load(SeqCst) || (is_woken && self.has_work());
        }
    }

    /// Does the work that waits. Returns true if another round is due after the interval.
    fn round(&self) -> bool {
        let Outlet { consumer, empty } = &mut *locked(&self.outlet);
        consumer.begin_round();
        // the list is not held meanwhile: a thread that comes adds to it
        let buffers = locked(&self.buffers).clone();
        for buffer in &buffers {
            empty.swap(&mut locked(buffer));
            if !empty.is_empty() {
                let dropped = consumer.take(empty);
                self.dropped.fetch_add(dropped, Relaxed);
                empty.reset();
            }
        }
        drop(buffers);
        let mut buffers = locked(&self.buffers);
        // those of threads that ended
        buffers.retain(|buffer| Arc::strong_count(buffer) > 1 || !locked(buffer).is_empty());
        self.share_among(buffers.len());
        drop(buffers);
        consumer.end_round(self.refused.swap(0, Relaxed))
    }

    fn has_work(&self) -> bool {
        let mut buffers = locked(&self.buffers).clone().into_iter();
        buffers.any(|buffer| !locked(&buffer).is_empty())
    }

    fn share_among(&self, buffers: usize) {
        self.each.store(self.terms.most / buffers.max(1), Relaxed);
    }
}

/// Takes the lock, even of a thread that panicked: work is whole or absent.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        most: 1 << 20,
        interval: Duration::from_millis(1),
        patience: Duration::from_secs(60),
    };

    /// Passes on what it takes, and loses lines that begin with `x`.
    struct Collector(mpsc::Sender<Vec<u8>>);

    impl Consumer<Vec<u8>> for Collector {
        fn take(&mut self, work: &mut Vec<u8>) -> u64 {
            let _ = self.0.send(work.clone());
            work.split(|octet| *octet == b'\n')
                .filter(|line| line.starts_with(b"x"))
                .count() as u64
        }

        fn close(&mut self) {
            let _ = self.0.send(b"closed".to_vec());
        }
    }

    fn collector() -> (Collector, mpsc::Receiver<Vec<u8>>) {
        let (sender, taken) = mpsc::channel();
        (Collector(sender), taken)
    }

    fn push(entrance: &Entrance<Vec<u8>>, line: &[u8]) -> bool {
        entrance.add(|lines, most| {
            let fits = lines.len() + line.len() <= most;
            if fits {
                lines.extend_from_slice(line);
            }
            fits
        })
    }

    #[test]
    fn all_work_is_done_before_the_end_and_that_of_a_thread_in_its_order() {
        let (collector, taken) = collector();
        let background = Background::start("test", TERMS, collector).unwrap();
        thread::scope(|scope| {
            for name in [b'a', b'b', b'c'] {
                let entrance = background.handle().entrance();
                scope.spawn(move || {
                    for number in 0..1000 {
                        let line = format!("{}{number}\n", name as char);
                        assert!(push(&entrance, line.as_bytes()));
                    }
                });
            }
        });
        drop(background);
        let mut all: Vec<_> = taken.iter().collect();
        assert_eq!(all.pop().unwrap(), b"closed");
        let all = String::from_utf8(all.concat()).unwrap();
        for name in ["a", "b", "c"] {
            let of_one = all.lines().filter_map(|line| line.strip_prefix(name));
            let numbers = of_one.map(|number| number.parse::<u32>().unwrap());
            assert!(numbers.eq(0..1000), "{name}");
        }
    }

    #[test]
    fn a_flush_waits_for_what_was_handed_over_before() {
        let (collector, taken) = collector();
        let terms = Terms {
            interval: Duration::from_secs(3600),
            ..TERMS
        };
        let background = Background::start("test", terms, collector).unwrap();
        let entrance = background.handle().entrance();
        for line in [&b"1\n"[..], b"2\n", b"3\n"] {
            push(&entrance, line);
            background.handle().flush();
            assert_eq!(taken.try_recv().as_deref(), Ok(line));
        }
    }

    #[test]
    fn what_does_not_fit_or_is_lost_is_counted() {
        let (collector, taken) = collector();
        let (first, second) = {
            // without a thread, nothing waits: the lines of the second wait in its buffer
            let background = Background::new(Terms { most: 8, ..TERMS }, collector);
            let handle = background.handle();
            let (first, second) = (handle.entrance(), handle.entrance());
            second.change(|lines| lines.extend_from_slice(b"abc"));
            assert!(!push(&second, b"de"), "each has half of the room");
            assert!(push(&first, b"xy\n"));
            assert_eq!(handle.dropped(), 2);
            (first, second)
        };
        assert_eq!(
            taken.iter().take(2).collect::<Vec<_>>(),
            [&b"abc"[..], b"xy\n"]
        );
        assert_eq!(taken.try_recv().as_deref(), Ok(&b"closed"[..]));
        drop((first, second));
    }

    #[test]
    fn a_round_that_asks_for_another_one_gets_it_without_work() {
        struct Counter(u32, mpsc::Sender<u32>);
        impl Consumer<Vec<u8>> for Counter {
            fn take(&mut self, _: &mut Vec<u8>) -> u64 {
                0
            }

            fn end_round(&mut self, _: u64) -> bool {
                self.0 += 1;
                let _ = self.1.send(self.0);
                self.0 < 3
            }
        }
        let (sender, rounds) = mpsc::channel();
        let background = Background::start("test", TERMS, Counter(0, sender)).unwrap();
        push(&background.handle().entrance(), b"1\n");
        let first: Vec<_> = rounds.iter().take(3).collect();
        assert_eq!(first, [1, 2, 3]);
    }

    #[test]
    fn the_buffer_of_a_thread_that_ended_is_taken_and_let_go() {
        let (collector, taken) = collector();
        let background = Background::new(TERMS, collector);
        let handle = background.handle();
        handle.entrance().change(|lines| lines.push(b'1'));
        handle.work();
        assert_eq!(taken.try_recv().as_deref(), Ok(&b"1"[..]));
        let mut buffers = 0;
        handle.visit(|_| buffers += 1);
        assert_eq!(buffers, 0);
    }
}
