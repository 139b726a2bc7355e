//! `doctor`: checks of everything between a client and the upstream, at the terminal.
//!
//! It runs beside the server, with a client of its own that is made as a worker's. Exit codes: 0 fine, 1 something
//! failed, 2 usage, 3 warnings with `--strict`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use self::{
    pack::{Around, packed},
    screen::{Screen, counts_of},
};
use super::{
    client::{ApiAnswer, ApiClient, ClientError, owner},
    desk::{Reach, VerbError, print_json},
    healthcheck::reachable,
    output::{self, EXIT_USAGE},
};
use crate::{
    config::{ConfigSource, Credential, Environment, Flags, Listen, Loaded, Upstream},
    doctor::{
        AuditCheck, AuditFinding, Check, CheckCounts, CheckGroup, CheckStatus, ClientPlaces,
        DataPlaces, DeniedSocket, DoctorReport, Door, Examination, GroupRun, ListenerPlaces,
        ListenerTarget, ServerPresence, UpstreamPlace, UpstreamVerdicts, client_limits,
        client_setup, data_checks, invalid_configuration, listener_checks, may_write, refusal,
        run_groups, shared_state_checks, upstream_checks, valid_configuration, write_bundle,
    },
    registry::Call,
    secret::Secrets,
    server,
    telemetry::metrics::Metrics,
    upstream::{
        Client,
        balance::Balance,
        dial::{Dialer, Trust},
    },
};

mod pack;
mod screen;

/// Warnings, where they are asked for.
const EXIT_WARNINGS: u8 = 3;
/// The variable of the dashboard's key, for `--server`.
const ADMIN_KEY: &str = "ANTHROPIC_PROXY_ADMIN_KEY";
/// Seconds of silence that are tried if no number is given: more than the usual timeout of a load balancer.
const SILENCE: &str = "100";

#[derive(Debug, Clone, Default, Args)]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit 3 if there are warnings
    #[arg(long)]
    strict: bool,
    /// Also try a stream: one request of at most 48 tokens, less than a cent
    #[arg(long)]
    spend: bool,
    /// Also try how long a connection may be silent [default: 100 seconds]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = SILENCE, value_parser = seconds)]
    slow: Option<Duration>,
    /// Model of the requests [default: a small one that the upstream names]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Variable with a key (or `Bearer` and a token) for upstreams that have no credential of their own
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// Also check this address, which clients use; with --client, in place of ANTHROPIC_BASE_URL
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Check the settings of Claude Code on this machine, and its way to the proxy
    #[arg(long, conflicts_with_all = ["server"])]
    client: bool,
    /// Have the server at this URL check itself, with the key in ANTHROPIC_PROXY_ADMIN_KEY
    #[arg(long, value_name = "URL", conflicts_with_all = ["url", "key_env", "slow", "model", "bundle"])]
    server: Option<String>,
    /// Write the result and what is around it to a new file, without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// Reason for which nothing was checked.
#[derive(Debug, thiserror::Error)]
enum DoctorError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Run(String),
}

