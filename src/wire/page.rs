//! Words about an answer of a stranger: the title of a page, the origin of a URL. For one line, bounded, and without
//! what may be a secret.

/// Most characters of a text.
const LONGEST: usize = 80;

/// Title of a page in HTML, if it has one.
pub fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(page);
    let begin = page.to_ascii_lowercase().find("<title")?;
    let (_, rest) = page[begin..].split_once('>')?;
    let title = one_line(rest.split('<').next()?.trim());
    (!title.is_empty()).then_some(title)
}

/// A text in one line of at most 80 characters, without control characters.
pub fn one_line(text: &str) -> String {
    let printable = text.chars().filter(|it| !it.is_control());
    printable.take(LONGEST).collect()
}

/// Scheme and host of a URL, without anything that may be a secret.
pub fn origin(location: &str) -> Option<String> {
    let (scheme, rest) = location.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let is_host = |it: char| it.is_ascii_alphanumeric() || ".-:[]".contains(it);
    let is_shown = ["http", "https"].contains(&scheme)
        && authority.chars().all(is_host)
        && authority.len() <= LONGEST;
    is_shown.then(|| format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_short_line() {
        let page = b"<html><TITLE lang=en> Access\n de\x1b[1mnied </TITLE>";
        assert_eq!(title(page).as_deref(), Some("Access de[1mnied"));
        let long = format!("<title>{}</title>", "x".repeat(1000));
        assert_eq!(title(long.as_bytes()).map(|it| it.len()), Some(80));
        for none in ["", "<title>", "<title> </title>", "<p>title"] {
            assert_eq!(title(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn an_origin_has_no_path_and_no_login() {
        let found = origin("https://sso.test:8443/login?token=canary");
        assert_eq!(found.as_deref(), Some("https://sso.test:8443"));
        for none in ["/login", "https://u:canary@h/", "ftp://h"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }
}
