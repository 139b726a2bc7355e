//! Settings of this shell by which the tests of `init` reach upstream and shared store. A server that starts
//! elsewhere would lack them, so they go into the file, unless the operator wants to set them there as well.

use std::path::{self, Path};

use super::{
    earlier::Earlier,
    error::InitError,
    flags::InitFlags,
    interview::{AnswerSource, Interview},
};
use crate::{
    cli::output::remark,
    config::{
        ConfigSource, Scheme, Upstream,
        env::{self, Section},
        envdiff, route,
    },
};

/// A variable of this shell. Its value may have a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ShellVariable {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// Its value there.
    pub(super) value: String,
}

impl ShellVariable {
    /// The variable of the environment as it is; none where it is not set.
    fn of(source: &ConfigSource, name: &'static str) -> Option<Self> {
        let value = source.environment_text(name)?;
        let is_path = name.ends_with("_FILE");
        Some(Self {
            name,
            value: if is_path { absolute(&value) } else { value },
        })
    }

    /// Reports that its value has a login.
    pub(super) fn has_login(&self) -> bool {
        let is_url = env::variable(self.name).is_some_and(|it| it.section == Section::Proxies);
        is_url && self.value.contains('@')
    }

    /// Name and value as they may be shown.
    fn shown(&self) -> String {
        format!(
            "{}={}",
            self.name,
            envdiff::shown_value(self.name, &self.value)
        )
    }
}

/// The variables by which these upstreams are reached from here.
pub(super) fn of_upstreams(source: &ConfigSource, urls: &str) -> Vec<ShellVariable> {
    let upstreams: Vec<Upstream> = urls.split(',').flat_map(str::parse).collect();
    let lookup = |name: &str| match env::variable(name) {
        Some(_) => source.environment_text(name),
        // the lower-case names are looked up with the others
        None => None,
    };
    let mut names = Vec::new();
    for upstream in &upstreams {
        if let Some((name, _)) = route::deciding(upstream, &lookup) {
            names.extend([name, "NO_PROXY"]);
        }
        if upstream.scheme == Scheme::Https {
            names.push("UPSTREAM_CA_FILE");
        }
        names.push("UPSTREAM_HTTP_VERSION");
    }
    let mut found = Vec::<ShellVariable>::new();
    for name in names {
        if !found.iter().any(|it| it.name == name) {
            found.extend(ShellVariable::of(source, name));
        }
    }
    let is_tls = |upstream: &Upstream| upstream.scheme == Scheme::Https;
    if upstreams.iter().any(is_tls) && !found.iter().any(|it| it.name == "UPSTREAM_CA_FILE") {
        found.extend(of_library(source));
    }
    found
}

/// The certificates that the TLS library takes from this shell, under the name that a file can have. The system's
/// own are found without it.
fn of_library(source: &ConfigSource) -> Option<ShellVariable> {
    let value = absolute(&source.environment_text("SSL_CERT_FILE")?);
    let is_of_system =
        ["/etc/ssl", "/etc/pki", "/usr/share"].map(|it| Path::new(&value).starts_with(it));
    (!is_of_system.contains(&true)).then_some(ShellVariable {
        name: "UPSTREAM_CA_FILE",
        value,
    })
}

/// The variables by which the shared store is reached from here, beside its URL.
pub(super) fn of_store(source: &ConfigSource) -> Vec<ShellVariable> {
    let names = env::table().iter().map(|variable| variable.name);
    let names = names.filter(|name| name.starts_with("STATE_") && *name != "STATE_URL");
    names
        .filter_map(|name| ShellVariable::of(source, name))
        .collect()
}

