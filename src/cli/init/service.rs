//! A unit of systemd, and a file of compose, for the settings that were written.
//!
//! Both are the ones that the repository ships, with the paths of this machine in them.

use std::path::{Path, PathBuf};

use super::{
    answers::{Answers, CredentialPlace},
    owner::FileOwner,
};

const UNIT: &str = include_str!("../../../static/systemd/anthropic-proxy.service");
const COMPOSE: &str = include_str!("../../../compose.yaml");

/// Paths that the service needs.
pub(super) struct ServicePaths {
    /// The program.
    pub(super) program: PathBuf,
    /// The folder that relative paths are in.
    pub(super) folder: PathBuf,
    /// The environment file.
    pub(super) env_file: PathBuf,
}

/// The unit of systemd.
pub(super) fn unit(paths: &ServicePaths, answers: &Answers, user: &str, name: &str) -> String {
    let ServicePaths {
        program,
        folder,
        env_file,
    } = paths;
    let mut out = format!(
        "# anthropic-proxy as a service of systemd, written by `anthropic-proxy init`.\n#\n\
         #     sudo install -m 0644 {name} /etc/systemd/system/anthropic-proxy.service\n\
         #     sudo systemctl daemon-reload && sudo systemctl enable --now anthropic-proxy.service\n\n"
    );
    let begin = UNIT.find("[Unit]").unwrap_or_default();
    let data_dir = answers.data_dir.as_deref().map(|it| folder.join(it));
    let is_home = |path: &Path| {
        ["/home", "/root", "/run/user"]
            .iter()
            .any(|it| path.starts_with(it))
    };
    let needs_home = is_home(program) || is_home(folder) || is_home(env_file);
    for line in UNIT[begin..].lines() {
        match line.split_once('=') {
            Some(("User", _)) => {
                out += match user {
                    "root" => {
                        "# the settings are root's; for another user, give them and DATA_DIR to it (chown)\n"
                    }
                    _ => "# the owner of the settings, who alone can read them\n",
                };
                out += &format!("User={user}\n");
            }
            Some(("ExecStart", _)) => {
                out += &format!("WorkingDirectory={}\n", literal(folder));
                out += &format!(
                    "ExecStart={} --env-file {}\n",
                    word(program),
                    word(env_file)
                );
                if answers.credential == CredentialPlace::Environment {
                    out += "# UPSTREAM_API_KEYS=… stands in this file, which root alone reads (chmod 600)\n\
                            EnvironmentFile=/etc/anthropic-proxy/credential\n";
                }
            }
            Some(("Environment" | "StateDirectory" | "StateDirectoryMode", _)) => {}
            Some(("ProtectHome", _)) if needs_home => out += "ProtectHome=read-only\n",
            Some(("ProtectSystem", _)) => {
                out += &format!("{line}\n");
                // the file of settings is changed beside itself
                let folder = env_file.parent().unwrap_or(env_file);
                let data_dir = data_dir.iter().map(PathBuf::as_path);
                for path in [folder].into_iter().chain(data_dir) {
                    out += &format!("ReadWritePaths={}\n", word(path));
                }
            }
            Some(("CapabilityBoundingSet", _)) if answers.port != 0 && answers.port < 1024 => {
                out += "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n";
            }
            _ => out += &format!("{line}\n"),
        }
    }
    out
}

/// The file of compose.
pub(super) fn compose(
    paths: &ServicePaths,
    answers: &Answers,
    owner: FileOwner,
    name: &str,
) -> String {
    let ServicePaths {
        folder, env_file, ..
    } = paths;
    let env_folder = env_file.parent().unwrap_or(Path::new("."));
    let env_name = env_file.file_name().unwrap_or_default().to_string_lossy();
    let mut out = format!(
        "# anthropic-proxy in a container, written by `anthropic-proxy init`. The image is the one that\n\
         # `docker build -t anthropic-proxy:latest .` makes in the repository.\n#\n\
         #     docker compose -f {name} up -d\n"
    );
    let begin = COMPOSE.find("services:").unwrap_or_default();
    let is_any = |host: &str| matches!(host, "0.0.0.0" | "::" | "[::]");
    let published = match is_any(&answers.host) {
        true => format!("{0}:{0}", answers.port),
        false => format!("{1}:{0}:{0}", answers.port, bracketed(&answers.host)),
    };
    for line in COMPOSE[begin..].lines() {
        let bare = line.trim_start();
        if bare.starts_with("build:") || bare.starts_with("# On this machine only") {
            continue;
        }
        if bare.starts_with("- \"${PUBLISH") {
            out += &format!("      - \"{published}\"\n");
        } else if bare.starts_with("PORT:") {
            out += &format!("      PORT: \"{}\"\n", answers.port);
            if answers.data_dir.is_some() {
                out += "      DATA_DIR: /data\n";
            }
            if answers.credential == CredentialPlace::Environment {
                out += "      UPSTREAM_API_KEYS: \"${UPSTREAM_API_KEYS:?the credential for the upstream}\"\n";
            }
        } else if bare.starts_with("# inside the container") {
            out += "      # inside of the container; what is published is said above\n";
        } else if bare.starts_with("- ./env:/env") {
            out += &mount(env_folder, "/env:ro");
            if let Some(data_dir) = &answers.data_dir {
                out += &mount(&folder.join(data_dir), "/data");
            }
            let pair = answers.tls.iter().flat_map(|(one, other)| [one, other]);
            let shell = answers.shell.iter().chain(&answers.typed);
            let named = shell.filter(|it| it.name.ends_with("_FILE"));
            for path in pair.chain(named.map(|it| &it.value)) {
                let path = folder.join(path);
                let target = format!("{}:ro", path.display().to_string().replace('$', "$$"));
                out += &mount(&path, &target);
            }
        } else if bare.starts_with("user:") {
            out += &format!("    user: \"{}:{}\"\n", owner.0, owner.1);
            if env_name != ".env" {
                out += &format!("    command: [\"--env-file\", \"/env/{env_name}\"]\n");
            }
        } else if bare.starts_with("# The files must be readable") {
            out += "    # the owner of the files\n";
        } else {
            out += &format!("{line}\n");
        }
    }
    out
}

