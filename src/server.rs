//! The composition root: sockets, workers, signals, drain.
//!
//! actix-server accepts and gives connections to its workers, one thread and one runtime each. `worker` builds
//! one: its client, its routes, and the connection loop of [`crate::downstream`] between them; `start` has the
//! servers, `shutdown` the end. `HttpServer` of actix-web is the same server and the same `App` around actix-http's
//! connection loop; that loop is what cannot be had there.

use std::{
    io,
    process::ExitCode,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix_server::Server;
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    config::{Boot, Config, ConfigSource, Endpoint, Loaded, Scheme, reload},
    control::{self, AdminState, FleetSnapshot},
    drain::DrainPhase,
    limits::Limits,
    memory::Budget,
    proxy::EditMemory,
    revision::Editor,
    state::RedisFleet,
    telemetry::activity::{EventSender, SharedStore},
    telemetry::traces::Traces,
    upstream::{
        balance::Balance,
        dial::{Trust, TrustStoreError},
    },
};

mod access;
#[cfg(unix)]
mod activation;
mod alerts;
mod announce;
mod closing;
mod descriptors;
mod fewest;
mod fleet;
#[cfg(unix)]
mod handover;
mod inbound;
mod listener;
mod listeners;
mod observation;
mod shutdown;
mod signals;
mod sockets;
mod start;
mod status;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(not(target_os = "linux"))]
#[path = "server/no_systemd.rs"]
mod systemd;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod upgrade;
mod worker;

pub use self::access::ADMIN_SOCKET;
#[cfg(unix)]
use self::upgrade::Upgrade;
use self::{
    access::KeyDesk,
    announce::{StartupSummary, announce},
    closing::Closing,
    fleet::{FleetThread, OwnReplica},
    observation::Observation,
    shutdown::{Shutdown, ShutdownCause},
    signals::{Signal, Signals},
    start::{AdminListener, start, start_admin},
    status::Status,
    worker::SharedState,
};

