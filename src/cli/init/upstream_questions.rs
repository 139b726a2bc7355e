//! The questions about upstreams and their credentials, and the test of both.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use super::{
    answers::{Answers, CredentialPlace},
    earlier::Earlier,
    error::InitError,
    flags::InitFlags,
    interview::{AnswerSource, Interview, Question},
    probe::{self, ProbeAnswer},
    shell::{self, ShellVariable},
};
use crate::{
    cli::output::remark,
    config::{
        ConfigSource, Credential, Upstream,
        envtext::{self, values},
    },
};

/// Asks the upstreams of the answers, by the way that the file and this shell give. No other setting of this shell
/// has a part in it: the server may start elsewhere.
pub(super) fn test(answers: &Answers, source: &ConfigSource, before: &str) -> Result<(), String> {
    let has_nul = |name: &str| format!("{name}: the value has a NUL character");
    let text = answers.text(before).map_err(has_nul)?;
    // what stands at the listeners is asked about later
    let mut lines: Vec<(String, String)> = values(&text);
    lines.retain(|(name, _)| {
        [
            "API_BASE_URL",
            "API_BASE_URLS",
            "UPSTREAM_API_KEYS",
            "UPSTREAM_CA_FILE",
            "UPSTREAM_HTTP_VERSION",
        ]
        .contains(&name.as_str())
            || name.to_ascii_lowercase().ends_with("_proxy")
    });
    let mut text = String::new();
    for (name, value) in lines {
        text = envtext::with_value(&text, &name, &value).unwrap_or(text);
    }
    for ShellVariable { name, value } in shell::of_upstreams(source, &answers.upstreams) {
        text = envtext::with_value(&text, name, &value).map_err(|_| has_nul(name))?;
    }
    // one of the server's environment may not be set in this one
    const OWN: &str = "UPSTREAM_API_KEYS";
    let (environment, has_own): (&[&str], bool) = match answers.credential {
        CredentialPlace::Clients => (&[], false),
        CredentialPlace::Environment => (&[OWN], source.environment_text(OWN).is_some()),
        CredentialPlace::File(_) | CredentialPlace::Kept => (&[], true),
    };
    let proposed = source.keeping(environment).proposing(&text);
    for (
        name,
        ProbeAnswer {
            status,
            took,
            is_listed,
            stranger,
        },
    ) in probe::upstreams(&proposed)?
    {
        let took = took.as_millis();
        if let Some(stranger) = stranger.filter(|_| status < 500) {
            return Err(format!(
                "{name} is not the API: {stranger}; correct the URL: its host and its path (without /v1); if that is \
                 a page to sign in or of a firewall, have requests of this machine pass without it (a key sent there \
                 is given away)"
            ));
        }
        match status {
            401 | 403 if has_own => {
                return Err(format!(
                    "{name} refuses the credential (status {status}); check that it is whole, not revoked, and of this \
                     upstream"
                ));
            }
            200..=299 if is_listed => remark(&format!(
                "{name} answered in {took} ms{}.",
                if has_own {
                    ", and takes the credential"
                } else {
                    ""
                }
            )),
            401 | 403 => remark(&format!(
                "{name} answered in {took} ms: it is there, and wants a credential."
            )),
            500.. => {
                return Err(format!(
                    "{name} answered with status {status}; it is there, but does not work now"
                ));
            }
            _ => remark(&format!(
                "{name} answered in {took} ms with status {status}: it is there, and lists no models."
            )),
        }
    }
    Ok(())
}

/// URLs of upstreams, separated by commas.
pub(super) fn urls(
    interview: &mut Interview,
    flags: &InitFlags,
    source: &ConfigSource,
    earlier: &Earlier,
) -> Result<String, InitError> {
    let question = Question {
        flag: "--upstream URL",
        text: "URL of the upstream",
        help: Some("several: separated by commas, the preferred one first"),
    };
    let here = |name| source.environment_text(name);
    let had = |name| earlier.value(name).map(str::to_owned);
    let named = match (had("API_BASE_URL"), had("API_BASE_URLS")) {
        (None, None) => (here("API_BASE_URL"), here("API_BASE_URLS")),
        both => both,
    };
    let default = match named {
        (Some(one), Some(several)) => format!("{one},{several}"),
        (Some(urls), None) | (None, Some(urls)) => urls,
        (None, None) => "https://api.anthropic.com".to_owned(),
    };
    let answer = interview.text(
        question,
        flags.upstream.as_deref(),
        Some(&default),
        match flags.upstream {
            Some(_) => are_urls,
            None => |text| are_urls(&completed(text)),
        },
    )?;
    let answer = answer.unwrap_or(default).replace(' ', "");
    if flags.upstream.is_some() {
        return Ok(answer);
    }
    let whole = completed(&answer);
    if whole != answer {
        remark(&format!("Taken as {whole}."));
    }
    Ok(whole)
}

/// URLs as a person types them, with `https://` before a host that has no scheme.
fn completed(text: &str) -> String {
    let whole = |url: &str| match url.trim() {
        url if url.is_empty() || url.contains("://") => url.to_owned(),
        url => format!("https://{url}"),
    };
    text.split(',').map(whole).collect::<Vec<_>>().join(",")
}

