//! A person at a terminal: types answers, and reads what is printed line by line. The terminal is that of `pty`.

use std::{path::Path, time::Instant};

use super::{DEADLINE, pty::Pty};

/// The program at a terminal of 80 columns and 24 lines.
pub(crate) struct Terminal {
    pty: Pty,
    /// Characters that were waited for already.
    read: usize,
}

impl Terminal {
    /// Starts the program in a directory, with these variables.
    pub(crate) fn start(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self {
            pty: Pty::start_in(directory, arguments, variables),
            read: 0,
        }
    }

    /// Waits for a text after the one that was waited for last.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        let found = self.pty.wait_for_print(|printed, has_ended| {
            let printed = plain(printed);
            if let Some(at) = printed[self.read..].find(text) {
                return Some(Ok(self.read + at + text.len()));
            }
            (has_ended || Instant::now() >= end).then_some(Err(printed))
        });
        match found {
            Ok(read) => self.read = read,
            Err(printed) => panic!("no {text:?} in:\n{printed}"),
        }
    }

    /// Types.
    pub(crate) fn types(&mut self, keys: &str) {
        self.pty.press(keys);
    }

    /// Waits for a question, and answers it.
    #[track_caller]
    pub(crate) fn answer(&mut self, question: &str, answer: &str) {
        self.expect(question);
        self.types(answer);
        self.types("\r");
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, name: &str) {
        self.pty.signal(name);
    }

    /// Waits for the end of the program: its exit code, and all that was printed.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let code = self.pty.ended();
        let printed = self.pty.wait_for_print(|printed, _| Some(plain(printed)));
        (code, printed)
    }
}

/// The text without its escape sequences.
fn plain(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
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
