//! The settings of Claude Code on this machine, and its credential's limits.
//!
//! The variables of `env` in its settings files replace those of the shell; of several files, the managed one
//! counts, then those of the project (local, shared), then the user's. A file that is no JSON is ignored without a
//! word. A key goes out as `x-api-key`, a token as `Authorization`, both if both are set; the value of
//! `apiKeyHelper` takes the place of what is missing. (Measured with Claude Code 2.1.332.)

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    check::{Check, CheckGroup},
    examination::Examination,
    exchange::{Inquiry, Question},
    run::bounded,
    upstream::UpstreamPlace,
};
use crate::config::{Credential, Upstream, envdiff};

const GROUP: CheckGroup = CheckGroup::Client;

/// Places of a client's settings.
pub struct ClientPlaces<'a> {
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Home directory of the user.
    pub home: Option<PathBuf>,
    /// The working directory.
    pub project: PathBuf,
    /// The file that an administrator manages.
    pub managed: PathBuf,
}

/// Settings of a client as they are in effect, with the checks of them.
pub struct ClientSetup {
    /// Base URL, if one is set that can be used.
    pub base_url: Option<Upstream>,
    /// Credential that it sends.
    pub credential: Option<Credential>,
    /// Secrets among the settings.
    pub secrets: Vec<String>,
    /// Further authorities that it trusts (`NODE_EXTRA_CA_CERTS`).
    pub ca_file: Option<PathBuf>,
    /// Variables of outbound proxies, as they count for it.
    pub proxies: Vec<(String, String)>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// A settings file.
struct SettingsFile {
    path: PathBuf,
    content: Value,
}

/// A value, and the place that it is from.
#[derive(Clone)]
struct ClientValue {
    text: String,
    origin: String,
}

/// Providers that take no base URL of Anthropic's.
const PROVIDERS: [&str; 3] = [
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
];

/// Variables of outbound proxies, the one that counts first. It follows them for `http://` and `https://` alike, and
/// ignores `ALL_PROXY`.
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Variables that are shown as they are.
const PLAIN: [&str; 8] = [
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "API_TIMEOUT_MS",
    "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "CLAUDE_CODE_USE_GATEWAY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
];

/// Finds the settings in effect.
pub fn client_setup(places: &ClientPlaces<'_>) -> ClientSetup {
    let mut checks = Vec::new();
    let files = settings_files(places, &mut checks);
    let value = |name: &str| -> Option<ClientValue> {
        let of_files = files.iter().find_map(|file| {
            let text = match &file.content["env"][name] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            let origin = file.path.display().to_string();
            Some(ClientValue { text, origin })
        });
        let of_shell = || {
            let text = (places.variable)(name)?;
            let origin = "environment".to_owned();
            Some(ClientValue { text, origin })
        };
        of_files
            .or_else(of_shell)
            .filter(|value| !value.text.trim().is_empty())
    };
    let helper = files.iter().find_map(|file| {
        let text = file.content["apiKeyHelper"].as_str()?.to_owned();
        let origin = file.path.display().to_string();
        Some(ClientValue { text, origin })
    });
    let base_url = base_url(&value, &mut checks);
    let (token, key) = (value("ANTHROPIC_AUTH_TOKEN"), value("ANTHROPIC_API_KEY"));
    checks.push(credentials(token.as_ref(), key.as_ref(), helper.as_ref()));
    let mut further: Vec<_> = PLAIN
        .iter()
        .filter_map(|name| {
            let ClientValue { text, origin } = value(name)?;
            Some(format!("{name}={} ({origin})", line(&text)))
        })
        .collect();
    let first = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, value(name)?)));
    let mut proxies = Vec::new();
    if let Some((name, proxy)) = first(&PROXIES) {
        let shown = line(&envdiff::shown_value("HTTPS_PROXY", &proxy.text));
        further.push(format!("{name}={shown} ({})", proxy.origin));
        proxies.extend(["http_proxy", "https_proxy"].map(|it| (it.to_owned(), proxy.text.clone())));
    }
    let exceptions = first(&EXCEPTIONS).map(|(_, list)| ("no_proxy".to_owned(), list.text));
    proxies.extend(exceptions);
    if !further.is_empty() {
        let found = format!("also set: {}", further.join(", "));
        let mut used = Check::ok(GROUP, "variables", found);
        used.evidence = further;
        checks.push(used);
    }
    let ca_file = value("NODE_EXTRA_CA_CERTS").map(|value| PathBuf::from(value.text.trim()));
    if let Some(path) = &ca_file
        && let Err(error) = fs::File::open(path)
    {
        checks.push(Check::fail(
            GROUP,
            "authorities",
            format!("NODE_EXTRA_CA_CERTS: {} cannot be read: {error}", path.display()),
            "correct the path: Claude Code goes on without it, and fails at certificates of its authorities",
        ));
    }
    let credential = token
        .as_ref()
        .and_then(|token| format!("Bearer {}", token.text.trim()).parse().ok())
        .or_else(|| key.as_ref().and_then(|key| key.text.trim().parse().ok()));
    ClientSetup {
        base_url,
        credential,
        secrets: [token, key]
            .into_iter()
            .flatten()
            .map(|value| value.text)
            .collect(),
        ca_file: ca_file.filter(|path| path.exists()),
        proxies,
        checks,
    }
}

