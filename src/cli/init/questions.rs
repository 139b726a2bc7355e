//! The questions in their order, and the tests of their answers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    answers::{Answers, CredentialPlace, SharedStoreAnswer},
    earlier::Earlier,
    error::InitError,
    flags::InitFlags,
    interview::{AnswerSource, Interview, Question},
    probe, shell,
    shell::ShellVariable,
    upstream_questions,
};
use crate::{
    access::Pepper,
    cli::{limit_flags::LimitFlags, operator::operator, output::remark},
    config::{
        ConfigSource,
        envtext::{self, values},
    },
    registry::NewKey,
    state,
};

/// Further files that are asked for.
#[derive(Default)]
pub(super) struct Extras {
    /// A unit of systemd.
    pub(super) unit: Option<PathBuf>,
    /// A file of compose.
    pub(super) compose: Option<PathBuf>,
}

/// Asks all questions, and tests each answer of a person at once.
pub(super) fn ask(
    interview: &mut Interview,
    flags: &InitFlags,
    source: &ConfigSource,
    before: &str,
) -> Result<Answers, InitError> {
    let earlier = Earlier::of(before);
    let is_tested = interview.source == AnswerSource::Terminal && !flags.no_test;
    let is_kept = earlier.value("UPSTREAM_API_KEYS").is_some();
    let mut answers = Answers::none();
    loop {
        answers.upstreams = upstream_questions::urls(interview, flags, source, &earlier)?;
        answers.typed.clear();
        if !is_tested || upstream_questions::reaches(interview, &mut answers, source, before)? {
            break;
        }
        if flags.upstream.is_some() {
            return Err(InitError::Interrupted);
        }
    }
    let mut is_typed_again = false;
    loop {
        let again = match is_typed_again {
            true => upstream_questions::typed_again(interview, &answers.upstreams)?,
            false => None,
        };
        answers.credential = match again {
            Some(credential) => credential,
            None => upstream_questions::credential(interview, flags, &answers.upstreams, is_kept)?,
        };
        let needs_test = is_tested && answers.credential != CredentialPlace::Clients;
        let tested = || upstream_questions::test(&answers, source, before);
        if !needs_test || interview.keeps(tested().map_err(|fault| fault.text))? {
            break;
        }
        if flags.credential_file.is_some() {
            return Err(InitError::Interrupted);
        }
        // a key in the place of another answer would be shown
        is_typed_again = matches!(answers.credential, CredentialPlace::File(_));
    }
    address(interview, flags, &earlier, is_tested, &mut answers)?;
    let is_public = is_public(&answers.host)?;
    answers.tls = tls(interview, flags, source, &earlier, is_public)?;
    answers.has_keys = has_keys(interview, flags, &earlier, is_public)?;
    interview.wants_more = wants_more(interview, flags, &earlier)?;
    answers.shared = match interview.wants_more {
        true => shared(interview, flags, source, &earlier)?,
        false => None,
    };
    let needs = (&*answers.upstreams, answers.shared.is_some());
    answers.shell = shell::to_write(interview, flags, source, &earlier, needs)?;
    let typed = &answers.typed;
    answers
        .shell
        .retain(|it| !typed.iter().any(|typed| typed.name == it.name));
    let dashboard = Question {
        flag: "--dashboard or --no-dashboard",
        text: "Serve the dashboard: requests, errors, tokens and cost?",
        help: Some("at /admin, behind a key that the log shows at the start"),
    };
    let is_on = yes_or_no(flags.dashboard, flags.no_dashboard);
    answers.has_dashboard = interview.decision(dashboard, is_on, true)?;
    let needs_folder = answers.has_keys || answers.shared.is_some() || answers.has_dashboard;
    answers.data_dir = match (&flags.data_dir, earlier.value("DATA_DIR")) {
        (Some(given), _) => Some(shell::absolute(given)),
        (None, Some(had)) => Some(had.to_owned()),
        (None, None) if !needs_folder => None,
        (None, None) => {
            let question = Question {
                flag: "--data-dir PATH",
                text: "Folder of keys, spend and the dashboard's history",
                help: Some("made if it is not there"),
            };
            let folder = interview.text(question, None, Some("data"), not_empty)?;
            // wherever the server starts, and verbs are run
            folder.as_deref().map(shell::absolute)
        }
    };
    Ok(answers)
}

