//! Comparisons with the text of a JSON string, escapes included, without building the text. They
//! take slices, since a string may lie across chunks.
//!
//! The slices must be the inside of a string that the scanner accepted. Escapes that stand for
//! anything but ASCII match nothing: all comparisons are with ASCII.

use std::ops::ControlFlow;

use memchr::{memchr, memchr2};

/// The text of this spelling, in `room`; none if it is longer than that.
pub(super) fn decoded<'a>(spelling: &[u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut len = Some(0);
    each_run([spelling], |run| {
        len = len.and_then(|len| {
            let end = len + run.len();
            room.get_mut(len..end)?.copy_from_slice(run);
            Some(end)
        });
        if len.is_some() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    room.get(..len?)
}

/// Reports whether the text begins with `prefix`, which is ASCII.
pub(super) fn begins_with<'a>(
    slices: impl IntoIterator<Item = &'a [u8]>,
    mut prefix: &[u8],
) -> bool {
    each_run(slices, |run| {
        let common = run.len().min(prefix.len());
        match prefix.strip_prefix(run.get(..common).unwrap_or_default()) {
            Some([]) => {
                prefix = &[];
                ControlFlow::Break(())
            }
            Some(rest) => {
                prefix = rest;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    });
    prefix.is_empty()
}

/// Reports whether the text contains `Claude Code`, whatever the case of its letters.
pub(super) fn mentions_claude_code<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut matched = 0;
    each_run(slices, |mut run| {
        while !run.is_empty() {
            if matched == 0 {
                // Most bytes are none that a match begins with.
                let Some(first) = memchr2(b'c', b'C', run) else {
                    break;
                };
                run = run.get(first..).unwrap_or_default();
            }
            let Some((octet, rest)) = run.split_first() else {
                break;
            };
            run = rest;
            let octet = octet.to_ascii_lowercase();
            matched = match (matched, octet) {
                (_, octet) if CLAUDE_CODE.get(matched) == Some(&octet) => matched + 1,
                // It recurs inside of itself at its second `c` only: `claude claude code`.
                (SECOND_C, b'l') => 2,
                (_, b'c') => 1,
                _ => 0,
            };
            if matched == CLAUDE_CODE.len() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    matched == CLAUDE_CODE.len()
}

/// Shows the text to `visit` in runs; an escape is a run of one byte.
fn each_run<'a>(
    slices: impl IntoIterator<Item = &'a [u8]>,
    mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
) {
    let mut escape = Escape::None;
    for mut slice in slices {
        while let Some((&octet, rest)) = slice.split_first() {
            let flow = match escape {
                Escape::None if octet == b'\\' => {
                    escape = Escape::Begun;
                    slice = rest;
                    continue;
                }
                Escape::None => {
                    let plain = memchr(b'\\', slice).unwrap_or(slice.len());
                    let (run, rest) = slice.split_at(plain);
                    slice = rest;
                    visit(run)
                }
                Escape::Begun if octet == b'u' => {
                    escape = Escape::Unicode { left: 4, unit: 0 };
                    slice = rest;
                    continue;
                }
                Escape::Begun => {
                    escape = Escape::None;
                    slice = rest;
                    visit(&[unescaped(octet)])
                }
                Escape::Unicode { left, unit } => {
                    let digit = char::from(octet).to_digit(16).unwrap_or_default() as u16;
                    let unit = unit << 4 | digit;
                    slice = rest;
                    if left > 1 {
                        escape = Escape::Unicode {
                            left: left - 1,
                            unit,
                        };
                        continue;
                    }
                    escape = Escape::None;
                    visit(&[u8::try_from(unit)
                        .ok()
                        .filter(u8::is_ascii)
                        .unwrap_or(NOT_ASCII)])
                }
            };
            if flow.is_break() {
                return;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Escape {
    None,
    Begun,
    Unicode { left: u8, unit: u16 },
}

/// Character that a two-character escape stands for (RFC 8259 §7).
fn unescaped(octet: u8) -> u8 {
    match octet {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

/// Text that identifies Claude Code, in lower case.
const CLAUDE_CODE: &[u8] = b"claude code";
/// Bytes of it up to and with its second `c`.
const SECOND_C: usize = b"claude c".len();
/// Stands for any character that is not ASCII; no byte of UTF-8.
const NOT_ASCII: u8 = 0xFF;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut `spelling` in two, so that escapes are cut everywhere.
    fn cuts(spelling: &str) -> impl Iterator<Item = [&[u8]; 2]> {
        let octets = spelling.as_bytes();
        (0..=octets.len()).map(|at| {
            let (head, tail) = octets.split_at(at);
            [head, tail]
        })
    }

    fn is(spelling: &[u8], expected: &[u8]) -> bool {
        decoded(spelling, &mut [0; 6]) == Some(expected)
    }

    #[test]
    fn an_escaped_spelling_is_the_name() {
        for spelling in [
            "system",
            r"sys\u0074em",
            r"\u0073\u0079\u0073\u0074\u0065\u006D",
        ] {
            assert!(is(spelling.as_bytes(), b"system"), "{spelling}");
        }
        for spelling in [
            "",
            "syste",
            "systems",
            "System",
            r"sys\\u0074em",
            r"sys\tem",
            r"\u0173ystem",
        ] {
            assert!(!is(spelling.as_bytes(), b"system"), "{spelling}");
        }
        assert!(is(br#"a\/\"\\"#, br#"a/"\"#));
    }

    #[test]
    fn a_prefix_is_found_across_escapes_and_slices() {
        for spelling in ["x-a:", "x-a: b", r"\u0078-\u0061:", r"x\u002da: \n"] {
            assert!(
                cuts(spelling).all(|slices| begins_with(slices, b"x-a:")),
                "{spelling}"
            );
        }
        for spelling in ["", "x-a", "X-a:", " x-a:", r"\nx-a:", r"\\x-a:", "é-a:"] {
            assert!(
                !cuts(spelling).any(|slices| begins_with(slices, b"x-a:")),
                "{spelling}"
            );
        }
    }

    #[test]
    fn claude_code_is_found_in_any_case_and_spelling() {
        for spelling in [
            "You are Claude Code, Anthropic's official CLI",
            "CLAUDE CODE",
            "claude Claude claude code",
            "claude claude code",
            "cclaude code",
            "claude cclaude code",
            r"\u0043laude\u0020cod\u0065",
            r"\nclaude code\n",
            "數據 Claude Code",
        ] {
            assert!(cuts(spelling).all(mentions_claude_code), "{spelling}");
        }
        for spelling in [
            "",
            "Claude",
            "Claude  Code",
            "Claude-Code",
            r"Claude\nCode",
            r"Claude\u00a0Code",
            "claude cod",
        ] {
            assert!(!cuts(spelling).any(mentions_claude_code), "{spelling}");
        }
    }
}
