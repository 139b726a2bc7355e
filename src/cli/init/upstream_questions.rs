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
    interview::{AnswerCheck, AnswerSource, Interview, Question},
    probe::{self, ProbeAnswer, ProbeFault, ProbeLack},
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
///
/// # Errors
/// One cannot be used: a sentence with a remedy, and the setting that it may lack.
pub(super) fn test(
    answers: &Answers,
    source: &ConfigSource,
    before: &str,
) -> Result<(), ProbeFault> {
    for url in answers.upstreams.split(',') {
        let parsed = url.parse::<Upstream>().ok();
        if let Some(url) = parsed.filter(|it| it.prefix.ends_with("/v1")) {
            return Err(format!(
                "{url} ends with /v1, which clients append themselves: their requests would go to /v1/v1/messages; \
                 leave /v1 out"
            )
            .into());
        }
    }
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
    let of_shell = shell::of_upstreams(source, &answers.upstreams);
    let is_typed = |name: &str| answers.typed.iter().any(|it| it.name == name);
    for ShellVariable { name, value } in of_shell.into_iter().filter(|it| !is_typed(it.name)) {
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
            speaks_tls,
        },
    ) in probe::upstreams(&proposed)?
    {
        let took = took.as_millis();
        if speaks_tls {
            return Err(format!(
                "{name} answers that its port speaks TLS (status {status}): write https:// in its URL"
            )
            .into());
        }
        if let Some(stranger) = stranger.filter(|_| status < 500) {
            return Err(format!(
                "{name} is not the API: {stranger}; correct the URL: its host and its path (without /v1); if that is \
                 a page to sign in or of a firewall, have requests of this machine pass without it (a key sent there \
                 is given away)"
            )
            .into());
        }
        match status {
            401 | 403 if has_own => {
                return Err(format!(
                    "{name} refuses the credential (status {status}); check that it is whole, not revoked, and of this \
                     upstream"
                )
                .into());
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
                )
                .into());
            }
            _ => remark(&format!(
                "{name} answered in {took} ms with status {status}: it is there, and lists no models."
            )),
        }
    }
    Ok(())
}

/// Tests the upstreams; asks for the setting that a failure may lack, and whether to go on in spite of it.
pub(super) fn reaches(
    interview: &mut Interview,
    answers: &mut Answers,
    source: &ConfigSource,
    before: &str,
) -> Result<bool, InitError> {
    loop {
        let Err(fault) = test(answers, source, before) else {
            return Ok(true);
        };
        let Some(lack) = fault.lack else {
            return interview.keeps(Err(fault.text));
        };
        remark(&fault.text);
        let is_tls = answers
            .upstreams
            .split(',')
            .any(|url| url.starts_with("https"));
        let (name, question) = match lack {
            ProbeLack::CaFile => (
                "UPSTREAM_CA_FILE",
                "File with that authority's certificate in PEM, if it is to be trusted",
            ),
            ProbeLack::Proxy if is_tls => ("HTTPS_PROXY", PROXY),
            ProbeLack::Proxy => ("HTTP_PROXY", PROXY),
        };
        let question = Question {
            flag: name,
            text: question,
            help: Some("empty: none"),
        };
        let check: AnswerCheck = match lack {
            ProbeLack::CaFile => is_file_or_none,
            ProbeLack::Proxy => |_| Ok(()),
        };
        let value = interview
            .text(question, None, Some(""), check)?
            .unwrap_or_default();
        if value.is_empty() {
            return interview.confirm("Go on with it all the same?", None, false);
        }
        let value = match lack {
            ProbeLack::CaFile => shell::absolute(&value),
            ProbeLack::Proxy => value,
        };
        answers.typed.retain(|it| it.name != name);
        answers.typed.push(ShellVariable { name, value });
    }
}

const PROXY: &str = "URL of an outbound proxy, where one leads outside (http://host:port)";

fn is_file_or_none(text: &str) -> Result<(), String> {
    match text.is_empty() || Path::new(text).is_file() {
        true => Ok(()),
        false => Err("it is no file that can be read".to_owned()),
    }
}

/// The credential once more, where one that was typed is refused; none where its place is to be asked for again.
pub(super) fn typed_again(
    interview: &mut Interview,
    upstreams: &str,
) -> Result<Option<CredentialPlace>, InitError> {
    let help = "not shown; empty: another place of the credential";
    let secrets = secrets(interview, None, upstreams, help)?;
    let is_empty = secrets.iter().all(String::is_empty);
    Ok((!is_empty).then_some(CredentialPlace::File(secrets)))
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
            "not shown; a key for x-api-key, or Bearer and a token",
        )?),
    })
}

/// The credentials, one for each upstream: from a file, or typed unseen. A help that speaks of an empty answer takes
/// it, for all of them.
fn secrets(
    interview: &mut Interview,
    file: Option<&Path>,
    upstreams: &str,
    help: &str,
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
                    let secret = interview.secret(&format!("Key for {shown}"), help)?;
                    if secret.is_empty() && help.contains("empty") {
                        return Ok(Vec::new());
                    }
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
