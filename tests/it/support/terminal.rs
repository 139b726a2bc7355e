//! A pseudo-terminal with the program at it, typed at and read as a person does.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::DEADLINE;

/// The program at a terminal of 80 columns and 24 lines.
pub(crate) struct Terminal {
    keyboard: File,
    child: Child,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
    /// Characters that were waited for already.
    read: usize,
}

/// All that was printed so far, without escape sequences.
#[derive(Default)]
struct Screen {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Terminal {
    /// Starts the program in a directory, with these variables alone.
    pub(crate) fn start(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .custom_flags(OpenptFlags::NOCTTY.bits() as i32);
            options
                .open(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())))
                .unwrap()
        };
        let child = Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
            .args(arguments)
            .env_clear()
            .env("TERM", "xterm")
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let master = File::from(master);
        let (screen, printed) = (Arc::<Screen>::default(), master.try_clone().unwrap());
        let shown = Arc::clone(&screen);
        Self {
            keyboard: master,
            child,
            screen,
            reader: Some(thread::spawn(move || follow(printed, &shown))),
            read: 0,
        }
    }

    /// Waits for a text after the one that was waited for last.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        let mut screen = self.screen.text.lock().unwrap();
        loop {
            if let Some(at) = screen.0[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !screen.1,
                "no {text:?} in:\n{}",
                screen.0
            );
            screen = self.screen.changed.wait_timeout(screen, left).unwrap().0;
        }
    }

    /// Types.
    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a question, and answers it.
    #[track_caller]
    pub(crate) fn answer(&mut self, question: &str, answer: &str) {
        self.expect(question);
        self.types(answer);
        self.types("\r");
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the program: its exit code, and all that was on the screen.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let text = self.screen.text.lock().unwrap().0.clone();
            assert!(Instant::now() < end, "still running:\n{text}");
            thread::sleep(Duration::from_millis(5));
        };
        self.reader.take().unwrap().join().unwrap();
        let text = self.screen.text.lock().unwrap().0.clone();
        (status.code(), text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(mut printed: File, screen: &Screen) {
    let mut octets = Vec::new();
    let mut part = [0; 4096];
    // an error is the end of the program: no process has the other side open any more
    while let Ok(count @ 1..) = printed.read(&mut part) {
        octets.extend_from_slice(&part[..count]);
        let text = plain(&String::from_utf8_lossy(&octets));
        screen.text.lock().unwrap().0 = text;
        screen.changed.notify_all();
    }
    screen.text.lock().unwrap().1 = true;
    screen.changed.notify_all();
}

/// The text without its escape sequences.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                    chars.next();
                }
            }
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}
