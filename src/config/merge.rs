//! Precedence: of all that was said about a variable, what counts, and what has no effect.
//!
//! Flag, environment, file, default, in this order. It reads the environment file and remarks on
//! its names; it does not judge values, that is `parse`'s part.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{self, Path, PathBuf},
};

use super::{
    env::{self, Variable},
    envfile::{self, CommentStart, EnvEntry, EnvFileFacts},
    error::{ConfigError, Warning},
    origin::{Origin, Setting},
    read,
    scalar::InvalidValue,
    source::ConfigSource,
};

/// The winning text of every variable, not yet parsed, with errors and warnings.
#[derive(Default)]
pub(super) struct MergedSettings {
    pub(super) env_file: PathBuf,
    pub(super) env_facts: EnvFileFacts,
    pub(super) settings: Vec<Setting>,
    pub(super) faults: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
}

impl ConfigSource {
    /// Collects what was said about every variable of the table.
    pub(super) fn merge(&self) -> MergedSettings {
        let is_named = self.flags.env_file.is_some();
        let mut merged = MergedSettings {
            env_file: self.env_file(),
            ..MergedSettings::default()
        };
        let text = match &self.proposed {
            Some(text) => Ok(text.as_ref().to_owned()),
            None => read::text(&merged.env_file),
        };
        let said = merged.read_env_file(text, is_named);
        for variable in env::table() {
            let setting = self.chosen(variable, &said, &mut merged);
            merged.settings.push(setting);
        }
        for name in env::retired_names() {
            if self.environment.value(name).is_some() && !said.contains_key(name) {
                merged.warn_retired(name, Origin::Environment);
            }
        }
        merged
    }

    /// The environment file, whether or not it exists.
    pub fn env_file(&self) -> PathBuf {
        let named = self.flags.env_file.as_deref();
        self.root.join(named.unwrap_or(Path::new(DEFAULT_ENV_FILE)))
    }

    /// The text that the environment has for a variable; none where it is no text. It may be a secret.
    pub fn environment_text(&self, name: &str) -> Option<String> {
        let found = self.in_environment(env::variable(name)?)?;
        found.to_str().map(str::to_owned)
    }

    fn in_environment(&self, variable: &Variable) -> Option<&OsStr> {
        lower_case(variable)
            .and_then(|lower| self.environment.value(&lower))
            .or_else(|| self.environment.value(variable.name))
    }

    fn chosen(
        &self,
        variable: &'static Variable,
        file: &BTreeMap<String, InFile>,
        merged: &mut MergedSettings,
    ) -> Setting {
        let name = variable.name;
        let lower = lower_case(variable);
        let from_file = lower
            .as_ref()
            .and_then(|lower| file.get(lower))
            .or_else(|| file.get(name))
            .filter(|found| !found.value.is_empty());
        let from_environment = self.in_environment(variable);
        let from_flag = self
            .flags
            .value(name)
            .filter(|(_, value)| !value.is_empty());

        let setting = |text: &str, origin| Setting {
            variable,
            origin,
            text: Some(text.to_owned()),
        };
        let winner = match (from_flag, from_environment) {
            (Some((flag, value)), _) => Some(setting(value, Origin::Flag(flag))),
            (None, Some(value)) => match value.to_str() {
                Some(value) => {
                    merged.remark_quoting(name, value);
                    Some(setting(value, Origin::Environment))
                }
                None => {
                    let bad = InvalidValue::because("is not UTF-8");
                    let setting = Setting {
                        variable,
                        origin: Origin::Environment,
                        text: None,
                    };
                    merged.faults.push(ConfigError::of(&setting, bad));
                    None
                }
            },
            (None, None) => None,
        };
        let Some(found) = from_file else {
            return winner.unwrap_or_else(|| Setting {
                variable,
                origin: Origin::Default,
                text: Some(variable.default)
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned),
            });
        };
        let origin = merged.at(found.line);
        if READ_ELSEWHERE.contains(&name) {
            let message = "has no effect in a file; set it in the environment of the process, \
                           or use UPSTREAM_CA_FILE";
            merged.warn(name, origin.clone(), message);
        }
        match winner {
            Some(winner) => {
                let text = winner.text.as_deref().unwrap_or_default();
                if !self.is_same(name, text, &found.value) {
                    let message = format!("has no effect; it is overridden ({})", winner.origin);
                    merged.warn(name, origin, message);
                }
                winner
            }
            None => setting(&found.value, origin),
        }
    }
}

