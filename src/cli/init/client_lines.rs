//! The lines that a client needs: for shells, for Claude Code's settings, and for a helper that gives the key.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::wire::origin::is_loopback_host;

/// Credential that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientCredential {
    /// A key of the proxy.
    Key(String),
    /// A key of the proxy beside a credential of the client's own.
    KeyBeside(String),
    /// The client's own for the upstream.
    Own,
    /// Any: the proxy adds the upstream's.
    Any,
}

/// The exception that a client needs where this environment has an outbound proxy: Claude Code follows it for
/// `http://` and this machine, too. The name of the variable, and the list that there is with the host in it.
pub(super) fn exception(
    host: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let of = |name: &'static str| {
        let value = variable(name).filter(|it| !it.trim().is_empty())?;
        Some((name, value))
    };
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"]
        .into_iter()
        .find_map(of)?;
    let (name, had) = of("no_proxy")
        .or_else(|| of("NO_PROXY"))
        .unwrap_or(("NO_PROXY", String::new()));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let wanted = match is_loopback_host(host) {
        true if bare != "127.0.0.1" && bare != "localhost" => vec![bare, "127.0.0.1", "localhost"],
        true => vec!["127.0.0.1", "localhost"],
        false => vec![bare],
    };
    let entries = || had.split([',', ' ']).filter(|it| !it.is_empty());
    if entries().any(|it| it == "*" || it == bare) {
        return None;
    }
    let missing = wanted
        .into_iter()
        .filter(|it| !entries().any(|entry| entry == *it));
    let list: Vec<&str> = entries().chain(missing).collect();
    Some((name, list.join(",")))
}

