//! Comparison of settings: what changed, what is in effect, what waits for a restart.

use crate::config::{env::Applies, origin::Setting};

/// Reports that texts or origins of the settings differ.
pub(super) fn differ(before: &[Setting], after: &[Setting]) -> bool {
    let same =
        |(one, other): (&Setting, &Setting)| one.text == other.text && one.origin == other.origin;
    !before.iter().zip(after).all(same)
}

/// The settings in effect once `new` was taken: what waits for a restart stays as it is.
pub(super) fn in_effect(now: &[Setting], new: &[Setting], turns_tls: bool) -> Vec<Setting> {
    let waits = |new: &Setting| match new.variable.applies {
        Applies::Restart => true,
        Applies::Live => turns_tls && TLS_PAIR.contains(&new.variable.name),
    };
    now.iter()
        .zip(new)
        .map(|(now, new)| match waits(new) && now.text != new.text {
            true => now.clone(),
            false => new.clone(),
        })
        .collect()
}

/// These turn TLS on and off, which is settled at the start; else they apply at once.
pub(super) const TLS_PAIR: [&str; 2] = ["TLS_CERT_FILE", "TLS_KEY_FILE"];

/// The names of the variables that a restart would change.
pub(super) fn waiting(now: &[Setting], next: &[Setting]) -> Vec<&'static str> {
    now.iter()
        .zip(next)
        .filter(|(now, next)| now.text != next.text)
        .map(|(_, next)| next.variable.name)
        .collect()
}

/// The names of the variables whose text differs.
pub(super) fn changes(
    before: &[Setting],
    after: &[Setting],
    applies: Applies,
) -> Vec<&'static str> {
    // Both are in the order of the one table.
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| after.variable.applies == applies && before.text != after.text)
        .map(|(_, after)| after.variable.name)
        .collect()
}
