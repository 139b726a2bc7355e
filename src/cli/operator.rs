//! The user of the command line, for the audit, and names of the system's users.

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

/// Name of a user of the system; the number where it has none, which systemd takes, too.
pub(super) fn user_name(user: u32) -> String {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&known, user)
}

fn named(known: &str, user: u32) -> String {
    let mut lines = known.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(user) && !name.is_empty()).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| user.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_the_system_or_the_number() {
        let known = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbad\n";
        for (user, name) in [(0, "root"), (1000, "ada"), (7, "7")] {
            assert_eq!(named(known, user), name);
        }
    }
}