impl ConfigSource {
    /// True if two texts of a variable mean the same: as texts, or as paths from the root on, as `init` writes them.
    fn is_same(&self, name: &str, one: &str, other: &str) -> bool {
        let is_path = name.ends_with("_FILE") || name.ends_with("_DIR");
        let whole = |path: &str| path::absolute(self.root.join(path)).ok();
        one == other || (is_path && whole(one).is_some_and(|it| whole(other) == Some(it)))
    }
}

/// The lower-case name of an outbound proxy, on which programs agree before the upper-case one.
fn lower_case(variable: &Variable) -> Option<String> {
    (variable.section == env::Section::Proxies).then(|| variable.name.to_ascii_lowercase())
}

/// A value of the environment file.
struct InFile {
    value: String,
    line: usize,
}

impl MergedSettings {
    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings
            .iter()
            .find(|setting| setting.variable.name == name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.setting(name)?.text.as_deref()
    }

    fn at(&self, line: usize) -> Origin {
        Origin::File {
            path: self.env_file.clone(),
            line: Some(line),
        }
    }

    /// Notes a warning.
    pub(super) fn warn(&mut self, name: &str, origin: Origin, message: impl Into<String>) {
        self.warnings.push(Warning::of(name, origin, message));
    }

    fn warn_retired(&mut self, name: &str, origin: Origin) {
        if let Some(why) = env::retired(name) {
            self.warn(name, origin, why);
        }
    }

    /// Reads the environment file; the last of two lines for one name counts.
    fn read_env_file(
        &mut self,
        text: Result<String, read::ReadError>,
        named: bool,
    ) -> BTreeMap<String, InFile> {
        let mut said = BTreeMap::new();
        let text = match text {
            Ok(text) => text,
            Err(read::ReadError::Missing) if !named => {
                self.env_facts.is_missing = true;
                return said;
            }
            Err(error) => {
                let origin = Origin::File {
                    path: self.env_file.clone(),
                    line: None,
                };
                let expected = "a readable text file of KEY=VALUE lines";
                self.faults.push(ConfigError {
                    fix: named.then(|| "create it, or leave out --env-file".to_owned()),
                    ..ConfigError::at(origin, error.to_string(), expected)
                });
                return said;
            }
        };
        let (entries, bad_lines) = envfile::parse(&text);
        self.env_facts.is_whole = text.ends_with('\n');
        for bad in bad_lines {
            let expected = "KEY=VALUE, or a comment that begins with #";
            let fault = ConfigError::at(self.at(bad.line), bad.problem, expected);
            self.faults.push(fault);
        }
        for entry in entries {
            let origin = self.at(entry.line);
            self.remark_name(&entry.key, origin.clone());
            self.remark_comment(&entry);
            let found = InFile {
                value: entry.value,
                line: entry.line,
            };
            if let Some(InFile { line, .. }) = said.insert(entry.key.clone(), found) {
                let message = format!("duplicate of line {line}; this value wins");
                self.warn(&entry.key, origin, message);
            }
        }
        let (cleared, set): (Vec<_>, Vec<_>) =
            said.iter().partition(|(_, found)| found.value.is_empty());
        self.env_facts.settings = set.len();
        self.env_facts.cleared = cleared.into_iter().map(|(name, _)| name.clone()).collect();
        said
    }

    /// Warns of a `#` that begins a comment where it was probably meant as a part of the value. The comment may be
    /// a secret, and is not shown.
    fn remark_comment(&mut self, entry: &EnvEntry) {
        let name = &entry.key;
        let message = match entry.remark {
            Some(CommentStart::AtOnce) => format!(
                "has no value, since the # after {name}= begins a comment; put a value that begins with # in quotes: \
                 {name}='#…'"
            ),
            Some(CommentStart::AtWord) if FREE_TEXTS.contains(&&**name) => {
                "ends before the #, which begins a comment; if it belongs to the value, put the whole value in \
                 quotes"
                    .to_owned()
            }
            Some(CommentStart::AtWord) | None => return,
        };
        self.warn(name, self.at(entry.line), message);
    }