pub(super) fn run(asked: &Doctor) -> ExitCode {
    match examine(asked) {
        Ok(counts) if counts.fail > 0 => ExitCode::FAILURE,
        Ok(counts) if counts.warn > 0 && asked.strict => EXIT_WARNINGS.into(),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            match error {
                DoctorError::Usage(_) => EXIT_USAGE.into(),
                DoctorError::Run(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Checks what an environment file says, before a server runs with it. Gives the reason for which nothing could be
/// checked.
pub(super) fn run_on_new_file(path: PathBuf) -> Result<(), String> {
    let asked = Doctor {
        settings: Flags {
            env_file: Some(path),
            ..Flags::default()
        },
        ..Doctor::default()
    };
    match examine(&asked) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn examine(asked: &Doctor) -> Result<CheckCounts, DoctorError> {
    if let Some(path) = &asked.bundle {
        may_write(path).map_err(|error| DoctorError::Usage(format!("--bundle: {error}")))?;
    }
    if let Some(url) = &asked.server {
        return of_server(url, asked);
    }
    let examination = Examination {
        spend: asked.spend,
        slow: asked.slow,
        model: asked.model.clone(),
        credential: asked.key_env.as_deref().map(credential).transpose()?,
    };
    let url = asked.url.as_deref().map(str::parse::<Upstream>);
    let url = url
        .transpose()
        .map_err(|error| DoctorError::Usage(format!("--url: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DoctorError::Run(format!("the runtime could not be started: {error}")))?;
    let screen = Screen::of_process(asked.json);
    let (report, around) = match asked.client {
        true => {
            let (patient, around) = client_patient(examination, url)?;
            (
                LocalSet::new().block_on(&runtime, patient.run(&screen)),
                around,
            )
        }
        false => {
            let (patient, around) = server_patient(asked, examination, url);
            (
                LocalSet::new().block_on(&runtime, patient.run(&screen)),
                around,
            )
        }
    };
    // a check that hangs on a disk is not waited for
    runtime.shutdown_background();
    screen.end(&report);
    if let Some(path) = &asked.bundle {
        write(path, &report, &around, asked.json)?;
    }
    Ok(report.counts)
}

/// The credential in a variable.
fn credential(variable: &str) -> Result<Credential, DoctorError> {
    let text = std::env::var(variable).unwrap_or_default();
    text.parse().map_err(|error| {
        DoctorError::Usage(format!(
            "--key-env: {variable} is {error}; set it to one, or leave out --key-env"
        ))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("not a number of seconds from 1 to 3600".to_owned()),
    }
}

/// Everything that is checked.
struct Patient {
    /// Checks that are made already.
    made: Vec<Check>,
    /// The configuration, if it is valid.
    loaded: Option<Loaded>,
    examination: Examination,
    group: CheckGroup,
    ca_file: Option<PathBuf>,
    listeners: ListenerPlaces,
    data: DataPlaces,
}

impl Patient {
    async fn run(self, screen: &Screen) -> DoctorReport {
        let Self {
            made,
            loaded,
            examination,
            group,
            ca_file,
            listeners,
            data,
        } = self;
        let own = listeners.targets.iter().filter_map(|target| match target {
            ListenerTarget::Plain(address) | ListenerTarget::Tls(address) => Some(*address),
            ListenerTarget::Unix(_) | ListenerTarget::Public(_) => None,
        });
        let own: Arc<[_]> = match group {
            CheckGroup::Client => Arc::new([]),
            _ => own.collect(),
        };
        let upstreams = loaded.as_ref().map(|it| it.config.live.endpoints.len());
        let verdicts = UpstreamVerdicts::of(upstreams.unwrap_or_default());
        let verdicts = &verdicts;
        let mut groups: Vec<GroupRun<'_>> = vec![Box::pin(std::future::ready(made))];
        let (examination, ca_file) = (&examination, &ca_file);
        if let Some(loaded) = &loaded {
            let live = &loaded.config.live;
            let client = Rc::new(Client::new(
                Dialer::new(Trust::new(ca_file.clone())).that_refuses(Arc::clone(&own)),
                live,
                Arc::new(Balance::new(&live.endpoints)),
                Metrics::new().shard(),
            ));
            for endpoint in 0..live.endpoints.len() {
                let (client, own) = (Rc::clone(&client), Arc::clone(&own));
                groups.push(Box::pin(async move {
                    let door: &dyn Door = &*client;
                    let place = || UpstreamPlace {
                        door,
                        live,
                        endpoint,
                        ca_file: ca_file.clone(),
                        listeners: Arc::clone(&own),
                        group,
                    };
                    let checks = Box::pin(upstream_checks(place(), examination));
                    let mut checks = verdicts.note(checks).await;
                    if group == CheckGroup::Client {
                        let is_tried =
                            |it: &Check| it.id == "models" && it.status != CheckStatus::Skip;
                        let is_reached = checks.iter().any(is_tried);
                        let mut limits = client_limits(&place(), examination, is_reached).await;
                        limits.subject = checks.first().and_then(|first| first.subject.clone());
                        checks.push(limits);
                    }
                    checks
                }));
            }
            let state = loaded.config.boot.access.state.clone();
            groups.push(Box::pin(shared_state_checks(state)));
        }
        if group != CheckGroup::Client {
            groups.push(Box::pin(listener_checks(listeners, verdicts.verdict())));
            groups.push(Box::pin(data_checks(data)));
        }
        run_groups(groups, screen.telling(), |checks| screen.show(checks)).await
    }
}

/// The server's side: its configuration, and all that it names.
fn server_patient(
    asked: &Doctor,
    examination: Examination,
    url: Option<Upstream>,
) -> (Patient, Around) {
    let source = ConfigSource::of_process(asked.settings.clone());
    let (made, loaded) = match source.load() {
        Ok(loaded) => {
            let faults: Vec<String> = server::further_checks(&loaded.config)
                .err()
                .into_iter()
                .collect();
            (valid_configuration(&loaded, &faults), Some(loaded))
        }
        Err(errors) => (invalid_configuration(&errors), None),
    };
    let directory = source.access().ok().and_then(|(directory, _)| directory);
    let (server, denied) = directory.as_deref().map_or((None, None), running);
    let mut targets = targets(&source);
    targets.extend(url.map(ListenerTarget::Public));
    let patient = Patient {
        made,
        examination,
        group: CheckGroup::Upstream,
        ca_file: loaded
            .as_ref()
            .and_then(|loaded| loaded.config.boot.upstream_ca_file.clone()),
        listeners: ListenerPlaces {
            targets,
            certificate: source.certificate().ok().flatten(),
            presence: match (&server, &denied) {
                (Some(_), _) => ServerPresence::Runs,
                (None, Some(_)) => ServerPresence::Unknown,
                (None, None) => ServerPresence::Absent,
            },
            refusal: loaded
                .as_ref()
                .and_then(|Loaded { config, .. }| refusal(config.boot.access.mode, &config.live)),
            are_settings_named: loaded.as_ref().is_none_or(|loaded| {
                let named = ["API_BASE_URL", "API_BASE_URLS"];
                named.into_iter().any(|name| loaded.is_set(name))
                    || loaded.config.boot.env_file.exists()
            }),
        },
        data: DataPlaces {
            audit: directory
                .as_deref()
                .and_then(|it| audit(it, &asked.settings)),
            directory,
            denied,
        },
        loaded: loaded.clone(),
    };
    (
        patient,
        Around {
            loaded,
            server,
            secrets: Secrets::default(),
        },
    )
}

/// The running server by its socket, or the socket that this user may not use.
#[cfg(unix)]
fn running(directory: &Path) -> (Option<ApiClient>, Option<DeniedSocket>) {
    match ApiClient::of_socket(&directory.join(server::ADMIN_SOCKET)) {
        Ok(server) => (server, None),
        Err(ClientError::Denied(path)) => {
            let owner = owner(&path);
            (None, Some(DeniedSocket { path, owner }))
        }
        Err(_) => (None, None),
    }
}

#[cfg(not(unix))]
fn running(_: &Path) -> (Option<ApiClient>, Option<DeniedSocket>) {
    (None, None)
}

/// Listeners of the settings, as this machine reaches them.
fn targets(source: &ConfigSource) -> Vec<ListenerTarget> {
    let Ok(Listen { plain, tls, unix }) = source.listen() else {
        return Vec::new();
    };
    let at = |addresses: Vec<std::net::SocketAddr>| {
        let known = addresses.into_iter().filter(|address| address.port() != 0);
        known.filter_map(|address| reachable(address).into_iter().next())
    };
    let plain = at(plain).map(ListenerTarget::Plain);
    let tls = at(tls).map(ListenerTarget::Tls);
    let unix = unix.into_iter().map(ListenerTarget::Unix);
    plain.chain(tls).chain(unix).collect()
}

/// The check of the audit, where there is one.
fn audit(directory: &Path, settings: &Flags) -> Option<AuditCheck> {
    // one that may not be looked at is told, too
    let folder = directory.join(crate::audit::AUDIT_FOLDER);
    let is_missing =
        fs::metadata(folder).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if is_missing {
        return None;
    }
    let reach = Reach::of(settings.clone());
    Some(Box::new(move || {
        let verified = reach
            .audit_desk()
            .and_then(|desk| desk.make(&Call::VerifyAudit));
        verified
            .map(|verified| finding(&verified))
            .map_err(|error: VerbError| error.to_string())
    }))
}

fn finding(verified: &Value) -> AuditFinding {
    let chains: Vec<&Value> = verified["chains"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let lines = chains.iter().map(|chain| {
        let number = |name: &str| chain[name].as_u64().unwrap_or_default();
        (number("last") + 1).saturating_sub(number("first").max(1))
    });
    let broken = chains.iter().find(|chain| !chain["broken"].is_null());
    AuditFinding {
        chains: chains.len(),
        lines: lines.sum(),
        broken: broken.map(|chain| {
            let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            let broken = &chain["broken"];
            format!(
                "chain {} at line {}: {}",
                text(&chain["chain"]),
                broken["seq"],
                text(&broken["why"])
            )
        }),
        unanchored: verified["unanchored"].as_str().map(str::to_owned),
    }
}

/// A client's side: its settings, and the way to the base URL.
fn client_patient(
    mut examination: Examination,
    url: Option<Upstream>,
) -> Result<(Patient, Around), DoctorError> {
    let variable = |name: &str| std::env::var(name).ok();
    let home = variable("HOME").or_else(|| variable("USERPROFILE"));
    let mut setup = client_setup(&ClientPlaces {
        variable: &variable,
        home: home.filter(|home| !home.is_empty()).map(PathBuf::from),
        project: std::env::current_dir().unwrap_or_default(),
        managed: MANAGED.into(),
    });
    if url.is_some() {
        setup.checks.retain(|check| check.id != "base_url");
    }
    if examination.credential.is_none() {
        examination.credential = setup.credential;
    }
    let mut secrets = Secrets::default();
    setup.secrets.iter().for_each(|secret| secrets.add(secret));
    let loaded = match url.or(setup.base_url) {
        Some(base_url) => Some(way_to(&base_url, setup.proxies)?),
        None => None,
    };
    let patient = Patient {
        made: setup.checks,
        loaded,
        examination,
        group: CheckGroup::Client,
        ca_file: setup.ca_file,
        listeners: ListenerPlaces::default(),
        data: DataPlaces::default(),
    };
    Ok((
        patient,
        Around {
            loaded: None,
            server: None,
            secrets,
        },
    ))
}

/// A configuration that has nothing but an upstream, and the proxies on the way.
fn way_to(base_url: &Upstream, proxies: Vec<(String, String)>) -> Result<Loaded, DoctorError> {
    let scheme = match base_url.scheme {
        crate::config::Scheme::Http => "http",
        crate::config::Scheme::Https => "https",
    };
    let flags = Flags {
        api_base_url: Some(format!(
            "{scheme}://{}{}",
            base_url.authority, base_url.prefix
        )),
        port: Some("0".to_owned()),
        ..Flags::default()
    };
    let environment: Environment = proxies.into_iter().collect();
    let source = ConfigSource::new(flags, environment).rooted(NOWHERE);
    source
        .load()
        .map_err(|errors| DoctorError::Usage(errors.to_string()))
}

/// A directory without files.
const NOWHERE: &str = "/nonexistent";

/// The file that an administrator manages.
#[cfg(target_os = "macos")]
const MANAGED: &str = "/Library/Application Support/ClaudeCode/managed-settings.json";
#[cfg(windows)]
const MANAGED: &str = "C:\\ProgramData\\ClaudeCode\\managed-settings.json";
#[cfg(not(any(target_os = "macos", windows)))]
const MANAGED: &str = "/etc/claude-code/managed-settings.json";

/// Has a server check itself, and shows the result.
fn of_server(url: &str, asked: &Doctor) -> Result<CheckCounts, DoctorError> {
    let key = std::env::var(ADMIN_KEY).unwrap_or_default();
    if key.is_empty() {
        let why = format!("--server needs the dashboard's key: set {ADMIN_KEY}");
        return Err(DoctorError::Usage(why));
    }
    let run = |error: ClientError| {
        DoctorError::Run(match error {
            // no change was asked for
            ClientError::NoAnswer(place, error) => {
                format!("no answer from {place}: {error}; start the server, or correct --server")
            }
            other => other.to_string(),
        })
    };
    let client = ApiClient::of_url(url, key).map_err(run)?;
    let wish = json!({"spend": asked.spend});
    let ApiAnswer { status, content } = client
        .ask("POST", "/doctor", None, Some(&wish))
        .map_err(run)?;
    if status != 200 || !content["checks"].is_array() {
        let message = content["error"]["message"].as_str();
        return Err(DoctorError::Run(match message {
            Some(message) => format!("the server refuses ({status}): {message}"),
            None => format!(
                "{url} answers {status} to a request of the admin API: it is no anthropic-proxy, or an older one, \
                 or its dashboard has an address of its own (ADMIN_LISTEN); correct --server"
            ),
        }));
    }
    if asked.json {
        print_json(&content);
    } else {
        Screen::of_process(false).show_remote(&content);
    }
    Ok(counts_of(&content))
}

/// Writes the bundle, after its list of contents.
fn write(
    path: &Path,
    report: &DoctorReport,
    around: &Around,
    is_quiet: bool,
) -> Result<(), DoctorError> {
    let bundle = packed(report, around);
    let say = |line: &str| {
        if !is_quiet {
            output::say(line.as_bytes());
        }
    };
    say(&format!(
        "\n{} will contain, with secrets masked:\n",
        path.display()
    ));
    for part in &bundle.parts {
        say(&format!("  {:14} {}\n", part.name, part.about));
    }
    let document = bundle.document(&around.secrets());
    write_bundle(path, &document)
        .map_err(|error| DoctorError::Run(format!("--bundle: {error}")))?;
    say(&format!(
        "written: {} bytes, for this user alone (mode 0600); read it before you send it\n",
        document.len()
    ));
    Ok(())
}
