//! The user of the command line, for the audit.

/// The user of the command line, as the environment names it.
pub(super) fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let printable = named.unwrap_or_else(|| "local".to_owned());
    printable
        .chars()
        .filter(char::is_ascii_graphic)
        .take(64)
        .collect()
}