/// Tests all answers of flags, before anything is written.
pub(super) fn test(
    answers: &Answers,
    source: &ConfigSource,
    before: &str,
) -> Result<(), InitError> {
    let failed = |why: String| {
        InitError::Failed(format!(
            "{why}; nothing was written; --no-test goes on without tests"
        ))
    };
    let tested = upstream_questions::test(answers, source, before);
    tested.map_err(|fault| failed(fault.text))?;
    let had = values(before);
    let is_as_before = had.contains(&("PORT".to_owned(), answers.port.to_string()));
    if !is_as_before {
        probe::port(&answers.host, answers.port).map_err(failed)?;
    }
    if let Some(shared) = &answers.shared {
        test_store(source, &Earlier::of(before), &shared.url).map_err(failed)?;
    }
    Ok(())
}

/// Address and port, which must be free.
fn address(
    interview: &mut Interview,
    flags: &InitFlags,
    earlier: &Earlier,
    is_tested: bool,
    answers: &mut Answers,
) -> Result<(), InitError> {
    let host = Question {
        flag: "--host ADDRESS",
        text: "Address to listen on",
        help: Some("127.0.0.1: this machine alone; 0.0.0.0: the network"),
    };
    let port = Question {
        flag: "--port NUMBER",
        text: "Port",
        help: None,
    };
    let had = (
        earlier.value("HOST").unwrap_or("127.0.0.1"),
        earlier.value("PORT").unwrap_or("8088"),
    );
    let mut default = (had.0.to_owned(), had.1.to_owned());
    loop {
        let given = (flags.host.as_deref(), flags.port.as_deref());
        let host = interview.text(host, given.0, Some(&default.0), is_host)?;
        answers.host = host.unwrap_or_else(|| default.0.clone());
        let port = interview.text(port, given.1, Some(&default.1), is_port)?;
        let port = port.unwrap_or_else(|| default.1.clone());
        answers.port = port.parse().unwrap_or(8088);
        // the server of these settings may run already
        let is_as_before = earlier.value("PORT") == Some(&*port) && answers.host == had.0;
        if !is_tested || is_as_before {
            return Ok(());
        }
        let Err(why) = probe::port(&answers.host, answers.port) else {
            return Ok(());
        };
        remark(&why);
        if given.0.is_some() && given.1.is_some() {
            return Err(InitError::Failed(format!("{why}; nothing was written")));
        }
        let free = probe::free_port(&answers.host, answers.port);
        default = (
            answers.host.clone(),
            free.map_or(default.1, |port| port.to_string()),
        );
        if given.1.is_some() {
            return Err(InitError::Failed(format!("{why}; nothing was written")));
        }
    }
}

fn is_host(text: &str) -> Result<(), String> {
    not_empty(text)?;
    probe::addresses(text, 0).map(drop)
}

fn is_port(text: &str) -> Result<(), String> {
    match text.parse::<u16>() {
        Ok(0) | Err(_) => Err("it is no number from 1 to 65535".to_owned()),
        Ok(_) => Ok(()),
    }
}

fn not_empty(text: &str) -> Result<(), String> {
    match text.trim().is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(()),
    }
}

fn is_public(host: &str) -> Result<bool, InitError> {
    let addresses = probe::addresses(host, 0).map_err(InitError::Usage)?;
    Ok(addresses.iter().any(|address| !address.ip().is_loopback()))
}

/// Certificate and key. A public address needs them, or an explicit no.
fn tls(
    interview: &mut Interview,
    flags: &InitFlags,
    source: &ConfigSource,
    earlier: &Earlier,
    is_public: bool,
) -> Result<Option<(String, String)>, InitError> {
    let had = earlier
        .value("TLS_CERT_FILE")
        .zip(earlier.value("TLS_KEY_FILE"));
    if let (Some(certificate), Some(key)) = (&flags.tls_cert, &flags.tls_key) {
        let pair = (absolute(certificate), absolute(key));
        check_pair(source, &pair).map_err(InitError::Usage)?;
        return Ok(Some(pair));
    }
    if let Some((certificate, key)) = had.filter(|_| !flags.no_tls) {
        return Ok(Some((certificate.to_owned(), key.to_owned())));
    }
    if !is_public || flags.no_tls {
        return Ok(None);
    }
    if interview.source != AnswerSource::Terminal {
        interview.lacks("--tls-cert PATH and --tls-key PATH, or --no-tls (keys cross the network in clear text)");
        return Ok(None);
    }
    let wants = interview.confirm(
        "Serve TLS? Without it, keys and prompts cross the network in clear text.",
        Some("no: TLS is in front of the proxy, or the network is trusted"),
        true,
    )?;
    if !wants {
        return Ok(None);
    }
    loop {
        let ask = |text| Question {
            flag: "--tls-cert",
            text,
            help: Some("the path of a PEM file"),
        };
        let certificate = interview.text(ask("Certificate chain"), None, None, is_file)?;
        let key = interview.text(ask("Its private key"), None, None, is_file)?;
        let path = |text: Option<String>| absolute(Path::new(&text.unwrap_or_default()));
        let pair = (path(certificate), path(key));
        match check_pair(source, &pair) {
            Ok(()) => return Ok(Some(pair)),
            Err(why) => remark(&why),
        }
    }
}