/// The variables that go into the file: those that the answers need and that it has not yet.
pub(super) fn to_write(
    interview: &Interview,
    flags: &InitFlags,
    source: &ConfigSource,
    earlier: &Earlier,
    (upstreams, has_store): (&str, bool),
) -> Result<Vec<ShellVariable>, InitError> {
    let mut found = of_upstreams(source, upstreams);
    if has_store {
        found.extend(of_store(source));
    }
    found.retain(|it| earlier.value(it.name) != Some(&*it.value));
    let Some(shown) = shown(&found) else {
        return Ok(found);
    };
    let is_written = match (flags.shell_settings.as_deref(), interview.source) {
        (Some(choice), _) => choice == "write",
        (None, AnswerSource::Terminal) => interview.confirm(
            &format!("This shell reaches them by {shown}. Write that into the file?"),
            Some("no: it is set where the server starts, too"),
            true,
        )?,
        (None, AnswerSource::Defaults | AnswerSource::Flags) => true,
    };
    if !is_written {
        remark(&format!(
            "{shown} of this shell is not written: set it where the server starts, or it does not reach them."
        ));
        found.clear();
    }
    Ok(found)
}

/// The variables as they may be shown, in a line; none where there are none.
pub(super) fn shown(variables: &[ShellVariable]) -> Option<String> {
    let shown: Vec<String> = variables.iter().map(ShellVariable::shown).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// A path from the root on, be there a file or not.
pub(super) fn absolute(path: &str) -> String {
    match path::absolute(path) {
        Ok(path) => path.display().to_string(),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};

    fn shell(variables: &[(&str, &str)]) -> ConfigSource {
        let environment: Environment = variables.iter().copied().collect();
        ConfigSource::new(Flags::default(), environment)
    }

    fn names(variables: &[(&str, &str)], urls: &str) -> Vec<String> {
        let found = of_upstreams(&shell(variables), urls);
        found.iter().map(ShellVariable::shown).collect()
    }

    #[test]
    fn only_what_leads_to_the_upstreams_is_taken_and_no_password_is_shown() {
        let all = [
            ("https_proxy", "http://u:canary@p:1"),
            ("HTTP_PROXY", "http://p:2"),
            ("ALL_PROXY", "http://p:3"),
            ("NO_PROXY", "direct.test"),
            ("UPSTREAM_CA_FILE", "/ca.pem"),
            ("SSL_CERT_FILE", "/corp.pem"),
            ("PORT", "1"),
        ];
        assert_eq!(
            names(&all, "https://api.test"),
            [
                "HTTPS_PROXY=http://***@p:1",
                "NO_PROXY=direct.test",
                "UPSTREAM_CA_FILE=/ca.pem"
            ]
        );
        assert_eq!(
            names(&all, "http://api.test"),
            ["HTTP_PROXY=http://p:2", "NO_PROXY=direct.test"]
        );
        assert_eq!(
            names(&all, "https://direct.test"),
            ["UPSTREAM_CA_FILE=/ca.pem"]
        );
        assert_eq!(names(&[("PORT", "1")], "https://api.test"), [""; 0]);
        let found = of_upstreams(&shell(&all), "https://api.test");
        assert!(found[0].has_login() && !found[1].has_login());
        assert!(found[0].value.contains("canary"));
    }

    #[test]
    fn certificates_of_the_library_are_named_as_a_file_can_name_them() {
        let of = |path: &str| names(&[("SSL_CERT_FILE", path)], "https://api.test");
        assert_eq!(of("/corp/ca.pem"), ["UPSTREAM_CA_FILE=/corp/ca.pem"]);
        assert_eq!(of("/etc/ssl/certs/ca-certificates.crt"), [""; 0]);
        assert_eq!(
            names(&[("SSL_CERT_FILE", "/ca")], "http://api.test"),
            [""; 0]
        );
    }

    #[test]
    fn a_relative_path_becomes_one_from_the_root() {
        let found = of_store(&shell(&[
            ("STATE_URL", "redis://h"),
            ("STATE_CA_FILE", "ca.pem"),
            ("STATE_PREFIX", "x"),
        ]));
        let here = std::env::current_dir().unwrap();
        let pairs: Vec<_> = found.iter().map(|it| (it.name, &*it.value)).collect();
        let ca = here.join("ca.pem").display().to_string();
        assert_eq!(pairs, [("STATE_CA_FILE", &*ca), ("STATE_PREFIX", "x")]);
    }
}
