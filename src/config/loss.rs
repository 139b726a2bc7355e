//! Settings that a reload must not lose, because they protect traffic and keys.
//!
//! A file that was emptied, cut or deleted does not show the operator's intent, and the
//! configuration without it is worse than the last one: traffic and the clients' keys would go to the
//! default upstream, and the dashboard would take another key. So a reload keeps the last good
//! configuration and names the missing setting. A start has no earlier file and checks nothing here.

use std::path::Path;

use super::{
    error::ConfigError,
    loaded::Loaded,
    merge::MergedSettings,
    origin::{Origin, Setting},
    read,
};

/// An environment file that had settings and has none.
pub(super) fn lost_file(last: &Loaded, now: &MergedSettings) -> Option<ConfigError> {
    let had = last.env_file.settings;
    // a file that cannot be read is a fault already
    if had == 0 || now.env_facts.settings > 0 || !now.faults.is_empty() {
        return None;
    }
    // each of them by its name: that is an intent
    let of_file = |it: &&Setting| matches!(it.origin, Origin::File { .. });
    let cleared = &now.env_facts.cleared;
    let mut had_here = last.settings.iter().filter(of_file).peekable();
    let is_cleared = |it: &Setting| cleared.iter().any(|name| name == it.variable.name);
    if had_here.peek().is_some() && had_here.all(is_cleared) {
        return None;
    }
    let settings = if had == 1 { "setting" } else { "settings" };
    let state = if now.env_facts.is_missing {
        "missing"
    } else {
        "empty"
    };
    let problem = format!("had {had} {settings} and is now {state}");
    let expected = "the settings that are in effect, or others";
    Some(ConfigError {
        fix: Some("restore the file; to run without it, restart".to_owned()),
        ..ConfigError::at(env_file(now), problem, expected)
    })
}

/// Settings that must not vanish with a line.
pub(super) fn lost_settings(last: &Loaded, now: &MergedSettings, root: &Path) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    if last.env_file.is_whole && !now.env_facts.is_whole {
        let problem = "ends in the middle of a line, which it did not before: it may be cut";
        faults.push(ConfigError {
            fix: Some("end the last line with a line break".to_owned()),
            ..ConfigError::at(env_file(now), problem, "a line break at its end")
        });
    }
    let was_set = |name: &str| last.settings.iter().any(|it| is_set(it, name));
    let still_set = |name: &str| now.settings.iter().any(|it| is_set(it, name));
    if UPSTREAMS.iter().any(|name| was_set(name)) && !UPSTREAMS.iter().any(|name| still_set(name)) {
        let problem = "was set and is not any more";
        let expected = "an upstream: a reload never goes back to the default one";
        faults.push(ConfigError {
            variable: Some("API_BASE_URL".to_owned()),
            fix: Some("set it again, or restart".to_owned()),
            ..ConfigError::at(env_file(now), problem, expected)
        });
    }
    for name in GUARDED {
        let is_cleared = now.env_facts.cleared.iter().any(|cleared| cleared == name);
        if was_set(name) && !still_set(name) && !is_cleared {
            faults.push(ConfigError {
                variable: Some((*name).to_owned()),
                fix: Some(format!(
                    "restore it; to unset it on purpose, write `{name}=`"
                )),
                ..ConfigError::at(env_file(now), "was set and its line is gone", "the line")
            });
        }
    }
    faults.extend(lost_fields(last, now, root));
    faults
}

/// A file of custom fields that had some and is gone. One that is named is a fault already.
fn lost_fields(last: &Loaded, now: &MergedSettings, root: &Path) -> Option<ConfigError> {
    let path = root.join(now.text("HEADERS_FILE")?);
    let live = &last.config.live;
    let had = live.custom_fields.len() + live.removed_fields.len();
    let is_lost = had > 0
        && path == last.config.boot.headers_file
        && !now.settings.iter().any(|it| is_set(it, "HEADERS_FILE"))
        && matches!(read::text(&path), Err(read::ReadError::Missing));
    let origin = Origin::File { path, line: None };
    is_lost.then(|| ConfigError {
        fix: Some("restore it; to send no fields, write {} into it".to_owned()),
        ..ConfigError::at(
            origin,
            "had fields and is now missing",
            "a readable JSON file",
        )
    })
}

fn is_set(setting: &Setting, name: &str) -> bool {
    setting.variable.name == name && setting.origin != Origin::Default
}

fn env_file(now: &MergedSettings) -> Origin {
    Origin::File {
        path: now.env_file.clone(),
        line: None,
    }
}

/// Reports that a variable stays in effect until it is unset explicitly: a reload refuses a file without its
/// line.
pub fn is_guarded(name: &str) -> bool {
    GUARDED.contains(&name)
}

/// The variables that name upstreams; one may take the other's place.
const UPSTREAMS: [&str; 2] = ["API_BASE_URL", "API_BASE_URLS"];

