//! The checks of the configuration: what `check` says, and what the running server says of its last reload.

use super::check::{Check, CheckGroup};
use crate::config::{ConfigErrors, Loaded, Origin, Warning, reload::ConfigStatus};

const GROUP: CheckGroup = CheckGroup::Configuration;

/// Checks of a valid configuration; `also` has faults that show when it is put into effect.
pub fn valid_configuration(loaded: &Loaded, also: &[String]) -> Vec<Check> {
    let boot = &loaded.config.boot;
    let file = match boot.env_file.exists() {
        true => format!("valid, with {}", boot.env_file.display()),
        false => format!("valid; {} does not exist", boot.env_file.display()),
    };
    let mut checks = match also {
        [] => vec![Check::ok(GROUP, "settings", file)],
        faults => faults
            .iter()
            .map(|fault| {
                Check::fail(
                    GROUP,
                    "settings",
                    fault,
                    "correct it, then run anthropic-proxy check",
                )
            })
            .collect(),
    };
    checks.extend(loaded.warnings.iter().map(warned));
    checks
}

/// Checks of a configuration with faults.
pub fn invalid_configuration(errors: &ConfigErrors) -> Vec<Check> {
    let faults = errors.faults.iter().map(|fault| {
        let text = fault.to_string();
        let fix = match &fault.fix {
            Some(fix) => fix.clone(),
            None => format!("expected: {}", fault.expected),
        };
        let check = Check::fail(GROUP, "settings", text, fix);
        match &fault.variable {
            Some(variable) => check.with_evidence(variable.clone()),
            None => check,
        }
    });
    let warnings = errors.warnings.iter().map(warned);
    faults.chain(warnings).collect()
}

fn warned(warning: &Warning) -> Check {
    let fix = match (&warning.fix, &warning.origin) {
        (Some(fix), _) => fix.clone(),
        (None, Origin::Default) => format!("set {}", warning.variable),
        (None, _) => format!(
            "change or remove {}, or leave it if it is meant so",
            warning.variable
        ),
    };
    Check::warn(GROUP, "setting", warning.to_string(), fix)
}

/// Checks of the configuration of the running server.
pub fn running_configuration(status: &ConfigStatus) -> Vec<Check> {
    let mut checks = Vec::new();
    match status.reloads.back() {
        Some(reload) if !reload.faults.is_empty() => {
            checks.extend(reload.faults.iter().map(|fault| {
                let fix = "correct the file: it is read again by itself; the settings before it are in effect until then";
                Check::fail(GROUP, "reload", fault, fix)
            }));
        }
        _ => checks.push(Check::ok(
            GROUP,
            "settings",
            "those of the files are in effect",
        )),
    }
    let is_default = |name: &str| {
        let mut settings = status.settings.iter();
        settings.any(|it| it.variable.name == name && it.origin == Origin::Default)
    };
    if ["API_BASE_URL", "API_BASE_URLS"]
        .into_iter()
        .all(is_default)
    {
        let found = "no upstream is named: requests go to the default one, with the keys of clients in them";
        let fix = "set API_BASE_URL to the upstream that is meant";
        checks.push(Check::warn(GROUP, "setting", found, fix));
    }
    if !status.pending_restart.is_empty() {
        let names = status.pending_restart.join(", ");
        let found = format!("changed, and not in effect before a restart: {names}");
        let fix = "restart the server, or hand over to a new process: anthropic-proxy upgrade";
        checks.push(Check::warn(GROUP, "restart", found, fix));
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::super::check::CheckStatus;
    use super::*;
    use crate::config::{ConfigSource, Environment, Flags, reload::Reload};

    fn source(text: &str) -> (tempfile::TempDir, ConfigSource) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        fs::write(dir.path().join("env/.env"), text).unwrap();
        let source = ConfigSource::new(Flags::default(), Environment::default()).rooted(dir.path());
        (dir, source)
    }

    #[test]
    fn each_fault_is_a_check_with_its_remedy() {
        let (_dir, faulty) = source("API_BASE_URL=http://a\nUPSTREAM_TIMEOUT=soon\nPORT=x\n");
        let checks = invalid_configuration(&faulty.load().unwrap_err());
        assert_eq!(checks.len(), 2, "{checks:?}");
        for (check, name) in checks.iter().zip(["PORT", "UPSTREAM_TIMEOUT"]) {
            assert_eq!(check.status, CheckStatus::Fail);
            assert!(check.fix.is_some(), "{check:?}");
            let all: String = checks.iter().map(|check| check.detail.as_str()).collect();
            assert!(all.contains(name), "{checks:?}");
        }
    }

    #[test]
    fn the_default_upstream_is_a_warning_before_and_while_the_server_runs() {
        let (_dir, unnamed) = source("PORT=0\n");
        let loaded = unnamed.load().unwrap();
        let status = ConfigStatus {
            settings: loaded.settings.clone(),
            ..ConfigStatus::default()
        };
        for checks in [
            valid_configuration(&loaded, &[]),
            running_configuration(&status),
        ] {
            let is_it = |check: &&Check| check.detail.contains("no upstream is named");
            let check = checks.iter().find(is_it).expect("it is told");
            assert_eq!(check.status, CheckStatus::Warn);
            let fix = check.fix.as_deref().unwrap();
            assert!(fix.starts_with("set API_BASE_URL"), "{fix}");
        }
    }

    #[test]
    fn a_warning_is_one_and_no_secret_is_shown() {
        let (_dir, fine) = source("SYSTEM_PROMPT_REPLACEMENT=canary\nPORTT=1\n");
        let checks = valid_configuration(&fine.load().unwrap(), &[]);
        assert_eq!(checks[0].status, CheckStatus::Ok);
        assert!(
            checks.iter().any(|check| check.status == CheckStatus::Warn),
            "{checks:?}"
        );
        assert!(!format!("{checks:?}").contains("canary"));
        let (_dir, fine) = source("");
        let checks = valid_configuration(&fine.load().unwrap(), &["no trust".to_owned()]);
        assert_eq!(checks[0].status, CheckStatus::Fail);
    }

    #[test]
    fn a_name_of_another_program_has_the_name_here_as_remedy() {
        for (line, remedy) in [
            (
                "CUSTOM_HEADERS={\"X-Team\":\"blue\"}",
                "put the fields as a JSON object into env/.env.headers.json",
            ),
            (
                "ANTHROPIC_BASE_URL=http://a",
                "set API_BASE_URL in its place",
            ),
            ("log_level=debug", "set RUST_LOG"),
            ("PORTT=1", "rename it to PORT"),
            ("ENTIRELY_DIFFERENT=1", "remove ENTIRELY_DIFFERENT"),
        ] {
            let (_dir, source) = source(&format!("API_BASE_URL=http://a\n{line}\n"));
            let checks = valid_configuration(&source.load().unwrap(), &[]);
            let fix = checks[1].fix.as_deref().unwrap();
            assert!(fix.starts_with(remedy), "{line}: {fix}");
        }
    }

    #[test]
    fn a_reload_that_failed_fails_and_a_restart_that_waits_is_a_warning() {
        let mut status = ConfigStatus::default();
        assert_eq!(running_configuration(&status)[0].status, CheckStatus::Ok);
        status.reloads.push_back(Reload {
            at: SystemTime::now(),
            faults: vec!["PORT (env/.env line 3): …".to_owned()],
            changed: Vec::new(),
        });
        status.pending_restart.push("PORT");
        let checks = running_configuration(&status);
        let statuses: Vec<_> = checks.iter().map(|check| check.status).collect();
        assert_eq!(statuses, [CheckStatus::Fail, CheckStatus::Warn]);
    }
}