/// Serves until a signal ends it. Exit codes: 0 after a drain, 1 for what fails at run time, 2 for
/// what the configuration names and cannot be used.
pub fn serve(loaded: Loaded, source: ConfigSource) -> ExitCode {
    let boot = loaded.config.boot.clone();
    let trust = match trust(&loaded.config) {
        Ok(trust) => trust,
        Err(fault) => {
            log::error!("[Config] {fault}");
            return ExitCode::from(2);
        }
    };
    if let Err(cause) = fewest::ensure(boot.workers.get()) {
        log::error!("[Proxy] {cause}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(cause) => return failed("could not start the runtime", &cause),
    };
    runtime.block_on(run(boot, loaded, source, trust))
}

/// The trust store, read already where it will be needed, so that one that cannot be read is told
/// before the first request. A clear-text upstream needs none.
///
/// # Errors
/// What is wrong with the files that the configuration names.
pub fn trust(config: &Config) -> Result<Trust, TrustFault> {
    let trust = Trust::new(config.boot.upstream_ca_file.clone());
    let is_needed = |endpoint: &Endpoint| endpoint.upstream.scheme == Scheme::Https;
    if config.live.endpoints.iter().any(is_needed) || config.boot.upstream_ca_file.is_some() {
        trust.config()?;
    }
    Ok(trust)
}

/// Checks the files that a configuration names and other rooms read, as a start would.
///
/// # Errors
/// The first fault, with its remedy.
pub fn further_checks(config: &Config) -> Result<(), String> {
    trust(config).map_err(|fault| fault.to_string())?;
    control::check_generated_key(config).map_err(|fault| fault.to_string())
}

/// A trust store that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("UPSTREAM_CA_FILE, SSL_CERT_FILE, SSL_CERT_DIR: {0}{cause}", cause = cause(.0))]
pub struct TrustFault(#[from] TrustStoreError);

fn cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default()
}

fn failed(what: &str, cause: &dyn std::error::Error) -> ExitCode {
    log::error!("[Proxy] {what}: {cause}");
    ExitCode::FAILURE
}

async fn run(boot: Boot, loaded: Loaded, source: ConfigSource, trust: Trust) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(cause) => return failed("could not listen for signals", &cause),
    };
    let has_certificate = loaded.config.live.tls.is_some();
    let mut listeners = match listeners::open(&boot.listen, has_certificate) {
        Ok(listeners) => listeners,
        Err(fault) => {
            log::error!("[Proxy] {fault}");
            return fault.exit_code();
        }
    };
    let address = boot.admin_listen.as_slice();
    let inherited = std::mem::take(&mut listeners.admin);
    let alone = match address.is_empty() || inherited.is_empty() {
        true => sockets::bind(address, "ADMIN_LISTEN"),
        false => Ok(inherited),
    };
    let alone = match alone {
        Ok(alone) => alone,
        Err(fault) => {
            log::error!("[Admin] {fault}");
            return ExitCode::FAILURE;
        }
    };
    #[cfg(unix)]
    let mut upgrade = Upgrade::prepare(&listeners, &alone);
    let announced = StartupSummary::of(&listeners, &alone);
    let live = Arc::new(ArcSwap::from_pointee(loaded.config.live.clone()));
    let dashboard = announced.dashboard_url(&boot);
    let (limits, status) = (Arc::<Limits>::default(), Arc::new(Status::new()));
    let shared_store = shared_store(&boot, &status.boot_id);
    let observation =
        match Observation::start(&boot, &live, &dashboard, shared_store, &status.boot_id) {
            Ok(observation) => observation,
            Err(cause) => return failed("could not start telemetry", &cause),
        };
    let (phase, receiver) = watch::channel(DrainPhase::Starting);
    let standing = Arc::<ArcSwap<reload::ConfigStatus>>::default();
    let desk = match KeyDesk::open(&boot, &live, &status.boot_id) {
        Ok(desk) => desk,
        Err(code) => return code,
    };
    desk.announce();
    let balance = Arc::new(Balance::new(&loaded.config.live.endpoints));
    let port = listeners.addresses().next().map(|it| it.port());
    let counters = Arc::<reload::ReloadCounters>::default();
    let own = Arc::new(OwnReplica {
        boot: status.boot_id.clone(),
        started: status.started,
        limits: Arc::clone(&limits),
        metrics: Arc::clone(&observation.metrics),
        balance: Arc::clone(&balance),
        standing: Arc::clone(&standing),
        phase: receiver.clone(),
        name: fleet::replica_name(&status.boot_id, port),
        digest: Mutex::default(),
    });
    let heard = Arc::<ArcSwap<FleetSnapshot>>::default();
    let registry = desk.registry.as_ref();
    let gauges = observation.gauges(&limits, &balance, &counters, &live, registry);
    let alerts = match alerts::start(&boot, &own.name, &dashboard, &observation.metrics, &gauges) {
        Ok(alerts) => alerts,
        Err(cause) => return failed("could not start the thread of alerts", &cause),
    };
    let sender = match observation.send_metrics(&boot, &status.boot_id, &gauges) {
        Ok(sender) => sender,
        Err(cause) => return failed("could not start the thread that sends metrics", &cause),
    };
    let reloads = reload::ReloadHandle::default();
    let plane = AdminState::new(control::AdminSources {
        live: Arc::clone(&live),
        standing: Arc::clone(&standing),
        limits: Arc::clone(&limits),
        balance: Arc::clone(&balance),
        phase: receiver.clone(),
        boot_id: status.boot_id.clone(),
        started: status.started,
        url: dashboard,
        data_dir: boot.data_dir.clone(),
        registry: desk.registry.clone(),
        editor: Editor::new(
            source.clone(),
            Box::new(further_checks),
            Some(reloads.clone()),
        ),
        proxy_urls: announced.origins.clone(),
        view: observation.view(),
        replicas: fleet::source(&own, &heard),
        doctor: control::DoctorSources {
            ca_file: boot.upstream_ca_file.clone(),
            access: boot.access.mode,
            state: boot.access.state.clone(),
            targets: listeners.targets(),
            addresses: listeners
                .addresses()
                .chain(announced.alone.iter().copied())
                .collect(),
        },
        exposition: observation.exposition(&gauges),
    });
    let mut sign_in = None;
    if boot.has_pages() {
        sign_in = match plane.generate_key() {
            Ok(sign_in) => sign_in,
            Err(fault) => {
                log::error!("[Admin] {fault}");
                return ExitCode::from(2);
            }
        };
        // until the drain
        tokio::spawn(Arc::clone(&plane).tell());
    }
    let own_addresses = listeners
        .addresses()
        .chain(announced.alone.iter().copied())
        .collect();
    // a reload may set another one, or the first
    let largest_edit = live.load().edit.as_ref().map_or(0, |edit| edit.max_body);
    let shared = SharedState {
        live: Arc::clone(&live),
        limits,
        edit_memory: EditMemory::new(boot.edit_memory, largest_edit),
        replay_memory: Arc::new(Budget::new(
            boot.replay_memory.try_into().unwrap_or(usize::MAX),
        )),
        balance,
        metrics: Arc::clone(&observation.metrics),
        recorder: observation.recorder.clone(),
        tracer: observation.traces.as_ref().map(Traces::tracer),
        view: observation.view().filter(|_| {
            let recorder = observation.recorder.as_ref();
            recorder.is_some_and(EventSender::has_readers)
        }),
        status,
        plane,
        access: desk.access.clone(),
        access_mode: boot.access.mode,
        is_watched: boot.alerts.is_some() || boot.sent_metrics.is_some(),
        served: match boot.admin_listen {
            Some(_) => control::DashboardPlacement::Elsewhere,
            None if boot.dashboard => control::DashboardPlacement::Here,
            None => control::DashboardPlacement::Nowhere,
        },
        is_loopback: announced.are_local,
        phase: receiver,
        trust,
        own_addresses,
        shares: descriptors::share(
            descriptors::Wanted {
                connections: boot.max_connections,
                in_flight: live.load().max_in_flight,
                workers: boot.workers.get(),
                has_admin: boot.admin_listen.is_some() || desk.registry.is_some(),
            },
            |name| loaded.is_set(name),
        ),
        workers: boot.workers.get(),
        watchdog: systemd::Watchdog::asked_for(),
    };
    let closing = Closing::of(&listeners.sockets, listeners.are_passed);
    let sockets = std::mem::take(&mut listeners.sockets);
    let mut admin: Vec<AdminListener> = alone.into_iter().map(AdminListener::Tcp).collect();
    #[cfg(unix)]
    let (mut socket_file, mut waits_for) = (None, None);
    #[cfg(unix)]
    if let (Some(data_dir), Some(_)) = (&boot.data_dir, &desk.registry) {
        match access::listen(data_dir) {
            access::OperatorsSocket::Ours(socket, file) => {
                admin.push(AdminListener::Unix(socket));
                socket_file = Some(file);
            }
            access::OperatorsSocket::Occupied => {
                access::warn_of_occupied(data_dir);
                waits_for = Some(data_dir.clone());
            }
            access::OperatorsSocket::Unusable => {}
        }
    }
    let started = start(&boot, sockets, &shared)
        .and_then(|server| Ok((server, start_admin(&boot, admin, &shared)?)));
    let (server, admin_server) = match started {
        Ok(started) => started,
        Err(cause) => return failed("could not start the workers", &cause),
    };
    let handle = server.handle();
    let server = tokio::spawn(server);
    #[cfg(unix)]
    let admin_handle = admin_server.as_ref().map(Server::handle);
    // until the end: probes ask there while the drain goes on
    let admin_server = admin_server.map(tokio::spawn);
    #[cfg(unix)]
    let late_operators = waits_for
        .map(|data_dir| tokio::spawn(start::listen_late(data_dir, boot.clone(), shared.clone())));
    let _ = phase.send(DrainPhase::Running);
    let connections = shared.shares.connections;
    announce(
        &announced,
        &boot,
        &live.load(),
        connections,
        sign_in.as_deref(),
    );
    if let Some(watchdog) = &shared.watchdog {
        tokio::spawn(Arc::clone(watchdog).watch());
    }
    systemd::ready();
    #[cfg(unix)]
    if let Some(ready) = listeners.ready.take() {
        handover::say_ready(&ready);
    }
    let reload_counters = Arc::clone(&counters);
    let reloader = reload::spawn(source, loaded, live, counters, standing, &reloads);
    let fleet = match fleet_thread(&boot, own, heard) {
        Ok(fleet) => fleet,
        Err(cause) => return failed("could not start the thread of the replicas", &cause),
    };
    let mut reloader = match reloader {
        Ok(reloader) => Some(reloader),
        Err(cause) => {
            log::warn!("[Config] hot reload is not available: {cause}");
            None
        }
    };
    loop {
        #[cfg(unix)]
        let signal = tokio::select! {
            signal = signals.next() => signal,
            successor = upgrade.taken_over() => {
                systemd::main_process(successor);
                drop(reloader);
                if let Some(admin) = &admin_handle {
                    admin.pause().await;
                }
                let end = Shutdown {
                    cause: ShutdownCause::HandOver(successor),
                    server: &handle,
                    // the sockets are the new process's, too
                    closing: Closing::default(),
                    phase: &phase,
                    limits: &shared.limits,
                    workers: shared.workers,
                    delay: HANDOVER_GRACE,
                    patience: boot.shutdown_timeout,
                };
                if let Some(file) = listeners.file.take() {
                    file.leave();
                }
                end.drain(listeners, &mut signals).await;
                break;
            }
        };
        #[cfg(not(unix))]
        let signal = signals.next().await;
        match signal {
            Signal::Reload => {
                if let Some(reloader) = &mut reloader {
                    systemd::reloading();
                    tokio::spawn(tell_reloaded(Arc::clone(&reload_counters)));
                    reloader.reload_now();
                }
            }
            #[cfg(unix)]
            Signal::Upgrade => upgrade.begin(),
            #[cfg(not(unix))]
            Signal::Upgrade => {}
            Signal::Reopen => {
                if let Some(activity) = &observation.activity {
                    activity.reopen();
                }
            }
            Signal::Stop(name) => {
                drop(reloader);
                // a handle on a socket would keep it open
                #[cfg(unix)]
                drop(upgrade);
                systemd::stopping();
                let end = Shutdown {
                    cause: ShutdownCause::Signal(name),
                    server: &handle,
                    closing,
                    phase: &phase,
                    limits: &shared.limits,
                    workers: shared.workers,
                    delay: boot.drain_delay,
                    patience: boot.shutdown_timeout,
                };
                // the next process may want the path of a Unix socket: its file goes with the listeners
                end.drain(listeners, &mut signals).await;
                break;
            }
        }
    }
    drop(alerts);
    drop(sender);
    if let Some(state) = &boot.access.state {
        state.usage.end();
    }
    desk.prepare_end();
    drop(fleet);
    desk.end();
    server.abort();
    if let Some(server) = admin_server {
        server.abort();
    }
    #[cfg(unix)]
    {
        drop(socket_file);
        if let Some(late) = late_operators {
            late.abort();
            // its file goes with it
            let _ = late.await;
        }
    }
    ExitCode::SUCCESS
}