/// A text without control characters, cut where it is long.
fn line(text: &str) -> String {
    text.chars()
        .filter(|it| !it.is_control())
        .take(120)
        .collect()
}

/// The settings files that can be read, the one that counts first.
fn settings_files(places: &ClientPlaces<'_>, checks: &mut Vec<Check>) -> Vec<SettingsFile> {
    let own = (places.variable)("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let own = own.or_else(|| Some(places.home.as_ref()?.join(".claude")));
    let project = places.project.join(".claude");
    let mut paths = vec![
        places.managed.clone(),
        project.join("settings.local.json"),
        project.join("settings.json"),
    ];
    paths.extend(own.map(|own| own.join("settings.json")));
    let mut files: Vec<SettingsFile> = Vec::new();
    for path in paths {
        if files.iter().any(|file| file.path == path) {
            continue;
        }
        match read(&path) {
            Ok(Some(content)) => {
                let found = format!("{} is in effect", path.display());
                checks.push(Check::ok(GROUP, "settings_file", found));
                files.push(SettingsFile { path, content });
            }
            Ok(None) => {}
            Err(why) => {
                let found = format!("{} {why}: Claude Code ignores all of it", path.display());
                let fix = "correct the file (python3 -m json.tool FILE names the place)";
                checks.push(Check::fail(GROUP, "settings_file", found, fix));
            }
        }
    }
    files
}

fn read(path: &Path) -> Result<Option<Value>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(content) if content.is_object() => Ok(Some(content)),
        Ok(_) => Err("is no JSON object".to_owned()),
        // the error's own text may repeat a value
        Err(error) => Err(format!("is no JSON (line {})", error.line())),
    }
}

