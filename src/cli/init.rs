//! `init`: asks for what a first start needs, tests each answer at once, and writes the file that the server reads.
//!
//! Nothing is written before the last answer: then the file as a whole, or not at all. A file that is there is
//! never overwritten unseen: the difference is shown, and needs a yes or `--force`. Every question has a flag.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

pub(super) use self::flags::InitFlags;
use self::{
    answers::{Answers, CredentialPlace},
    client_lines::ClientCredential,
    error::{EXIT_INTERRUPTED, InitError},
    interview::{AnswerSource, Interview},
    questions::Extras,
    service::ServicePaths,
};
use super::{
    desk::{self, Reach, VerbError},
    doctor, operator,
    output::{self, complain, say},
    program,
};
use crate::{
    audit::{AUDIT_FOLDER, AuditLog},
    config::{
        ConfigSource, Flags, Loaded,
        env::{self, Redaction},
        envdiff::{self, DiffLine},
        envtext,
    },
    registry::{Call, NewKey},
    revision::{
        Editor, RevisionAuthor, RevisionRequest, Wanted, check_writable, make_directory,
        write_whole,
    },
    server,
};

mod answers;
mod client_lines;
mod earlier;
mod error;
mod flags;
mod interview;
mod owner;
mod probe;
mod questions;
mod service;
mod shell;
mod upstream_questions;

/// Set while files are written, which Ctrl-C does not break off.
static IS_WRITING: AtomicBool = AtomicBool::new(false);

pub(super) fn run(mut flags: InitFlags, before: Flags) -> ExitCode {
    flags.upstream = flags.upstream.or(before.api_base_url.clone());
    flags.host = flags.host.or(before.host.clone());
    flags.port = flags.port.or(before.port.clone());
    flags.env_file = flags.env_file.or(before.env_file.clone());
    end_at_interrupt();
    match set_up(&flags) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            error.exit_code()
        }
    }
}

/// Ends the process at Ctrl-C while tests run. A question that waits sees Ctrl-C itself.
fn end_at_interrupt() {
    let started = thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else {
                return;
            };
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if !IS_WRITING.load(Ordering::SeqCst) {
                        complain(&InitError::Interrupted);
                        std::process::exit(EXIT_INTERRUPTED.into());
                    }
                }
            });
        });
    // without it the system ends the process, which writes nothing either
    drop(started);
}

fn set_up(flags: &InitFlags) -> Result<ExitCode, InitError> {
    let source = ConfigSource::of_process(Flags {
        env_file: flags.env_file.clone(),
        ..Flags::default()
    });
    let path = source.env_file();
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(InitError::Failed(format!(
                "{} cannot be read: {error}; let this user read it, or name another file (--env-file)",
                path.display()
            )));
        }
    };
    check_writable(&path).map_err(|fault| {
        InitError::Failed(format!("{fault}; nothing was written; run init in a folder of yours, or name a file there (--env-file)"))
    })?;
    let mut interview = Interview::new(flags.yes);
    if interview.source == AnswerSource::Terminal {
        output::remark(&format!(
            "Settings for {}. Ctrl-C ends this, and nothing is written.",
            path.display()
        ));
    }
    let answers = questions::ask(&mut interview, flags, &source, &before)?;
    let first_key = questions::first_key(&mut interview, flags, &answers)?;
    let extras = questions::extras(&mut interview, flags)?;
    interview.end()?;
    if interview.source != AnswerSource::Terminal && !flags.no_test {
        questions::test(&answers, &source, &before)?;
    }
    let text = answers
        .text(&before)
        .map_err(|name| InitError::Usage(format!("{name}: the value has a NUL character")))?;
    let loaded = judge(&source.proposing(&text))?;
    let of_shell = |name: &str| answers.shell.iter().any(|it| it.name == name);
    let warnings = loaded.warnings.iter();
    for warning in warnings.filter(|warning| !of_shell(&warning.variable)) {
        output::remark(&format!("warning: {warning}"));
    }
    let plan = Plan {
        diff: envdiff::difference(&before, &text),
        is_new: !path.exists(),
        files: extra_files(&extras, &answers, &path)?,
        data_dir: answers.data_dir.as_ref().map(PathBuf::from),
        path,
        text,
        first_key,
    };
    if flags.dry_run {
        let mut shown = format!(
            "{} would have these lines:\n{}",
            plan.path.display(),
            lines(&plan.diff)
        );
        for (file, text) in &plan.files {
            shown += &format!("\n{} would be written:\n{text}", file.display());
        }
        shown += "\nNothing was written.\n";
        return Ok(say(shown.as_bytes()));
    }
    consent(&interview, flags, &plan)?;
    IS_WRITING.store(true, Ordering::SeqCst);
    write(&source, &plan)?;
    report(&source, &answers, &loaded, &plan, !flags.no_test)
}

