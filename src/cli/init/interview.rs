//! The questions: answered by flags, by the person at the terminal, or by their defaults.
//!
//! Without a terminal nothing is asked: what has no flag is listed, all of it at once. Ctrl-C and Esc end the
//! interview before anything is written.

use std::io::IsTerminal as _;

use inquire::{
    Confirm, InquireError, Password, PasswordDisplayMode, Select, Text,
    validator::{ErrorMessage, Validation},
};

use super::error::InitError;
use crate::cli::output::remark;

/// Source of answers that no flag gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerSource {
    /// A person at a terminal.
    Terminal,
    /// The defaults (`--yes`).
    Defaults,
    /// Nothing: flags are all there is.
    Flags,
}

/// An interview.
pub(super) struct Interview {
    pub(super) source: AnswerSource,
    /// Settings that few need are asked for, too.
    pub(super) wants_more: bool,
    missing: Vec<String>,
}

/// A question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The flag that answers it, as it is typed.
    pub(super) flag: &'static str,
    /// The question.
    pub(super) text: &'a str,
    /// A line below it.
    pub(super) help: Option<&'a str>,
}

/// Check of an answer: the reason for which it is none.
pub(super) type AnswerCheck = fn(&str) -> Result<(), String>;

impl Interview {
    /// An interview at this terminal, if it is one.
    pub(super) fn new(takes_defaults: bool) -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self {
            source: match (takes_defaults, is_terminal) {
                (true, _) => AnswerSource::Defaults,
                (false, true) => AnswerSource::Terminal,
                (false, false) => AnswerSource::Flags,
            },
            wants_more: true,
            missing: Vec::new(),
        }
    }

    /// Notes a flag without which there is no answer.
    pub(super) fn lacks(&mut self, flag: impl Into<String>) {
        self.missing.push(flag.into());
    }

    /// Ends the questions.
    ///
    /// # Errors
    /// Flags are missing.
    pub(super) fn end(&self) -> Result<(), InitError> {
        match self.missing.is_empty() {
            true => Ok(()),
            false => Err(InitError::Missing(self.missing.clone())),
        }
    }

    /// A text. Without a default, an answer is needed; none is given where a flag is missing.
    pub(super) fn text(
        &mut self,
        question: Question<'_>,
        given: Option<&str>,
        default: Option<&str>,
        check: AnswerCheck,
    ) -> Result<Option<String>, InitError> {
        if let Some(given) = given {
            let flag = question.flag.split(' ').next().unwrap_or_default();
            check(given).map_err(|why| InitError::Usage(format!("{flag}: {why}")))?;
            return Ok(Some(given.to_owned()));
        }
        match (self.source, default) {
            (AnswerSource::Terminal, _) => {
                let mut text = Text::new(question.text).with_validator(
                    move |answer: &str| -> Result<Validation, inquire::CustomUserError> {
                        Ok(match check(answer.trim()) {
                            Ok(()) => Validation::Valid,
                            Err(why) => Validation::Invalid(ErrorMessage::Custom(why)),
                        })
                    },
                );
                text.default = default;
                text.help_message = question.help;
                Ok(Some(text.prompt()?.trim().to_owned()))
            }
            (AnswerSource::Defaults, Some(default)) => Ok(Some(default.to_owned())),
            (AnswerSource::Defaults, None) | (AnswerSource::Flags, _) => {
                self.lacks(question.flag);
                Ok(None)
            }
        }
    }

    /// Yes or no.
    pub(super) fn decision(
        &mut self,
        question: Question<'_>,
        given: Option<bool>,
        default: bool,
    ) -> Result<bool, InitError> {
        if let Some(given) = given {
            return Ok(given);
        }
        match self.source {
            AnswerSource::Terminal => self.confirm(question.text, question.help, default),
            AnswerSource::Defaults => Ok(default),
            AnswerSource::Flags => {
                self.lacks(question.flag);
                Ok(default)
            }
        }
    }

    /// One of several.
    pub(super) fn choice<T: Copy>(
        &mut self,
        question: Question<'_>,
        given: Option<T>,
        options: &[(&str, T)],
        default: usize,
    ) -> Result<Option<T>, InitError> {
        if given.is_some() {
            return Ok(given);
        }
        match self.source {
            AnswerSource::Terminal => {
                let texts: Vec<&str> = options.iter().map(|(text, _)| *text).collect();
                let mut select = Select::new(question.text, texts)
                    // what is typed is not shown: it may be a key
                    .without_filtering()
                    .with_starting_cursor(default);
                select.help_message = question.help.or(select.help_message);
                let chosen = select.raw_prompt()?.index;
                Ok(options.get(chosen).map(|(_, value)| *value))
            }
            AnswerSource::Defaults => Ok(options.get(default).map(|(_, value)| *value)),
            AnswerSource::Flags => {
                self.lacks(question.flag);
                Ok(None)
            }
        }
    }

    /// Asks at the terminal alone.
    pub(super) fn confirm(
        &self,
        text: &str,
        help: Option<&str>,
        default: bool,
    ) -> Result<bool, InitError> {
        let mut confirm = Confirm::new(text).with_default(default);
        confirm.help_message = help;
        Ok(confirm.prompt()?)
    }

    /// A secret, which the terminal does not show.
    pub(super) fn secret(&self, text: &str, help: &str) -> Result<String, InitError> {
        let secret = Password::new(text)
            .without_confirmation()
            .with_display_mode(PasswordDisplayMode::Hidden)
            .with_help_message(help)
            .prompt()?;
        Ok(secret.trim().to_owned())
    }

    /// Says why a test failed, and asks whether the answer stays.
    pub(super) fn keeps(&self, tested: Result<(), String>) -> Result<bool, InitError> {
        match tested {
            Ok(()) => Ok(true),
            Err(why) => {
                remark(&why);
                self.confirm("Go on with it all the same?", None, false)
            }
        }
    }
}

impl From<InquireError> for InitError {
    fn from(error: InquireError) -> Self {
        match error {
            InquireError::OperationCanceled | InquireError::OperationInterrupted => {
                Self::Interrupted
            }
            other => Self::Failed(format!("the terminal cannot be asked: {other}")),
        }
    }
}