/// A mount of compose: in quotes where YAML reads it otherwise, and without variables.
fn mount(source: &Path, target: &str) -> String {
    let source = source.display().to_string().replace('$', "$$");
    let mount = format!("{source}:{target}");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@".contains(c);
    match mount.chars().all(is_plain) {
        true => format!("      - {mount}\n"),
        // a string of JSON is one of YAML
        false => format!("      - {}\n", serde_json::Value::from(mount)),
    }
}

/// A path as systemd takes it, without specifiers.
fn literal(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

/// The same as one word of several.
fn word(path: &Path) -> String {
    let literal = literal(path);
    match literal.contains([' ', '\t', '"', '\'', '\\', ';']) {
        true => format!("\"{}\"", literal.replace('\\', "\\\\").replace('"', "\\\"")),
        false => literal,
    }
}

fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::shell::ShellVariable, *};

    fn answers() -> Answers {
        Answers {
            upstreams: "https://api.anthropic.com".to_owned(),
            credential: CredentialPlace::Environment,
            host: "0.0.0.0".to_owned(),
            port: 443,
            tls: Some(("c.pem".to_owned(), "/k.pem".to_owned())),
            has_keys: true,
            data_dir: Some("data".to_owned()),
            has_dashboard: true,
            shared: None,
            typed: Vec::new(),
            shell: vec![ShellVariable {
                name: "UPSTREAM_CA_FILE",
                value: "/corp/ca.pem".to_owned(),
            }],
        }
    }

    fn paths() -> ServicePaths {
        ServicePaths {
            program: "/usr/local/bin/anthropic-proxy".into(),
            folder: "/srv/proxy".into(),
            env_file: "/srv/proxy/env/.env".into(),
        }
    }

    #[test]
    fn the_unit_has_the_paths_of_this_machine() {
        let unit = unit(&paths(), &answers(), "ada", "x.service");
        for line in [
            "User=ada",
            "WorkingDirectory=/srv/proxy",
            "ExecStart=/usr/local/bin/anthropic-proxy --env-file /srv/proxy/env/.env",
            "ReadWritePaths=/srv/proxy/env",
            "ReadWritePaths=/srv/proxy/data",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "EnvironmentFile=/etc/anthropic-proxy/credential",
            "ProtectHome=yes",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}: {unit}");
        }
        assert!(!unit.contains("StateDirectory") && !unit.contains("\nEnvironment=DATA_DIR"));
        let home = ServicePaths {
            folder: "/home/ada".into(),
            ..paths()
        };
        assert!(super::unit(&home, &answers(), "ada", "x").contains("ProtectHome=read-only"));
    }

    #[test]
    fn paths_are_quoted_where_they_must_be() {
        let odd = ServicePaths {
            folder: "/srv/a 100%".into(),
            env_file: "/srv/a 100%/.env".into(),
            ..paths()
        };
        let unit = unit(&odd, &answers(), "root", "x.service");
        for line in [
            "WorkingDirectory=/srv/a 100%%",
            "ExecStart=/usr/local/bin/anthropic-proxy --env-file \"/srv/a 100%%/.env\"",
            "ReadWritePaths=\"/srv/a 100%%/data\"",
            "User=root",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}: {unit}");
        }
        assert!(unit.contains("# the settings are root's"), "{unit}");
        assert_eq!(mount(Path::new("/a $b"), "/c"), "      - \"/a $$b:/c\"\n");
    }

    #[test]
    fn compose_mounts_what_the_settings_name() {
        let compose = compose(&paths(), &answers(), (1000, 1001), "compose.yaml");
        for line in [
            "      - \"443:443\"",
            "      PORT: \"443\"",
            "      DATA_DIR: /data",
            "      - /srv/proxy/env:/env:ro",
            "      - /srv/proxy/data:/data",
            "      - /srv/proxy/c.pem:/srv/proxy/c.pem:ro",
            "      - /k.pem:/k.pem:ro",
            "      - /corp/ca.pem:/corp/ca.pem:ro",
            "    user: \"1000:1001\"",
        ] {
            assert!(compose.lines().any(|it| it == line), "{line}: {compose}");
        }
        assert!(
            !compose.contains("build:") && !compose.contains("PUBLISH"),
            "{compose}"
        );
        let local = Answers {
            host: "127.0.0.1".to_owned(),
            port: 8088,
            ..answers()
        };
        let compose = super::compose(&paths(), &local, (0, 0), "c");
        assert!(compose.contains("\"127.0.0.1:8088:8088\""), "{compose}");
    }
}