    /// Warns of what `docker run --env-file` leaves in a value, where our own file and a shell take it
    /// for quoting.
    fn remark_quoting(&mut self, name: &str, value: &str) {
        let is_quoted = |quote: char| {
            let inner = value.strip_prefix(quote);
            inner.is_some_and(|inner| inner.ends_with(quote))
        };
        let mut warn = |message: &str| self.warn(name, Origin::Environment, message);
        if is_quoted('"') || is_quoted('\'') {
            warn(
                "has quotes around it, which are part of the value: `docker run --env-file` keeps \
                 them; remove them there",
            );
        }
        if name == "SYSTEM_PROMPT_REPLACEMENT" && value.contains("\\n") {
            warn(
                "has a backslash and an n, which stay two characters: `docker run --env-file` knows no \
                 line breaks; set it in env/.env, in double quotes",
            );
        }
    }

    /// Warns of a name in our own file that is not in the table.
    fn remark_name(&mut self, name: &str, origin: Origin) {
        let is_proxy = |variable: &Variable| variable.section == env::Section::Proxies;
        let upper = name.to_ascii_uppercase();
        let lower_case_proxy =
            name == upper.to_ascii_lowercase() && env::variable(&upper).is_some_and(is_proxy);
        if env::variable(name).is_some() || lower_case_proxy {
            return;
        }
        if env::retired(name).is_some() {
            return self.warn_retired(name, origin);
        }
        let (message, fix) = match (env::other_name(name), env::nearest(name)) {
            (Some(other), _) => {
                let remedy = other.remedy();
                let message = format!("is unknown here and has no effect; {remedy}");
                (message, format!("{remedy}, and remove {name}"))
            }
            (None, Some(nearest)) => (
                format!("is unknown and has no effect; did you mean {nearest}?"),
                format!("rename it to {nearest}, or remove it"),
            ),
            (None, None) => (
                "is unknown and has no effect".to_owned(),
                format!("remove {name}, or correct its name: .env.example lists every variable"),
            ),
        };
        let warning = Warning::of(name, origin, message);
        self.warnings.push(warning.with_fix(fix));
    }
}

const DEFAULT_ENV_FILE: &str = "env/.env";

/// Variables whose values are texts of people, in which a `#` may stand.
const FREE_TEXTS: &[&str] = &["LIMITS_CONTACT", "SYSTEM_PROMPT_REPLACEMENT"];

