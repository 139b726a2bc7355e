//! Opens connections to a server, all of it in a bounded time, and tells what went wrong.

use std::{
    error::Error as _,
    io,
    sync::{Arc, Once},
    time::Duration,
};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates, Value, io::tcp::TcpSettings,
};

use socket2::TcpKeepalive;

use super::{
    fault::{RedisFault, RedisFaultKind},
    probe::looked_at,
    settings::{RedisNode, RedisSettings, RedisTls},
};

/// First words to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// User, password and database.
    Full,
    /// User and password: a Sentinel has no database.
    NoDatabase,
    /// Nothing: Sentinels often have no password.
    Nothing,
}

type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// Silence after which a connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Opens a connection. It gives up on an answer after `patience`, too.
pub(super) fn dial(
    settings: &RedisSettings,
    node: &RedisNode,
    login: Login,
    patience: Duration,
) -> Result<redis::Connection, RedisFault> {
    let failed = |error: RedisError| fault(node, &error);
    let client = client(settings, node, login).map_err(failed)?;
    let mut connection = client
        .get_connection_with_timeout(patience)
        .map_err(|error| seen(settings, node, patience, failed(error)))?;
    let bound = |connection: &redis::Connection| {
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))
    };
    bound(&connection).map_err(failed)?;
    if login == Login::Nothing || settings.password.is_none() {
        // nothing was said so far, and no handshake of TLS was made; any answer is one of a server that is right
        let answered = connection
            .send_packed_command(&redis::cmd("PING").get_packed_command())
            .and_then(|()| connection.recv_response());
        answered.map_err(|error| seen(settings, node, patience, failed(error)))?;
    }
    settings.usage.answered();
    Ok(connection)
}

/// The fault, after a second look at a server that was never reached: an outage takes no longer for it.
fn seen(
    settings: &RedisSettings,
    node: &RedisNode,
    patience: Duration,
    fault: RedisFault,
) -> RedisFault {
    match settings.usage.was_reached() {
        true => fault,
        false => looked_at(node, settings.tls.is_some(), patience, fault),
    }
}

fn client(settings: &RedisSettings, node: &RedisNode, login: Login) -> Result<Client, RedisError> {
    let RedisNode { host, port } = node.clone();
    let mut hello = RedisConnectionInfo::default().set_skip_set_lib_name();
    if login != Login::Nothing {
        if let Some(user) = &settings.user {
            hello = hello.set_username(user);
        }
        if let Some(password) = settings.present_password() {
            hello = hello.set_password(password.expose());
        }
    }
    if login == Login::Full {
        hello = hello.set_db(settings.database.into());
    }
    let address = match &settings.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
    };
    // a subscription hears nothing for long
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 5);
    let info = address
        .into_connection_info()?
        .set_redis_settings(hello)
        .set_tcp_settings(
            TcpSettings::default()
                .set_nodelay(true)
                .set_keepalive(keepalive),
        );
    match &settings.tls {
        None => Client::open(info),
        Some(tls) => {
            // the crate takes the process' provider, and would panic without one
            static PROVIDER: Once = Once::new();
            PROVIDER.call_once(|| {
                // one that is there already is as good
                let _ = rustls::crypto::ring::default_provider().install_default();
            });
            let RedisTls {
                authorities,
                identity,
            } = tls;
            let certificates = TlsCertificates {
                client_tls: identity.as_ref().map(|identity| ClientTlsConfig {
                    client_cert: identity.chain.clone(),
                    client_key: identity.key.expose().as_bytes().to_vec(),
                }),
                root_cert: authorities.clone(),
            };
            Client::build_with_tls(info, certificates)
        }
    }
}

/// Sends one command on a connection that has bounds, and takes its answer.
pub(super) fn ask(
    connection: &mut redis::Connection,
    node: &RedisNode,
    command: &redis::Cmd,
) -> Result<Value, RedisFault> {
    let mut octets = Vec::new();
    command.write_packed_command(&mut octets);
    let answer = connection
        .send_packed_command(&octets)
        .and_then(|()| connection.recv_response());
    match answer {
        Ok(Value::ServerError(error)) => Err(fault(node, &error.into())),
        Ok(value) => Ok(value),
        Err(error) => Err(fault(node, &error)),
    }
}

/// The fault behind an error of the crate.
pub(super) fn fault(node: &RedisNode, error: &RedisError) -> RedisFault {
    let is_of_tls = || {
        // as the crate keeps it
        let shared = error.source()?.downcast_ref::<SharedError>()?;
        let io = shared.downcast_ref::<io::Error>()?;
        Some(io.get_ref()?.is::<rustls::Error>())
    };
    let kind = match error.kind() {
        ErrorKind::AuthenticationFailed => RedisFaultKind::Refused,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => RedisFaultKind::NotRedis,
        _ if error.is_timeout() => RedisFaultKind::TimedOut,
        _ if is_of_tls().unwrap_or(false) => RedisFaultKind::Untrusted,
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let code = error.code().unwrap_or_default();
            kind_of_code(code, error.detail().unwrap_or_default())
        }
        _ => RedisFaultKind::Unreachable,
    };
    let detail = match kind {
        // the bytes of what is no Redis may be anything
        RedisFaultKind::NotRedis => String::new(),
        RedisFaultKind::TimedOut => String::new(),
        _ => error.to_string(),
    };
    RedisFault {
        kind,
        place: node.to_string(),
        detail: bounded(detail),
    }
}

/// The kind of an error that a server answers with.
pub(super) fn kind_of_code(code: &str, detail: &str) -> RedisFaultKind {
    match code {
        "NOAUTH" | "WRONGPASS" => RedisFaultKind::Refused,
        "NOPERM" => RedisFaultKind::NotPermitted,
        "READONLY" => RedisFaultKind::ReadOnly,
        "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" => RedisFaultKind::NotReady,
        "OOM" => RedisFaultKind::OutOfMemory,
        "MOVED" | "ASK" | "CROSSSLOT" => RedisFaultKind::WrongForm,
        // an error in a script, as servers before 7.0 tell it
        "ERR" if detail.contains("-OOM ") => RedisFaultKind::OutOfMemory,
        "ERR" if detail.contains("-READONLY ") => RedisFaultKind::ReadOnly,
        _ => RedisFaultKind::Other,
    }
}

/// A text of a server, without its controls and at most a line long.
pub(super) fn bounded(text: String) -> String {
    const LONGEST: usize = 200;
    let text: String = text
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it })
        .collect();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
