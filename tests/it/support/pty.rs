//! A program on a terminal of its own: a pseudo-terminal of 80 columns and 24 lines, and a screen that shows
//! it as a terminal would.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    path::Path,
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
    print: Mutex<Print>,
    changed: Condvar,
}

/// All that was printed: as it is seen, and as it came.
struct Print {
    parser: vt100::Parser,
    octets: Vec<u8>,
    has_ended: bool,
}

impl Default for Print {
    fn default() -> Self {
        let [lines, columns] = [24, 80].map(|size| NonZero::new(size).unwrap());
        Self {
            parser: vt100::Parser::new(lines, columns, 0),
            octets: Vec::new(),
            has_ended: false,
        }
    }
}

impl Pty {
    /// Starts the program under test with these arguments and variables.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(&std::env::temp_dir(), arguments, variables)
    }

    /// Starts it in a directory.
    pub(crate) fn start_in(
        directory: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
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
            .current_dir(directory)
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
                let mut print = shown.print.lock().unwrap();
                print.parser.process(&octets[..count]);
                print.octets.extend_from_slice(&octets[..count]);
                shown.changed.notify_all();
            }
            shown.print.lock().unwrap().has_ended = true;
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
        let found = self.wait(|print| {
            let text = print.parser.screen().contents();
            if is_right(&text) {
                return Some(Ok(text));
            }
            (Instant::now() >= end).then_some(Err(text))
        });
        found.unwrap_or_else(|text| panic!("no such screen:\n{text}"))
    }

    /// Waits until there is something to say of what was printed, and of the end of the program.
    pub(crate) fn wait_for_print<T>(&self, find: impl Fn(&[u8], bool) -> Option<T>) -> T {
        self.wait(|print| find(&print.octets, print.has_ended))
    }

    /// Looks at what was printed whenever there is more, and each second.
    fn wait<T>(&self, find: impl Fn(&Print) -> Option<T>) -> T {
        let mut print = self.screen.print.lock().unwrap();
        loop {
            if let Some(found) = find(&print) {
                return found;
            }
            let second = Duration::from_secs(1);
            let waited = self.screen.changed.wait_timeout(print, second);
            print = waited.unwrap().0;
        }
    }

    /// True if the screen is the program's, and not that of the shell.
    pub(crate) fn is_taken_over(&self) -> bool {
        let print = self.screen.print.lock().unwrap();
        print.parser.screen().alternate_screen()
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
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // all that it wrote is on the screen
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status.code();
            }
            assert!(Instant::now() < end, "still running:\n{}", {
                let print = self.screen.print.lock().unwrap();
                print.parser.screen().contents()
            });
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
