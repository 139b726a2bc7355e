//! Watch, reparse, publish.