/// Files that are to be written, and the first key.
struct Plan {
    path: PathBuf,
    text: String,
    diff: Vec<DiffLine>,
    is_new: bool,
    files: Vec<(PathBuf, String)>,
    /// Folder that a unit and a file of compose take for granted.
    data_dir: Option<PathBuf>,
    first_key: Option<NewKey>,
}

/// Judges what is to be written as `check` does.
fn judge(source: &ConfigSource) -> Result<Loaded, InitError> {
    let loaded = source
        .load()
        .map_err(|faults| InitError::Failed(format!("{faults}\nnothing was written")))?;
    server::further_checks(&loaded.config)
        .map_err(|fault| InitError::Failed(format!("{fault}; nothing was written")))?;
    Ok(loaded)
}

fn extra_files(
    extras: &Extras,
    answers: &Answers,
    env_file: &Path,
) -> Result<Vec<(PathBuf, String)>, InitError> {
    let failed = |error: io::Error| InitError::Failed(format!("the paths are not known: {error}"));
    let folder = std::env::current_dir().map_err(failed)?;
    let paths = ServicePaths {
        program: std::env::current_exe().map_err(failed)?,
        env_file: folder.join(env_file),
        folder,
    };
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut files = Vec::new();
    if let Some(path) = &extras.unit {
        let user = operator::user_name(owner::of(env_file).0);
        files.push((
            path.clone(),
            service::unit(&paths, answers, &user, &name(path)),
        ));
    }
    if let Some(path) = &extras.compose {
        files.push((
            path.clone(),
            service::compose(&paths, answers, owner::of(env_file), &name(path)),
        ));
    }
    Ok(files)
}

/// Asks whether the files may be changed, or takes `--force` for it.
fn consent(interview: &Interview, flags: &InitFlags, plan: &Plan) -> Result<(), InitError> {
    for (path, _) in &plan.files {
        if path.exists() && !flags.force {
            return Err(InitError::Exists(format!(
                "{} exists; nothing was written; name another file, or overwrite it with --force",
                path.display()
            )));
        }
    }
    let path = plan.path.display();
    if interview.source == AnswerSource::Terminal {
        if plan.diff.is_empty() {
            return Ok(());
        }
        output::remark(&format!(
            "\n{path}{}:\n{}",
            if plan.is_new { "" } else { " changes" },
            lines(&plan.diff)
        ));
        let (question, default) = match plan.is_new {
            true => (format!("Write {path}?"), true),
            false => (
                format!("Change {path} like this? What is there now is kept beside it."),
                flags.force,
            ),
        };
        return match interview.confirm(&question, None, default)? {
            true => Ok(()),
            false => Err(InitError::Interrupted),
        };
    }
    if !plan.is_new && !flags.force && !plan.diff.is_empty() {
        return Err(InitError::Exists(format!(
            "{path} exists, and would change; nothing was written; apply this with --force (what is there now is kept \
             beside it):\n{}",
            lines(&plan.diff)
        )));
    }
    Ok(())
}

fn lines(diff: &[DiffLine]) -> String {
    let lines = diff.iter();
    lines
        .map(|line| format!("{} {}\n", line.kind.mark(), line.text))
        .collect()
}