fn are_urls(text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|url| {
        let parsed: Result<Upstream, _> = url.parse();
        parsed.map(drop).map_err(|error| error.to_string())
    })
}

/// Place of the credential for them, with the credential if it is typed.
pub(super) fn credential(
    interview: &mut Interview,
    flags: &InitFlags,
    upstreams: &str,
    is_kept: bool,
) -> Result<CredentialPlace, InitError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Place {
        Clients,
        Environment,
        File,
        Kept,
    }
    let given = match (flags.credential.as_deref(), &flags.credential_file) {
        (Some("clients"), None) => Some(Place::Clients),
        (Some("environment"), None) => Some(Place::Environment),
        (Some("file") | None, Some(_)) => Some(Place::File),
        (Some("file"), None) if is_kept && interview.source != AnswerSource::Terminal => {
            Some(Place::Kept)
        }
        (Some("file"), None) => Some(Place::File),
        (None, None) => None,
        (Some(_), _) => {
            return Err(InitError::Usage(
                "--credential-file goes with --credential file alone".to_owned(),
            ));
        }
    };
    let has_variable = std::env::var_os("UPSTREAM_API_KEYS").is_some_and(|it| !it.is_empty());
    let mut options = vec![
        ("each client sends its own", Place::Clients),
        (
            "the proxy adds one: I type it now, and it is kept in the file (mode 0600)",
            Place::File,
        ),
        (
            "the proxy adds one: UPSTREAM_API_KEYS in the environment of the server",
            Place::Environment,
        ),
    ];
    if is_kept {
        options.push((
            "the proxy adds the one that is in the file already",
            Place::Kept,
        ));
    }
    let question = Question {
        flag: "--credential clients, environment or file (with --credential-file PATH)",
        text: "Credential for the upstream",
        help: Some("with one of the proxy's, clients need none of the upstream"),
    };
    let preferred = match (is_kept, has_variable) {
        (true, _) => Place::Kept,
        (false, true) => Place::Environment,
        (false, false) => Place::Clients,
    };
    let default = options.iter().position(|(_, place)| *place == preferred);
    let chosen = interview.choice(question, given, &options, default.unwrap_or_default())?;
    Ok(match chosen.unwrap_or(Place::Clients) {
        Place::Clients => CredentialPlace::Clients,
        Place::Kept => CredentialPlace::Kept,
        Place::Environment => {
            if !has_variable {
                remark(
                    "UPSTREAM_API_KEYS is not set here: it is not tested; set it where the server starts.",
                );
            }
            CredentialPlace::Environment
        }
        Place::File => CredentialPlace::File(secrets(
            interview,
            flags.credential_file.as_deref(),
            upstreams,
        )?),
    })
}

/// The credentials, one for each upstream: from a file, or typed unseen.
fn secrets(
    interview: &mut Interview,
    file: Option<&Path>,
    upstreams: &str,
) -> Result<Vec<String>, InitError> {
    let urls: Vec<&str> = upstreams.split(',').collect();
    let secrets = match (file, interview.source) {
        (Some(file), _) => secrets_of(file)?,
        (None, AnswerSource::Terminal) => {
            let mut secrets = Vec::new();
            for url in &urls {
                // as it is shown everywhere: some have a key in their path
                let shown = url
                    .parse::<Upstream>()
                    .map_or_else(|_| String::new(), |it| it.to_string());
                secrets.push(loop {
                    let secret = interview.secret(
                        &format!("Key for {shown}"),
                        "not shown; a key for x-api-key, or Bearer and a token",
                    )?;
                    match secret.parse::<Credential>() {
                        Ok(_) => break secret,
                        Err(error) => remark(&error.to_string()),
                    }
                });
            }
            secrets
        }
        (None, AnswerSource::Defaults | AnswerSource::Flags) => {
            interview.lacks("--credential-file PATH (`-` for standard input)");
            return Ok(Vec::new());
        }
    };
    if secrets.len() != urls.len() {
        return Err(InitError::Usage(format!(
            "--credential-file: it has {} lines, not {}: one for each upstream",
            secrets.len(),
            urls.len()
        )));
    }
    for (at, secret) in secrets.iter().enumerate() {
        if secret.parse::<Credential>().is_err() || secret.contains(',') {
            return Err(InitError::Usage(format!(
                "--credential-file: line {} is neither a key nor `Bearer` and a token",
                at + 1
            )));
        }
    }
    Ok(secrets)
}

/// The first lines of a secret's file, one for each upstream.
fn secrets_of(path: &Path) -> Result<Vec<String>, InitError> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => io::stdin().lock().take(64 * 1024).read_to_string(&mut text),
        false => {
            fs::File::open(path).and_then(|file| file.take(64 * 1024).read_to_string(&mut text))
        }
    };
    read.map_err(|error| {
        InitError::Usage(format!(
            "--credential-file: {} cannot be read: {error}",
            path.display()
        ))
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}