fn base_url(
    value: &dyn Fn(&str) -> Option<ClientValue>,
    checks: &mut Vec<Check>,
) -> Option<Upstream> {
    const ID: &str = "base_url";
    let is_set =
        |name: &&str| value(name).is_some_and(|value| !["0", "false"].contains(&&*value.text));
    if let Some(provider) = PROVIDERS.iter().find(|name| is_set(name)) {
        checks.push(Check::fail(
            GROUP,
            ID,
            format!("{provider} is set: ANTHROPIC_BASE_URL is not used"),
            format!("unset {provider}"),
        ));
    }
    let Some(found) = value("ANTHROPIC_BASE_URL") else {
        checks.push(Check::fail(
            GROUP,
            ID,
            "ANTHROPIC_BASE_URL is not set: Claude Code talks to api.anthropic.com, past the proxy",
            "set ANTHROPIC_BASE_URL=http://HOST:8088 (export, or `env` in ~/.claude/settings.json), or run \
             `doctor --url URL`",
        ));
        return None;
    };
    let text = found.text.trim();
    match text.parse::<Upstream>() {
        Ok(url) if url.prefix.ends_with("/v1") => {
            checks.push(Check::fail(
                GROUP,
                ID,
                format!(
                    "{url} ({}) ends with /v1: requests go to /v1/v1/messages",
                    found.origin
                ),
                "remove /v1 from ANTHROPIC_BASE_URL",
            ));
            Some(url)
        }
        Ok(url) => {
            checks.push(Check::ok(GROUP, ID, format!("{url} ({})", found.origin)));
            Some(url)
        }
        Err(error) => {
            checks.push(Check::fail(
                GROUP,
                ID,
                format!("ANTHROPIC_BASE_URL ({}): {error}", found.origin),
                "set it to http:// or https://, a host, and a port if it is not 80 or 443",
            ));
            None
        }
    }
}

fn credentials(
    token: Option<&ClientValue>,
    key: Option<&ClientValue>,
    helper: Option<&ClientValue>,
) -> Check {
    const ID: &str = "credential";
    let spoiled = |value: &&ClientValue| {
        let text = value.text.trim();
        text.contains(char::is_whitespace) || text.starts_with(['"', '\''])
    };
    if let Some(value) = [token, key].into_iter().flatten().find(spoiled) {
        return Check::fail(
            GROUP,
            ID,
            format!(
                "the credential from {} has white space or quotes in it",
                value.origin
            ),
            "set it to the key alone, without `Bearer`, quotes or a line break",
        );
    }
    match (token, key, helper) {
        (Some(token), Some(key), _) if token.text.trim() != key.text.trim() => Check::warn(
            GROUP,
            ID,
            format!(
                "two different credentials go out: ANTHROPIC_AUTH_TOKEN ({}) and ANTHROPIC_API_KEY ({})",
                token.origin, key.origin
            ),
            "unset one of them: which one counts is the server's choice",
        ),
        (Some(token), _, None) => Check::ok(
            GROUP,
            ID,
            format!("ANTHROPIC_AUTH_TOKEN ({})", token.origin),
        ),
        (None, Some(key), None) => {
            Check::ok(GROUP, ID, format!("ANTHROPIC_API_KEY ({})", key.origin))
        }
        (None, None, Some(helper)) => Check::ok(
            GROUP,
            ID,
            format!(
                "apiKeyHelper ({}); it is not run here: `doctor --key-env VARIABLE` takes a key",
                helper.origin
            ),
        ),
        (_, _, Some(helper)) => Check::warn(
            GROUP,
            ID,
            format!(
                "a credential of a variable and that of apiKeyHelper ({}) go out together",
                helper.origin
            ),
            "unset the variable, or remove apiKeyHelper",
        ),
        (None, None, None) => Check::warn(
            GROUP,
            ID,
            "no credential is set: Claude Code sends the one of its login, if there is one",
            "set ANTHROPIC_AUTH_TOKEN to the key that the proxy's operator gave you",
        ),
    }
}

/// The limits of the credential, as the server tells them. Where the way there fails, no credential is sent on it.
pub async fn client_limits(
    place: &UpstreamPlace<'_>,
    asked: &Examination,
    is_reached: bool,
) -> Check {
    const ID: &str = "limits";
    let inquiry = Inquiry {
        door: place.door,
        live: place.live,
        endpoint: place.endpoint,
        credential: asked.credential.as_ref(),
    };
    if !is_reached {
        return Check::skip(GROUP, ID, "not tried: requests do not get there");
    }
    if asked.credential.is_none() {
        return Check::skip(GROUP, ID, "not tried: there is no credential");
    }
    let question = Question {
        target: "/api/oauth/usage",
        ..Question::default()
    };
    let (answer, took) = bounded(inquiry.ask(&question)).await;
    let check = match answer {
        Some(Ok(answer)) if answer.status == 200 => limits(&answer.json()),
        Some(Ok(answer)) => Check::skip(
            GROUP,
            ID,
            format!("the server tells none (it answers {})", answer.status),
        ),
        Some(Err(none)) => Check::skip(GROUP, ID, format!("not known: {}", none.why)),
        None => Check::skip(GROUP, ID, "not known: no answer within 5 s"),
    };
    check.took(took)
}