fn write(source: &ConfigSource, plan: &Plan) -> Result<(), InitError> {
    let failed = |error: &dyn std::fmt::Display| InitError::Failed(error.to_string());
    if plan.is_new {
        write_whole(&plan.path, &plan.text).map_err(|error| failed(&error))?;
    } else {
        let author = desk::author();
        // the one of the settings as they were: that is where earlier lines are
        let data_dir = source.access().ok().and_then(|(data_dir, _)| data_dir);
        let audit = data_dir
            .filter(|data_dir| data_dir.exists())
            .map(|data_dir| AuditLog::new(data_dir.join(AUDIT_FOLDER), b""));
        let editor = Editor::new(source.clone(), Box::new(server::further_checks), None);
        let request = RevisionRequest {
            wanted: Wanted::Text(plan.text.clone()),
            reason: Some("init".to_owned()),
            expected: None,
            is_dry_run: false,
            may_create: true,
            takes_hand_edits: false,
        };
        let author = RevisionAuthor {
            actor: &author.actor,
            request_id: &author.request_id,
            audit: audit.as_ref(),
        };
        editor
            .apply(&request, author)
            .map_err(|error| failed(&error))?;
    }
    if let Some(data_dir) = plan.data_dir.as_ref().filter(|_| !plan.files.is_empty()) {
        make_directory(data_dir).map_err(|error| {
            InitError::Failed(format!(
                "{} cannot be made: {error}; make it before the service starts",
                data_dir.display()
            ))
        })?;
    }
    for (path, text) in &plan.files {
        write_whole(path, text).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Says what there is now: what was checked, the first key, and the next commands.
fn report(
    source: &ConfigSource,
    answers: &Answers,
    loaded: &Loaded,
    plan: &Plan,
    is_tested: bool,
) -> Result<ExitCode, InitError> {
    let path = plan.path.display();
    let mut out = match plan.diff.is_empty() {
        true => format!("{path} has these settings already.\n"),
        false => format!("Wrote {path}.\n"),
    };
    for (path, _) in &plan.files {
        out += &format!("Wrote {}.\n", path.display());
    }
    if let Some(shown) = shell::shown(&answers.shell) {
        output::remark(&format!(
            "{shown} of this shell went into the file, so that the server has it wherever it starts (--shell-settings \
             leave leaves it out)."
        ));
    }
    match source
        .load()
        .map_err(|faults| faults.to_string())
        .and_then(|loaded| server::further_checks(&loaded.config))
    {
        Ok(()) => out += "check: the configuration is valid.\n",
        // written by another process meanwhile
        Err(fault) => return Err(InitError::Failed(fault)),
    }
    let mut failure = None;
    let mut credential = match answers.credential {
        CredentialPlace::Clients => ClientCredential::Own,
        _ => ClientCredential::Any,
    };
    if let Some(new) = &plan.first_key {
        match first_key(source, new) {
            Ok(Some(key)) => {
                out += &format!("\nThe key {:?}, shown this once:\n  {key}\n", new.name);
                credential = match answers.credential {
                    CredentialPlace::Clients => ClientCredential::KeyBeside(key),
                    _ => ClientCredential::Key(key),
                };
            }
            Ok(None) => {
                out += &format!(
                    "\nThe key {:?} exists; its secret was shown when it was made.\n",
                    new.name
                );
                credential = match answers.credential {
                    CredentialPlace::Clients => ClientCredential::KeyBeside("ap_…".to_owned()),
                    _ => ClientCredential::Key("ap_…".to_owned()),
                };
            }
            Err(error) => {
                failure = Some(format!(
                    "the settings are written, but not the first key: {error}; then: {} keys create --name {}",
                    program::here(),
                    program::quoted(&new.name)
                ));
            }
        }
    }
    if is_tested {
        // whatever it finds: the settings are written, and the remedies are printed
        out += "\ndoctor:\n";
        say(out.as_bytes());
        out = match doctor::run_on_new_file(source.env_file()) {
            Ok(()) => String::new(),
            Err(fault) => format!("{fault}\n"),
        };
    }
    if answers.shared.is_some() {
        out += "\nAll replicas need the same STATE_URL and ACCESS_PEPPER: give each a copy of this file.\n";
    }
    let program = program::here();
    let start = match source.env_file() == Path::new("env/.env") {
        true => program,
        false => format!(
            "{program} --env-file {}",
            program::quoted(&path.to_string())
        ),
    };
    out += &format!("\nStart it, in this folder:\n  {start}\n");
    if loaded.config.boot.has_pages() {
        out += "Its log shows the URL of the dashboard.\n";
    }
    let status = answers.data_dir.as_ref().map(|data_dir| {
        let data_dir = program::quoted(&shell::absolute(data_dir));
        format!("{} statusline --data-dir {data_dir}", program::anywhere())
    });
    let base = base(answers);
    let authority = base
        .split_once("://")
        .map_or("", |(_, authority)| authority);
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let exception = client_lines::exception(host, &|name| std::env::var(name).ok());
    out += &format!(
        "\nThen, for Claude Code and other clients:\n{}",
        client_lines::lines(&base, &credential, exception, status.as_deref())
    );
    if let Some(mode) = open_to_others(&plan.path, &plan.text) {
        output::remark(&format!(
            "warning: {path} has secrets, and other users can read it (mode {mode:o}); make it this user's alone: \
             chmod 600 {path}"
        ));
    }
    let code = say(out.as_bytes());
    match failure {
        Some(failure) => Err(InitError::Failed(failure)),
        None => Ok(code),
    }
}

/// The mode of a file that has secrets and that others can read.
#[cfg(unix)]
fn open_to_others(path: &Path, text: &str) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let has_secrets = envtext::values(text).iter().any(|(name, value)| {
        let is_plain = env::variable(name).is_none_or(|it| it.shown == Redaction::Plainly);
        !is_plain && envdiff::shown_value(name, value) != *value
    });
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (has_secrets && mode & 0o007 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_others(_: &Path, _: &str) -> Option<u32> {
    None
}

/// The address of the proxy for clients.
fn base(answers: &Answers) -> String {
    let scheme = if answers.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let host = match answers.host.as_str() {
        "0.0.0.0" | "::" | "[::]" => host_name(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    format!("{scheme}://{host}:{}", answers.port)
}

/// The name of this machine.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    match name.trim() {
        "" => "this-machine".to_owned(),
        name => name.to_owned(),
    }
}

/// Makes the first key, unless there is one of its name.
fn first_key(source: &ConfigSource, new: &NewKey) -> Result<Option<String>, VerbError> {
    let mut reach = Reach::default();
    reach.settings.env_file = Some(source.env_file());
    let answer = reach.desk()?.make(&Call::Create(new.clone()))?;
    Ok(answer["key"].as_str().map(str::to_owned))
}
