//! Revisions of the configuration file (`env/.env`): each is judged as `check` does, shown as a difference, written
//! down in the audit, written to the disk as a whole, taken by the running server, and undone if it is not.
//!
//! The API, the verbs `config …` and `init` change the file through here and nothing else does. What was before a
//! change is kept beside the file. Secrets go in and never out: what is shown of them is their length.

mod change;
mod error;
mod file;
mod history;

pub use self::{
    change::{
        Assignment, ConfigView, Editor, FurtherChecks, RevisionAuthor, RevisionRequest,
        RevisionResult, RevisionState, VariableChange, Wanted,
    },
    error::RevisionError,
    file::{FileWriteError, check_writable, make_directory, write_whole},
    history::HistoryEntry,
};
