//! A program on a terminal of its own: a pseudo-terminal of 80 columns and 24 lines, and a screen that shows
//! it as a terminal would.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::DEADLINE;

/// A program on a terminal.
pub(crate) struct Pty {
    child: Child,
    master: File,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Screen {
    parser: Mutex<Parser>,
    changed: Condvar,
}

struct Parser(vt100::Parser);

impl Default for Parser {
    fn default() -> Self {
        let [lines, columns] = [24, 80].map(|size| NonZero::new(size).unwrap());
        Self(vt100::Parser::new(lines, columns, 0))
    }
}

impl Pty {
    /// Starts the program under test with these arguments and variables.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
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
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        // a terminal that controls it, as every shell has one
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_anthropic-proxy")])
            .args(arguments)
            .env_clear()
            .env("TERM", "xterm-256color")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().copied())
            .current_dir(std::env::temp_dir())
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal)
            .spawn()
            .expect("setsid of util-linux starts the program");
        let (master, screen) = (File::from(master), Arc::<Screen>::default());
        let (mut output, shown) = (master.try_clone().unwrap(), Arc::clone(&screen));
        let reader = thread::spawn(move || {
            let mut octets = [0; 4096];
            // an error once the program has closed its side
            while let Ok(count @ 1..) = output.read(&mut octets) {
                shown.parser.lock().unwrap().0.process(&octets[..count]);
                shown.changed.notify_all();
            }
            shown.changed.notify_all();
        });
        Self {
            child,
            master,
            screen,
            reader: Some(reader),
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a screen, and gives its text.
    #[track_caller]
    pub(crate) fn wait_for(&self, is_right: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        let mut parser = self.screen.parser.lock().unwrap();
        loop {
            let text = parser.0.screen().contents();
            if is_right(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such screen:\n{text}");
            parser = self
                .screen
                .changed
                .wait_timeout(parser, left.min(Duration::from_secs(1)))
                .unwrap()
                .0;
        }
    }

    /// True if the screen is the program's, and not that of the shell.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.screen
            .parser
            .lock()
            .unwrap()
            .0
            .screen()
            .alternate_screen()
    }

    /// True if the terminal gives lines, and shows what is typed.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.master).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([format!("-{name}"), id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the program. Gives its exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // all that it wrote is on the screen
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status.code();
            }
            let screen = self.screen.parser.lock().unwrap().0.screen().contents();
            assert!(Instant::now() < end, "still running:\n{screen}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