/// Variables that stay in effect until they are unset explicitly. Without the first, clients' keys go
/// upstream; without the second, fields that the upstream needs, or that others must not see, change;
/// without the third, the dashboard takes the generated key.
const GUARDED: &[&str] = &["UPSTREAM_API_KEYS", "HEADERS_FILE", "DASHBOARD_API_KEY"];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{ConfigSource, Environment, Flags};
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    struct Case {
        dir: tempfile::TempDir,
        source: ConfigSource,
        last: Loaded,
    }

    impl Case {
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("env")).unwrap();
            fs::write(dir.path().join("env/.env"), text).unwrap();
            fs::write(dir.path().join("h.json"), r#"{"x-a": "1"}"#).unwrap();
            let source =
                ConfigSource::new(Flags::default(), Environment::default()).rooted(dir.path());
            let last = source.load().unwrap();
            Self { dir, source, last }
        }

        fn write(&self, text: &str) {
            fs::write(self.dir.path().join("env/.env"), text).unwrap();
        }

        /// What is at fault with a file of this text; `Ok` where nothing is.
        fn reload(&self, text: &str) -> Result<Loaded, Vec<String>> {
            self.write(text);
            self.source
                .load_after(&self.last)
                .map_err(|faults| faults.faults.iter().map(ToString::to_string).collect())
        }
    }

    fn full() -> String {
        format!(
            "API_BASE_URL=http://one.test\nUPSTREAM_API_KEYS=sk-1\nDASHBOARD_API_KEY={KEY}\n\
             HEADERS_FILE=h.json\n"
        )
    }

    #[test]
    fn every_cut_of_the_file_is_a_fault() {
        let text = full();
        let case = Case::new(&text);
        for end in 0..text.len() {
            assert!(case.reload(&text[..end]).is_err(), "cut at {end}");
        }
        case.reload(&text).unwrap();
    }

    #[test]
    fn a_file_whose_settings_are_all_unset_by_name_is_taken() {
        let case = Case::new("STREAM_IDLE_TIMEOUT=7m\nWRITE_TIMEOUT=5m\n");
        case.reload("STREAM_IDLE_TIMEOUT=\n").unwrap_err();
        case.reload("STREAM_IDLE_TIMEOUT=\nWRITE_TIMEOUT=\n")
            .unwrap();
    }

    #[test]
    fn a_file_without_settings_or_without_itself_is_one_clear_fault() {
        let case = Case::new(&full());
        for text in [
            "",
            "\n\n",
            "# API_BASE_URL=http://one.test\n",
            "API_BASE_URL=\n",
        ] {
            let faults = case.reload(text).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(
                faults[0].contains("env/.env: had 4 settings and is now empty; expected"),
                "{faults:?}"
            );
        }
        fs::remove_file(case.dir.path().join("env/.env")).unwrap();
        let faults = case.source.load_after(&case.last).unwrap_err();
        assert!(
            faults
                .to_string()
                .contains("had 4 settings and is now missing")
        );
        fs::remove_dir(case.dir.path().join("env")).unwrap();
        assert!(case.source.load_after(&case.last).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_a_fault_at_the_start_and_later() {
        use std::os::unix::fs::symlink;
        let case = Case::new(&full());
        let path = case.dir.path().join("env/.env");
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        for faults in [
            case.source.load().unwrap_err(),
            case.source.load_after(&case.last).unwrap_err(),
        ] {
            assert!(
                faults.to_string().contains("is a link to nothing"),
                "{faults}"
            );
        }
        fs::remove_dir_all(case.dir.path().join("env")).unwrap();
        symlink("nowhere", case.dir.path().join("env")).unwrap();
        assert!(case.source.load().is_err());
    }

    #[test]
    fn an_upstream_that_was_set_moves_but_never_falls_back() {
        let case = Case::new("API_BASE_URL=http://one.test\nPORT=1\n");
        for text in ["PORT=1\n", "API_BASE_URL=\nPORT=1\n"] {
            let faults = case.reload(text).unwrap_err();
            assert!(faults[0].starts_with("API_BASE_URL ("), "{faults:?}");
        }
        case.reload("API_BASE_URLS=http://two.test\nPORT=1\n")
            .unwrap();
        case.reload("API_BASE_URL=https://anyrouter.top\n").unwrap();
        // none was set: there is nothing to fall back from
        let case = Case::new("PORT=1\n");
        case.reload("PORT=2\n").unwrap();
    }

    #[test]
    fn keys_and_fields_are_unset_in_so_many_words_only() {
        let case = Case::new(&full());
        for name in GUARDED {
            let line = |line: &&str| !line.starts_with(name);
            let kept: Vec<&str> = full().leak().lines().filter(line).collect();
            let kept = format!("{}\n", kept.join("\n"));
            let faults = case.reload(&kept).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(
                faults[0].contains(&format!("write `{name}=`")),
                "{faults:?}"
            );
            case.reload(&format!("{kept}{name}=\n")).unwrap();
        }
    }

    #[test]
    fn a_file_that_never_ended_in_a_line_break_need_not() {
        let case = Case::new("API_BASE_URL=http://one.test");
        case.reload("API_BASE_URL=http://two.test").unwrap();
    }

    #[test]
    fn fields_are_dropped_by_an_empty_object_and_not_with_their_file() {
        let case = Case::new("PORT=1\n");
        let path = case.dir.path().join("env/.env.headers.json");
        fs::write(&path, r#"{"x-a": "1"}"#).unwrap();
        let last = case.source.load().unwrap();
        fs::write(&path, "").unwrap();
        assert!(case.source.load_after(&last).is_err());
        fs::remove_file(&path).unwrap();
        let faults = case.source.load_after(&last).unwrap_err();
        assert!(faults.to_string().contains("had fields and is now missing"));
        fs::write(&path, "{}").unwrap();
        let none = case.source.load_after(&last).unwrap();
        // without fields, nothing is lost with the file
        fs::remove_file(&path).unwrap();
        case.source.load_after(&none).unwrap();
    }
}
