//! The answers, and the text of the file that they make.

use super::shell::ShellVariable;
use crate::config::{env, envtext};

/// Answers to all questions.
#[derive(Clone)]
pub(super) struct Answers {
    /// URLs of upstreams, separated by commas.
    pub(super) upstreams: String,
    /// Place of the credential for them.
    pub(super) credential: CredentialPlace,
    pub(super) host: String,
    pub(super) port: u16,
    /// Certificate and private key.
    pub(super) tls: Option<(String, String)>,
    pub(super) has_keys: bool,
    pub(super) data_dir: Option<String>,
    pub(super) has_dashboard: bool,
    pub(super) shared: Option<SharedStoreAnswer>,
    /// Settings of the way to the upstreams that were typed after a test failed without them.
    pub(super) typed: Vec<ShellVariable>,
    /// Settings of this shell that go into the file.
    pub(super) shell: Vec<ShellVariable>,
}

/// Place of the credential for the upstream.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum CredentialPlace {
    /// Each client sends its own.
    Clients,
    /// The environment of the server.
    Environment,
    /// The file: one for each upstream.
    File(Vec<String>),
    /// The file, where it is already.
    Kept,
}

/// The store that replicas share.
#[derive(Clone)]
pub(super) struct SharedStoreAnswer {
    pub(super) url: String,
    pub(super) replicas: u32,
    pub(super) pepper: String,
}

impl Answers {
    /// The answers before the first question.
    pub(super) fn none() -> Self {
        Self {
            upstreams: String::new(),
            credential: CredentialPlace::Clients,
            host: "127.0.0.1".to_owned(),
            port: 8088,
            tls: None,
            has_keys: false,
            data_dir: None,
            has_dashboard: false,
            shared: None,
            typed: Vec::new(),
            shell: Vec::new(),
        }
    }

    /// The variables that the answers set; none for those that they unset.
    fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let is_one = !self.upstreams.contains(',');
        let (one, several) = match is_one {
            true => (Some(self.upstreams.clone()), None),
            false => (None, Some(self.upstreams.clone())),
        };
        let mut values = vec![("API_BASE_URL", one), ("API_BASE_URLS", several)];
        match &self.credential {
            CredentialPlace::Clients | CredentialPlace::Environment => {
                values.push(("UPSTREAM_API_KEYS", None));
            }
            CredentialPlace::File(secrets) => {
                values.push(("UPSTREAM_API_KEYS", Some(secrets.join(","))));
            }
            CredentialPlace::Kept => {}
        }
        let shell = self.shell.iter().chain(&self.typed);
        values.extend(shell.map(|it| (it.name, Some(it.value.clone()))));
        values.push(("HOST", Some(self.host.clone())));
        values.push(("PORT", Some(self.port.to_string())));
        let (certificate, key) = self.tls.clone().unzip();
        values.push(("TLS_CERT_FILE", certificate));
        values.push(("TLS_KEY_FILE", key));
        values.push(("ACCESS", self.has_keys.then(|| "required".to_owned())));
        if let Some(shared) = &self.shared {
            values.push(("ACCESS_PEPPER", Some(shared.pepper.clone())));
            values.push(("STATE_URL", Some(shared.url.clone())));
            values.push(("REPLICAS", Some(shared.replicas.to_string())));
        } else {
            values.push(("STATE_URL", None));
            values.push(("REPLICAS", None));
        }
        let dashboard = self.has_dashboard.then(|| "true".to_owned());
        values.push(("ENABLE_DASHBOARD", dashboard));
        if let Some(data_dir) = &self.data_dir {
            values.push(("DATA_DIR", Some(data_dir.clone())));
        }
        values
    }

    /// The text of the file: the one that there is with other values, or a new one.
    ///
    /// # Errors
    /// The name of a variable whose value no line can hold.
    pub(super) fn text(&self, before: &str) -> Result<String, &'static str> {
        let is_new = before.trim().is_empty();
        let mut text = match is_new {
            true => HEAD.to_owned(),
            false => before.to_owned(),
        };
        for (name, value) in self.values() {
            let Some(value) = value else {
                text = envtext::without(&text, name);
                continue;
            };
            let variable = env::variable(name);
            if is_new && let Some(variable) = variable {
                text += &format!("\n# {}\n", variable.doc.en);
            }
            text = envtext::with_value(&text, name, &value).map_err(|_| name)?;
            let has_login = |it: &ShellVariable| it.name == name && it.has_login();
            if is_new && name == "UPSTREAM_API_KEYS" {
                text +=
                    "# Every user who can read this file can spend it: keep its mode at 0600.\n";
            } else if is_new && self.shell.iter().chain(&self.typed).any(has_login) {
                text +=
                    "# Every user who can read this file has its login: keep its mode at 0600.\n";
            }
        }
        if is_new && self.credential == CredentialPlace::Environment {
            text += "\n# UPSTREAM_API_KEYS, the credential for the upstream, comes from the environment of the server.\n";
        }
        Ok(text)
    }
}

const HEAD: &str = "\
# Settings of anthropic-proxy, written by `anthropic-proxy init`. Changes are picked up while it runs;
# HOST, PORT, keys and stores need a restart. `anthropic-proxy check` shows what is in effect, and
# `anthropic-proxy config set NAME=VALUE` changes this file. docs/configuration.md has every variable.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            upstreams: "https://api.anthropic.com".to_owned(),
            ..Answers::none()
        }
    }

    #[test]
    fn a_new_file_has_what_was_answered_with_its_meaning() {
        let text = answers().text("").unwrap();
        assert_eq!(
            envtext::values(&text),
            [
                ("API_BASE_URL", "https://api.anthropic.com"),
                ("HOST", "127.0.0.1"),
                ("PORT", "8088")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(text.contains("# Port to listen on.\nPORT=8088\n"), "{text}");
        let longest = text.lines().filter(|line| line.contains('=')).count();
        assert!(longest > 3);
    }

    #[test]
    fn settings_of_the_shell_are_written_with_a_word_on_their_login() {
        let variable = |name, value: &str| ShellVariable {
            name,
            value: value.to_owned(),
        };
        let answers = Answers {
            shell: vec![
                variable("HTTPS_PROXY", "http://u:p@h:1"),
                variable("NO_PROXY", "a,b"),
            ],
            ..answers()
        };
        let text = answers.text("").unwrap();
        let login = "HTTPS_PROXY=http://u:p@h:1\n# Every user who can read this file has its login";
        assert!(
            text.contains(login) && text.contains("\nNO_PROXY=a,b\n\n"),
            "{text}"
        );
        let text = answers.text("https_proxy=http://old:1\n").unwrap();
        assert!(text.starts_with("https_proxy=http://u:p@h:1\n"), "{text}");
    }

    #[test]
    fn a_file_that_there_is_keeps_what_was_not_asked() {
        let before = "# ours\nAPI_BASE_URLS=http://a,http://b\nUPSTREAM_TIMEOUT=2m\nUPSTREAM_API_KEYS='a b,'\n";
        let kept = Answers {
            credential: CredentialPlace::Kept,
            ..answers()
        };
        let text = kept.text(before).unwrap();
        assert_eq!(
            text,
            "# ours\nUPSTREAM_TIMEOUT=2m\nUPSTREAM_API_KEYS='a b,'\nAPI_BASE_URL=https://api.anthropic.com\n\
             HOST=127.0.0.1\nPORT=8088\n"
        );
        // the same answers once more change nothing
        assert_eq!(kept.text(&text).unwrap(), text);
    }
}