/// Variables that a library reads from the environment of the process.
const READ_ELSEWHERE: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use super::super::{Environment, Flags};
    use super::*;

    fn source(
        flags: Flags,
        environment: &[(&str, &str)],
        file: &str,
    ) -> (ConfigSource, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        fs::write(dir.path().join("env/.env"), file).unwrap();
        let source =
            ConfigSource::new(flags, environment.iter().copied().collect()).rooted(dir.path());
        (source, dir)
    }

    fn setting(source: &ConfigSource, name: &str) -> (Option<String>, String) {
        let merged = source.merge();
        let setting = merged.setting(name).unwrap();
        let origin = match &setting.origin {
            Origin::File {
                line: Some(line), ..
            } => format!("line {line}"),
            other => other.to_string(),
        };
        (setting.text.clone(), origin)
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let port = |flag: Option<&str>, environment: &[(&str, &str)], file: &str| {
            let flags = Flags {
                port: flag.map(str::to_owned),
                ..Flags::default()
            };
            let (text, origin) = setting(&source(flags, environment, file).0, "PORT");
            (text.unwrap(), origin)
        };
        let is = |text: &str, origin: &str| (text.to_owned(), origin.to_owned());
        let environment = [("PORT", "2")];
        assert_eq!(
            port(Some("1"), &environment, "PORT=3"),
            is("1", "flag --port")
        );
        assert_eq!(port(None, &environment, "PORT=3"), is("2", "environment"));
        assert_eq!(port(None, &[], "\nPORT=3"), is("3", "line 2"));
        assert_eq!(port(None, &[], ""), is("8088", "default"));
        // Empty means unset.
        assert_eq!(
            port(Some(""), &environment, "PORT=3"),
            is("2", "environment")
        );
        assert_eq!(port(None, &[("PORT", "")], "PORT=3"), is("3", "line 1"));
        assert_eq!(
            port(None, &[("PORT", "")], "PORT=\nPORT="),
            is("8088", "default")
        );
        assert_eq!(port(None, &[], "PORT=3\nPORT=4"), is("4", "line 2"));
    }

    #[test]
    fn proxies_are_known_in_lower_case_too() {
        let (source, _dir) = source(
            Flags::default(),
            &[
                ("https_proxy", "http://a:1"),
                ("HTTPS_PROXY", "http://b:2"),
                ("port", "1"),
            ],
            "all_proxy=socks5://c:3\n",
        );
        assert_eq!(setting(&source, "HTTPS_PROXY").0.unwrap(), "http://a:1");
        assert_eq!(setting(&source, "ALL_PROXY").0.unwrap(), "socks5://c:3");
        assert_eq!(setting(&source, "PORT").1, "default");
        assert_eq!(source.merge().warnings, []);
    }

    #[test]
    fn a_value_that_a_comment_took_is_remarked_without_it() {
        let file = "LIMITS_CONTACT=#canary\nPORT=8088 #why\nHOST= # why\nDATA_DIR= #\n";
        let (source, _dir) = source(Flags::default(), &[], file);
        let warnings = source.merge().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let said = warnings[0].to_string();
        assert!(
            said.contains("env/.env line 1") && said.contains("LIMITS_CONTACT='#…'"),
            "{said}"
        );
        assert!(!said.contains("canary"), "{said}");
        let file = "LIMITS_CONTACT=Ask in #canary\nSYSTEM_PROMPT_REPLACEMENT=a # b\n";
        let (source, _dir) = self::source(Flags::default(), &[], file);
        let warnings = source.merge().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].message.contains("in quotes"), "{warnings:?}");
        let file = "LIMITS_CONTACT='#a' # b\nSYSTEM_PROMPT_REPLACEMENT=\"x #y\"\n";
        let (source, _dir) = self::source(Flags::default(), &[], file);
        assert_eq!(source.merge().warnings, []);
    }

    #[test]
    fn near_misses_in_the_file_are_hinted_at_and_foreign_names_elsewhere_are_not() {
        let (source, _dir) = source(
            Flags::default(),
            &[("API_BASE_ULR", "x"), ("PATH", "/bin")],
            "API_BASE_ULR=x\nport=1\nUPSTREAM_TIMEOUTS=1\nMY_OWN=1\n",
        );
        let warnings: Vec<_> = source
            .merge()
            .warnings
            .iter()
            .map(|w| w.message.clone())
            .collect();
        assert_eq!(
            warnings,
            [
                "is unknown and has no effect; did you mean API_BASE_URL?",
                "is unknown and has no effect; did you mean PORT?",
                "is unknown and has no effect; did you mean UPSTREAM_TIMEOUT?",
                "is unknown and has no effect",
            ]
        );
    }

    #[test]
    fn names_of_the_old_service_get_one_line_wherever_they_stand() {
        let (source, _dir) = source(
            Flags::default(),
            &[("ENABLE_RELOAD", "true"), ("FALLBACK_PORT", "1")],
            "FALLBACK_PORT=8089\nLOG_STORAGE_PATH=canary\nLOG_PERSISTENCE_ENABLED=true\n",
        );
        let merged = source.merge();
        let names: Vec<_> = merged
            .warnings
            .iter()
            .map(|w| w.variable.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "FALLBACK_PORT",
                "LOG_STORAGE_PATH",
                "LOG_PERSISTENCE_ENABLED",
                "ENABLE_RELOAD"
            ]
        );
        assert!(merged.faults.is_empty());
        assert!(!format!("{:?}", merged.warnings).contains("canary"));
    }

    #[test]
    fn overridden_and_doubled_lines_are_remarked() {
        let (source, _dir) = source(
            Flags::default(),
            &[("PORT", "1"), ("HOST", "::1")],
            "PORT=2\nHOST=::1\nWORKERS=1\nWORKERS=2\nSSL_CERT_FILE=/x\n",
        );
        let warnings: Vec<_> = source
            .merge()
            .warnings
            .iter()
            .map(|w| format!("{}: {}", w.variable, w.message))
            .collect();
        assert_eq!(warnings[0], "WORKERS: duplicate of line 3; this value wins");
        assert_eq!(
            warnings[1],
            "PORT: has no effect; it is overridden (environment)"
        );
        assert!(warnings[2].starts_with("SSL_CERT_FILE: has no effect in a file"));
        assert_eq!(warnings.len(), 3);
    }

    #[test]
    fn a_path_that_leads_to_the_same_file_is_no_other_value() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        fs::create_dir(dir.path().join("env")).unwrap();
        let file = format!("DATA_DIR={data}\nUPSTREAM_CA_FILE=/other/ca.pem\n");
        fs::write(dir.path().join("env/.env"), file).unwrap();
        let environment = [("DATA_DIR", "data"), ("UPSTREAM_CA_FILE", "ca.pem")];
        let environment: Environment = environment.iter().copied().collect();
        let source = ConfigSource::new(Flags::default(), environment).rooted(dir.path());
        let warnings = source.merge().warnings;
        let named: Vec<_> = warnings.iter().map(|it| it.variable.as_str()).collect();
        assert_eq!(named, ["UPSTREAM_CA_FILE"]);
    }

    #[test]
    fn quoting_that_docker_leaves_in_a_value_is_remarked_without_the_value() {
        let environment = [
            ("UPSTREAM_API_KEYS", "\"sk-canary\""),
            ("SYSTEM_PROMPT_REPLACEMENT", "'canary\\ncanary'"),
            ("API_BASE_URL", "http://a/\"b\""),
            ("DASHBOARD_API_KEY", "\""),
        ];
        let (source, _dir) = source(Flags::default(), &environment, "");
        let warnings = source.merge().warnings;
        let named: Vec<_> = warnings.iter().map(|it| it.variable.as_str()).collect();
        assert_eq!(
            named,
            [
                "UPSTREAM_API_KEYS",
                "SYSTEM_PROMPT_REPLACEMENT",
                "SYSTEM_PROMPT_REPLACEMENT"
            ]
        );
        assert!(!format!("{warnings:?}").contains("canary"));
        // in our own file both are quoting
        let file = "SYSTEM_PROMPT_REPLACEMENT=\"a\\nb\"\n";
        let (source, _dir) = self::source(Flags::default(), &[], file);
        assert_eq!(source.merge().warnings, []);
    }

    #[test]
    fn a_missing_env_file_matters_only_where_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = |env_file: Option<&str>| {
            let flags = Flags {
                env_file: env_file.map(PathBuf::from),
                ..Flags::default()
            };
            ConfigSource::new(flags, Environment::default()).rooted(dir.path())
        };
        assert_eq!(source(None).merge().faults, []);
        let faults = source(Some("other")).merge().faults;
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0]
                .to_string()
                .contains("other: does not exist; expected")
        );
        // What Docker makes of a bind mount whose source is missing.
        fs::create_dir_all(dir.path().join("env/.env")).unwrap();
        let faults = source(None).merge().faults;
        assert!(
            faults[0].to_string().contains("is a directory"),
            "{}",
            faults[0]
        );
    }

    #[test]
    fn the_files_are_known_whatever_is_at_fault() {
        let (source, dir) = source(Flags::default(), &[], "PORT=x\nHEADERS_FILE=h.json\n");
        assert_eq!(
            source.files(),
            [dir.path().join("env/.env"), dir.path().join("h.json")]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_a_fault() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![0xff]);
        let environment = [("HOST", odd.clone()), ("FOREIGN", odd)]
            .into_iter()
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let faults = ConfigSource::new(Flags::default(), environment)
            .rooted(dir.path())
            .merge()
            .faults;
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].variable.as_deref(), Some("HOST"));
    }
}