fn limits(usage: &Value) -> Check {
    const ID: &str = "limits";
    let lines: Vec<(f64, String)> = usage["limits"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|limit| {
            let percent = limit["percent"].as_f64()?;
            let text = |name: &str| line(limit[name].as_str().unwrap_or("?"));
            let (kind, group, resets) = (text("kind"), text("group"), text("resets_at"));
            Some((
                percent,
                format!("{kind} {group}: {percent:.0} % used, resets {resets}"),
            ))
        })
        .collect();
    let most = lines
        .iter()
        .map(|(percent, _)| *percent)
        .fold(0.0, f64::max);
    let found = match lines.len() {
        0 => "the credential has no limits that are told".to_owned(),
        _ => format!("the fullest limit is used by {most:.0} %"),
    };
    let fix = "wait until it resets, or ask the proxy's operator for more";
    let mut check = match most {
        _ if most >= 100.0 => Check::fail(GROUP, ID, found, fix),
        _ if most >= 90.0 => Check::warn(GROUP, ID, found, fix),
        _ => Check::ok(GROUP, ID, found),
    };
    check.evidence = lines.into_iter().map(|(_, line)| line).collect();
    check
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::CheckStatus;
    use super::*;

    /// A machine with these variables and files below its home.
    fn setup(variables: &[(&str, &str)], files: &[(&str, &str)]) -> ClientSetup {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        client_setup(&ClientPlaces {
            variable: &|name| {
                let mut variables = variables.iter();
                variables.find(|it| it.0 == name).map(|it| it.1.to_owned())
            },
            home: Some(dir.path().join("home")),
            project: dir.path().join("project"),
            managed: dir.path().join("managed.json"),
        })
    }

    fn check<'a>(setup: &'a ClientSetup, id: &str) -> &'a Check {
        setup.checks.iter().find(|check| check.id == id).unwrap()
    }

    const SHELL: (&str, &str) = ("ANTHROPIC_BASE_URL", "http://shell:1");

    #[test]
    fn settings_files_count_before_the_shell_in_their_order() {
        let with =
            |host: &str| format!("{{\"env\":{{\"ANTHROPIC_BASE_URL\":\"http://{host}:1\"}}}}");
        let (user, shared, local, managed) =
            (with("user"), with("shared"), with("local"), with("managed"));
        let files = [
            ("home/.claude/settings.json", &*user),
            ("project/.claude/settings.json", &*shared),
            ("project/.claude/settings.local.json", &*local),
            ("managed.json", &*managed),
        ];
        for (count, host) in ["shell", "user", "shared", "local", "managed"]
            .iter()
            .enumerate()
        {
            let found = setup(&[SHELL], &files[..count]);
            assert_eq!(found.base_url.unwrap().host, *host);
        }
    }

    #[test]
    fn proxies_count_for_both_schemes_and_all_proxy_for_none() {
        let proxies = |variables: &[(&str, &str)], files: &[(&str, &str)]| {
            let found = setup(variables, files);
            assert!(!format!("{:?}", found.checks).contains("canary"));
            found.proxies
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let both = |value: &str| pairs(&[("http_proxy", value), ("https_proxy", value)]);
        let https = ("HTTPS_PROXY", "http://u:canary@s:1");
        let http = ("HTTP_PROXY", "http://h:1");
        assert_eq!(proxies(&[http, https], &[]), both(https.1));
        assert_eq!(proxies(&[http], &[]), both(http.1));
        assert_eq!(proxies(&[("ALL_PROXY", "http://a:1")], &[]), pairs(&[]));
        let mut excepted = both(https.1);
        excepted.extend(pairs(&[("no_proxy", "h")]));
        assert_eq!(proxies(&[https, ("NO_PROXY", "h")], &[]), excepted);
        let file = [(
            "home/.claude/settings.json",
            "{\"env\":{\"HTTPS_PROXY\":\"http://f:1\"}}",
        )];
        assert_eq!(proxies(&[https], &file), both("http://f:1"));
    }

    #[test]
    fn each_fault_of_the_base_url_is_found() {
        let status = |variables: &[(&str, &str)]| check(&setup(variables, &[]), "base_url").status;
        assert_eq!(status(&[SHELL]), CheckStatus::Ok);
        assert_eq!(status(&[]), CheckStatus::Fail);
        assert_eq!(
            status(&[("ANTHROPIC_BASE_URL", "host:8088")]),
            CheckStatus::Fail
        );
        assert_eq!(
            status(&[("ANTHROPIC_BASE_URL", "http://h/v1/")]),
            CheckStatus::Fail
        );
        assert_eq!(
            status(&[SHELL, ("CLAUDE_CODE_USE_BEDROCK", "1")]),
            CheckStatus::Fail
        );
        assert_eq!(
            status(&[SHELL, ("CLAUDE_CODE_USE_BEDROCK", "0")]),
            CheckStatus::Ok
        );
    }

    #[test]
    fn credentials_that_conflict_are_found_and_never_shown() {
        let helper = [(
            "home/.claude/settings.json",
            r#"{"apiKeyHelper":"echo canary"}"#,
        )];
        let (token, key) = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY");
        for (variables, files, expected) in [
            (vec![], &[][..], CheckStatus::Warn),
            (vec![(token, "canary-1")], &[], CheckStatus::Ok),
            (vec![(key, "canary-1")], &[], CheckStatus::Ok),
            (
                vec![(key, "canary-1"), (token, "canary-1")],
                &[],
                CheckStatus::Ok,
            ),
            (
                vec![(key, "canary-1"), (token, "canary-2")],
                &[],
                CheckStatus::Warn,
            ),
            (vec![(token, "Bearer canary")], &[], CheckStatus::Fail),
            (vec![(token, "\"canary\"")], &[], CheckStatus::Fail),
            (vec![], &helper[..], CheckStatus::Ok),
            (vec![(key, "canary-1")], &helper[..], CheckStatus::Warn),
        ] {
            let found = setup(&variables, files);
            assert_eq!(
                check(&found, "credential").status,
                expected,
                "{variables:?}"
            );
            assert!(
                !format!("{:?}", found.checks).contains("canary"),
                "{:?}",
                found.checks
            );
        }
        let found = setup(&[(token, "canary-1"), (key, "other")], &[]);
        assert_eq!(found.credential.unwrap().name, "authorization");
    }

    #[test]
    fn a_settings_file_that_is_no_json_fails_and_is_not_repeated() {
        let files = [("home/.claude/settings.json", "{\"env\": {\"X\": canary}}")];
        let found = setup(&[SHELL], &files);
        assert_eq!(check(&found, "settings_file").status, CheckStatus::Fail);
        assert!(!format!("{:?}", found.checks).contains("canary"));
        let found = setup(&[SHELL, ("NODE_EXTRA_CA_CERTS", "/no/such/file.pem")], &[]);
        assert_eq!(check(&found, "authorities").status, CheckStatus::Fail);
        assert!(found.ca_file.is_none());
    }

    #[test]
    fn a_limit_that_is_used_up_fails() {
        let of = |percent: u64| {
            let limit =
                json!({"kind": "spend", "group": "monthly", "percent": percent, "resets_at": "x"});
            limits(&json!({"limits": [limit]})).status
        };
        assert_eq!(of(10), CheckStatus::Ok);
        assert_eq!(of(95), CheckStatus::Warn);
        assert_eq!(of(100), CheckStatus::Fail);
        assert_eq!(limits(&json!({})).status, CheckStatus::Ok);
    }
}