fn is_file(text: &str) -> Result<(), String> {
    match fs::metadata(text) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err("it is no file".to_owned()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn absolute(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    path.display().to_string()
}

/// Has the configuration read a certificate and its key.
fn check_pair(source: &ConfigSource, (certificate, key): &(String, String)) -> Result<(), String> {
    let mut text = String::new();
    for (name, value) in [("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key)] {
        text = envtext::with_value(&text, name, value).unwrap_or(text);
    }
    match source.keeping(&[]).proposing(&text).certificate() {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults.to_string()),
    }
}

/// Keys of the proxy. A public address needs them, or an explicit no.
fn has_keys(
    interview: &mut Interview,
    flags: &InitFlags,
    earlier: &Earlier,
    is_public: bool,
) -> Result<bool, InitError> {
    let given = yes_or_no(flags.keys, flags.no_keys);
    let had = match earlier.value("ACCESS") {
        Some("required" | "optional") => Some(true),
        _ => None,
    };
    let question = Question {
        flag: "--keys or --no-keys",
        text: "Give out keys, with budgets and limits?",
        help: Some(match is_public {
            true => "without keys, everybody who reaches the address may use it",
            false => "for several people or programs; every request needs one then",
        }),
    };
    if is_public && given.is_none() && had.is_none() && interview.source == AnswerSource::Defaults {
        interview.lacks("--keys, or --no-keys (everybody who reaches the address may use it)");
        return Ok(false);
    }
    interview.decision(question, given, had.unwrap_or(is_public))
}

/// Asks for what few need in one question, unless a flag or the earlier file has some of it.
fn wants_more(
    interview: &Interview,
    flags: &InitFlags,
    earlier: &Earlier,
) -> Result<bool, InitError> {
    let has_flag = flags.replicas.is_some()
        || flags.state_url.is_some()
        || flags.unit.is_some()
        || flags.compose.is_some();
    let has_store = std::env::var_os("STATE_URL").is_some_and(|it| !it.is_empty())
        || earlier.value("STATE_URL").is_some();
    if interview.source != AnswerSource::Terminal || has_flag || has_store {
        return Ok(true);
    }
    interview.confirm(
        "Anything for several servers, or for systemd or compose?",
        Some("replicas that share keys and limits; a file that keeps it running; --help names the flags"),
        false,
    )
}

/// One replica, or several with the store that they share.
fn shared(
    interview: &mut Interview,
    flags: &InitFlags,
    source: &ConfigSource,
    earlier: &Earlier,
) -> Result<Option<SharedStoreAnswer>, InitError> {
    let variable = std::env::var("STATE_URL").ok().filter(|it| !it.is_empty());
    let had = earlier.value("STATE_URL").map(str::to_owned);
    let url = flags.state_url.clone().or(variable).or(had);
    let question = Question {
        flag: "--replicas NUMBER",
        text: "Replicas that share keys, limits and budgets",
        help: Some("1: all of it is in a folder; more need a Redis or Valkey"),
    };
    let default = earlier
        .value("REPLICAS")
        .unwrap_or(if url.is_some() { "2" } else { "1" });
    let replicas = interview.text(question, flags.replicas.as_deref(), Some(default), is_count)?;
    let replicas: u32 = replicas.and_then(|it| it.parse().ok()).unwrap_or(1);
    if replicas == 1 && flags.state_url.is_none() {
        return Ok(None);
    }
    let pepper = match earlier.value("ACCESS_PEPPER") {
        Some(pepper) => pepper.to_owned(),
        None => Pepper::generate().map_err(|error| InitError::Failed(error.to_string()))?,
    };
    loop {
        let question = Question {
            flag: "--state-url URL",
            text: "URL of the Redis or Valkey",
            help: Some("redis://host:6379/0; rediss://… with TLS; the password is asked for next"),
        };
        let answer = interview.text(
            question,
            flags.state_url.as_deref(),
            url.as_deref(),
            not_empty,
        )?;
        let Some(mut answer) = answer else {
            return Ok(None);
        };
        if interview.source == AnswerSource::Terminal && !answer.contains('@') {
            let password = interview.secret("Its password", "not shown; empty for none")?;
            if let Some((scheme, rest)) = answer.split_once("://").filter(|_| !password.is_empty())
            {
                let password = utf8_percent_encode(&password, NON_ALPHANUMERIC);
                answer = format!("{scheme}://:{password}@{rest}");
            }
        }
        let answer = SharedStoreAnswer {
            url: answer,
            replicas,
            pepper: pepper.clone(),
        };
        let is_tested = interview.source == AnswerSource::Terminal && !flags.no_test;
        if !is_tested || interview.keeps(test_store(source, earlier, &answer.url))? {
            return Ok(Some(answer));
        }
        if flags.state_url.is_some() {
            return Err(InitError::Failed(
                "the shared store does not work; nothing was written".to_owned(),
            ));
        }
    }
}

fn is_count(text: &str) -> Result<(), String> {
    match text.parse::<u32>() {
        Ok(1..=1000) => Ok(()),
        _ => Err("it is no number from 1 to 1000".to_owned()),
    }
}

/// Looks at the server of a URL, and writes nothing there.
fn test_store(source: &ConfigSource, earlier: &Earlier, url: &str) -> Result<(), String> {
    let mut text = "DATA_DIR=.\n".to_owned();
    let has_nul = |name: &str| format!("{name} has a NUL character");
    let earlier = earlier
        .values()
        .filter(|(name, _)| name.starts_with("STATE_"));
    let earlier = earlier.map(|(name, value)| (name.as_str(), value.clone()));
    let shell = shell::of_store(source).into_iter();
    let shell = shell.map(|ShellVariable { name, value }| (name, value));
    for (name, value) in earlier.chain(shell) {
        text = envtext::with_value(&text, name, &value).map_err(|_| has_nul(name))?;
    }
    let text = envtext::with_value(&text, "STATE_URL", url).map_err(|_| has_nul("STATE_URL"))?;
    let (_, access) = source
        .keeping(&[])
        .proposing(&text)
        .access()
        .map_err(|faults| faults.to_string())?;
    let Some(settings) = access.state else {
        return Ok(());
    };
    state::look(&settings).map_err(|error| error.to_string())?;
    remark("The shared store answers.");
    Ok(())
}

/// The first key, if there are to be keys.
pub(super) fn first_key(
    interview: &mut Interview,
    flags: &InitFlags,
    answers: &Answers,
) -> Result<Option<NewKey>, InitError> {
    if !answers.has_keys {
        return Ok(None);
    }
    let question = Question {
        flag: "--key-name TEXT",
        text: "Name of the first key",
        help: Some("the person or program that gets it; shown once, at the end"),
    };
    let operator = operator();
    let name = interview.text(
        question,
        flags.key_name.as_deref(),
        Some(&operator),
        not_empty,
    )?;
    let question = Question {
        flag: "--budget AMOUNT/PERIOD",
        text: "Its budget in US dollars",
        help: Some("as 100/month or 5/day; none: no bound"),
    };
    let text = match (&flags.budget, interview.source) {
        (Some(given), _) => Some(given.clone()),
        (None, AnswerSource::Terminal) => {
            interview.text(question, None, Some("none"), |text| match text {
                "none" => Ok(()),
                text => crate::registry::budget(text)
                    .map(drop)
                    .map_err(|fault| fault.to_string()),
            })?
        }
        (None, _) => None,
    };
    let limits = match text.as_deref() {
        None | Some("none") => Vec::new(),
        Some(text) => {
            let flags = budget(text)?;
            flags
                .shapes(None)
                .map_err(|error| InitError::Usage(error.to_string()))?
        }
    };
    Ok(Some(NewKey {
        name: name.unwrap_or(operator),
        if_absent: true,
        limits,
        ..NewKey::default()
    }))
}

/// Further files.
pub(super) fn extras(interview: &mut Interview, flags: &InitFlags) -> Result<Extras, InitError> {
    let mut extras = Extras {
        unit: flags.unit.clone(),
        compose: flags.compose.clone(),
    };
    let is_open = extras.unit.is_none() && extras.compose.is_none();
    if interview.source != AnswerSource::Terminal || !is_open || !interview.wants_more {
        return Ok(extras);
    }
    let question = Question {
        flag: "--unit PATH or --compose PATH",
        text: "Also write a file that keeps it running?",
        help: None,
    };
    let options = [
        ("no", 0),
        ("a unit of systemd", 1),
        ("a file of compose", 2),
    ];
    match interview.choice(question, None, &options, 0)? {
        Some(1) => extras.unit = Some("anthropic-proxy.service".into()),
        Some(2) => extras.compose = Some("compose.proxy.yaml".into()),
        _ => {}
    }
    Ok(extras)
}

fn yes_or_no(yes: bool, no: bool) -> Option<bool> {
    match (yes, no) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// The budget of the first key.
fn budget(text: &str) -> Result<LimitFlags, InitError> {
    let flags = LimitFlags::of_budget(text);
    flags
        .shapes(None)
        .map_err(|error| InitError::Usage(error.to_string()))?;
    Ok(flags)
}