/// The lines for a proxy at this address, with an [`exception`] from an outbound proxy. `status` is the command of a
/// status line.
pub(super) fn lines(
    base: &str,
    credential: &ClientCredential,
    exception: Option<(&'static str, String)>,
    status: Option<&str>,
) -> String {
    let mut pairs = vec![("ANTHROPIC_BASE_URL", base.to_owned())];
    pairs.extend(exception);
    let without_key = pairs.len();
    let key = match credential {
        ClientCredential::Key(key) => {
            pairs.push(("ANTHROPIC_AUTH_TOKEN", key.clone()));
            Some(key)
        }
        ClientCredential::KeyBeside(key) => {
            pairs.push(("ANTHROPIC_CUSTOM_HEADERS", format!("x-proxy-key: {key}")));
            None
        }
        ClientCredential::Own => None,
        ClientCredential::Any => {
            pairs.push(("ANTHROPIC_AUTH_TOKEN", "unused".to_owned()));
            None
        }
    };
    let mut out = String::new();
    let shell = |form: fn(&str, &str) -> String| -> String {
        let lines = pairs.iter().map(|(name, value)| form(name, value));
        lines.map(|line| format!("  {line}\n")).collect()
    };
    let _ = write!(
        out,
        "bash, zsh:\n{}",
        shell(|name, value| format!("export {name}='{value}'"))
    );
    let _ = write!(
        out,
        "fish:\n{}",
        shell(|name, value| format!("set -gx {name} '{value}'"))
    );
    let _ = write!(
        out,
        "PowerShell:\n{}",
        shell(|name, value| format!("$env:{name} = '{value}'"))
    );
    // one object for the whole file, so that nothing has to be put together by hand
    let settings = |pairs: &[(&str, String)], more: Option<(&str, &str)>| {
        let env: serde_json::Map<_, _> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
            .collect();
        let mut settings = json!({ "env": env });
        if let Some((name, value)) = more {
            settings[name] = value.into();
        }
        if let Some(command) = status {
            settings["statusLine"] = json!({ "type": "command", "command": command });
        }
        indented(&settings)
    };
    let _ = write!(out, "~/.claude/settings.json:\n{}", settings(&pairs, None));
    if let Some(key) = key {
        let helper = "cat ~/.config/anthropic-proxy/key";
        let _ = write!(
            out,
            "or with the key in a file of its own (apiKeyHelper):\n\
             \x20 mkdir -p ~/.config/anthropic-proxy && (umask 077; echo '{key}' > ~/.config/anthropic-proxy/key)\n{}",
            settings(&pairs[..without_key], Some(("apiKeyHelper", helper)))
        );
    }
    if status.is_some() {
        out += "statusLine shows cost, cache hits and budget; its command is for this machine.\n";
    }
    if *credential == ClientCredential::Own {
        out += "Each client sends the credential that the upstream gave it: ANTHROPIC_AUTH_TOKEN, \
                ANTHROPIC_API_KEY, or\nits sign-in.\n";
    }
    out
}

fn indented(json: &Value) -> String {
    let text = serde_json::to_string_pretty(json).unwrap_or_default();
    let lines = text.lines().map(|line| format!("  {line}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "http://127.0.0.1:8088";

    #[test]
    fn each_shell_and_the_settings_have_their_form() {
        let status = "p statusline --data-dir /d";
        let lines = lines(
            BASE,
            &ClientCredential::Key("ap_x".to_owned()),
            Some(("NO_PROXY", "a,127.0.0.1".to_owned())),
            Some(status),
        );
        for line in [
            "export ANTHROPIC_BASE_URL='http://127.0.0.1:8088'",
            "export NO_PROXY='a,127.0.0.1'",
            "key\",\n    \"env\": {\n      \"ANTHROPIC_BASE_URL\": \"http://127.0.0.1:8088\",\n      \
             \"NO_PROXY\": \"a,127.0.0.1\"\n    }",
            "export ANTHROPIC_AUTH_TOKEN='ap_x'",
            "set -gx ANTHROPIC_AUTH_TOKEN 'ap_x'",
            "$env:ANTHROPIC_AUTH_TOKEN = 'ap_x'",
            "\"ANTHROPIC_AUTH_TOKEN\": \"ap_x\"",
            "\"apiKeyHelper\": \"cat ~/.config/anthropic-proxy/key\"",
            "\"command\": \"p statusline --data-dir /d\"",
        ] {
            assert!(lines.contains(line), "{line}: {lines}");
        }
    }

    #[test]
    fn each_form_of_the_settings_is_one_object() {
        let key = ClientCredential::Key("ap_x".to_owned());
        let lines = lines(BASE, &key, None, Some("p statusline --data-dir /d"));
        let files: Vec<Value> = lines
            .split("\n  {\n")
            .skip(1)
            .map(|rest| {
                let (object, _) = rest.split_once("\n  }\n").unwrap();
                serde_json::from_str(&format!("{{{object}}}")).unwrap()
            })
            .collect();
        let [with_key, with_helper] = files.as_slice() else {
            panic!("{lines}");
        };
        for file in [with_key, with_helper] {
            assert_eq!(file["env"]["ANTHROPIC_BASE_URL"], BASE, "{lines}");
            let command = &file["statusLine"]["command"];
            assert_eq!(command, "p statusline --data-dir /d", "{lines}");
        }
        assert_eq!(with_key["env"]["ANTHROPIC_AUTH_TOKEN"], "ap_x", "{lines}");
        assert!(with_helper["apiKeyHelper"].is_string(), "{lines}");
    }

    #[test]
    fn behind_a_proxy_the_host_is_added_to_the_exceptions() {
        let of = |host: &str, set: &[(&str, &str)]| {
            exception(host, &|name| {
                let found = set.iter().find(|it| it.0 == name);
                found.map(|it| it.1.to_owned())
            })
        };
        let proxy = ("HTTPS_PROXY", "http://p:1");
        let added = |name, list: &str| Some((name, list.to_owned()));
        let here = "127.0.0.1";
        assert_eq!(of(here, &[]), None);
        assert_eq!(of(here, &[("NO_PROXY", "a"), ("ALL_PROXY", "x")]), None);
        assert_eq!(of(here, &[proxy]), added("NO_PROXY", "127.0.0.1,localhost"));
        let had = ("NO_PROXY", "a, .b");
        assert_eq!(
            of(here, &[proxy, had]),
            added("NO_PROXY", "a,.b,127.0.0.1,localhost")
        );
        let lower = ("no_proxy", "localhost");
        assert_eq!(
            of(here, &[proxy, had, lower]),
            added("no_proxy", "localhost,127.0.0.1")
        );
        assert_eq!(
            of("host", &[("http_proxy", "p")]),
            added("NO_PROXY", "host")
        );
        assert_eq!(
            of("[::1]", &[proxy]),
            added("NO_PROXY", "::1,127.0.0.1,localhost")
        );
        for list in ["127.0.0.1", "*"] {
            assert_eq!(of(here, &[proxy, ("NO_PROXY", list)]), None, "{list}");
        }
    }

    #[test]
    fn a_client_with_a_credential_of_its_own_sends_the_key_beside_it() {
        let beside = lines(
            BASE,
            &ClientCredential::KeyBeside("ap_x".to_owned()),
            None,
            None,
        );
        assert!(
            beside.contains("export ANTHROPIC_CUSTOM_HEADERS='x-proxy-key: ap_x'"),
            "{beside}"
        );
        assert!(
            !beside.contains("AUTH_TOKEN") && !beside.contains("apiKeyHelper"),
            "{beside}"
        );
        let own = lines(BASE, &ClientCredential::Own, None, None);
        assert!(!own.contains("export ANTHROPIC_AUTH_TOKEN"), "{own}");
    }
}