/// The store in which replicas share usage and sessions, if there is one.
fn shared_store(boot: &Boot, boot_id: &str) -> Option<SharedStore> {
    let settings = boot.access.state.as_ref()?;
    Some(SharedStore {
        boot: boot_id.to_owned(),
        publisher: Box::new(RedisFleet::new(settings)),
        reader: Box::new(RedisFleet::new(settings)),
    })
}

/// Starts the thread that talks with other replicas, if there is a shared store.
fn fleet_thread(
    boot: &Boot,
    own: Arc<OwnReplica>,
    heard: Arc<ArcSwap<FleetSnapshot>>,
) -> io::Result<Option<FleetThread>> {
    let Some(settings) = &boot.access.state else {
        return Ok(None);
    };
    let store = Box::new(RedisFleet::new(settings));
    FleetThread::start(own, store, heard).map(Some)
}

/// Tells systemd once the files have been read.
async fn tell_reloaded(counters: Arc<reload::ReloadCounters>) {
    let count = || counters.succeeded.load(Relaxed) + counters.failed.load(Relaxed);
    let before = count();
    let reloaded = async {
        while count() == before {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let _ = tokio::time::timeout(RELOAD_PATIENCE, reloaded).await;
    systemd::ready();
}

/// Between looks at the counts of reloads.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// For a reload to end.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// For the next request of an idle connection, after a hand-over.
#[cfg(unix)]
const HANDOVER_GRACE: Duration = Duration::from_secs(5);
