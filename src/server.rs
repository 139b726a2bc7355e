//! The composition root: sockets, workers, signals, drain.
//!
//! actix-server accepts and gives connections to its workers, one thread and one runtime each. A worker
//! is built here: its client, its routes, and the connection loop of [`crate::downstream`] between
//! them. `HttpServer` of actix-web is the same server and the same `App` around actix-http's
//! connection loop; that loop is what cannot be had there.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix_http::Request;
use actix_server::{Server, ServerBuilder, ServerHandle};
use actix_service::{
    IntoServiceFactory as _, Service, ServiceFactory as _, fn_factory, fn_service,
};
use actix_web::{
    App,
    body::BoxBody,
    dev::{AppConfig, ServiceResponse},
    guard, web,
};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    access::{Access, local::LocalAccess},
    config::{AccessMode, Boot, Config, ConfigSource, Endpoint, Live, Loaded, Scheme, reload},
    control::{self, AdminState, FleetSnapshot},
    doctor,
    downstream::Services,
    drain::{Drain, DrainPhase},
    limits::{Limits, Overflow},
    logging,
    memory::Budget,
    proxy::{self, EditMemory, OwnSessions, RequestId, RunningKeys, Telemetry, Worker},
    registry::Registry,
    revision::Editor,
    state::RedisFleet,
    telemetry::activity::{
        self, Activity, ActivityView, BreakCause, CacheWarningSources, EventSender, SharedStore,
    },
    telemetry::metrics::{Gauges, Metrics, SharingGauges, UpstreamGauges},
    telemetry::sent_metrics::{ExportCounts, MetricSender, SentMetricSources},
    telemetry::traces::{Tracer, Traces},
    upstream::{
        Client,
        balance::Balance,
        dial::{Dialer, Trust, TrustStoreError},
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
mod signals;
mod sockets;
mod status;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(not(target_os = "linux"))]
#[path = "server/no_systemd.rs"]
mod systemd;
#[cfg(unix)]
mod unix;

pub use self::access::ADMIN_SOCKET;
use self::{
    access::KeyDesk,
    alerts::GaugeSource,
    announce::{StartupSummary, announce},
    closing::Closing,
    descriptors::Shares,
    fleet::{FleetThread, OwnReplica},
    inbound::InboundProtocol,
    listener::Listener,
    listeners::Listeners,
    signals::{Signal, Signals},
    status::Status,
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

/// Telemetry of the process; parts without a reader are off.
struct Observation {
    /// The activity and the access log. Dropped last: what is queued is written then.
    activity: Option<Activity>,
    recorder: Option<EventSender>,
    /// Traces, if they are on.
    traces: Option<Traces>,
    metrics: Arc<Metrics>,
    /// Counts of requests with metrics, if they are sent.
    metric_exports: Option<Arc<ExportCounts>>,
}

impl Observation {
    fn start(
        boot: &Boot,
        live: &Arc<ArcSwap<Live>>,
        dashboard: &str,
        shared: Option<SharedStore>,
        boot_id: &str,
    ) -> io::Result<Self> {
        let cache_warnings = boot.cache_warnings.clone();
        let live = Arc::clone(live);
        let cache_warnings = cache_warnings.map(|settings| CacheWarningSources {
            settings,
            page: (boot.has_pages() && dashboard.starts_with("http"))
                .then(|| format!("{dashboard}/sessions?sort=cache_breaks")),
            prices: Box::new(move || Arc::clone(&live.load().prices)),
        });
        let has_readers = boot.has_pages() || cache_warnings.is_some();
        let is_recorded = has_readers || boot.access_log.is_some();
        let settings = activity::ActivitySettings {
            access_log: boot.access_log.clone(),
            data_dir: boot.data_dir.clone().filter(|_| boot.has_pages()),
            has_readers,
            cache_warnings,
            zone: Some(boot.zone.clone()),
            shared,
        };
        let (activity, recorder) = is_recorded
            .then(|| Activity::start(settings))
            .transpose()?
            .unzip();
        let traces = boot.traces.as_ref();
        let traces = traces.map(|settings| Traces::start(settings, boot_id));
        Ok(Self {
            activity,
            recorder,
            traces: traces.transpose()?,
            metrics: Metrics::new(),
            metric_exports: boot.sent_metrics.as_ref().map(|_| Arc::default()),
        })
    }

    /// View of the recorded activity, if it is recorded.
    fn view(&self) -> Option<ActivityView> {
        self.activity.as_ref().map(Activity::view)
    }

    /// Writes the metrics of a moment.
    fn exposition(&self, gauges: &GaugeSource) -> control::Exposition {
        let (metrics, gauges) = (Arc::clone(&self.metrics), Arc::clone(gauges));
        Box::new(move |format| metrics.expose(&gauges(), format))
    }

    /// Starts the thread that sends the metrics, if they are asked for (`OTEL_METRICS_EXPORTER`).
    fn send_metrics(
        &self,
        boot: &Boot,
        boot_id: &str,
        gauges: &GaugeSource,
    ) -> io::Result<Option<MetricSender>> {
        let (Some(settings), Some(counts)) = (&boot.sent_metrics, &self.metric_exports) else {
            return Ok(None);
        };
        let gauges = Arc::clone(gauges);
        MetricSender::start(SentMetricSources {
            settings: settings.clone(),
            instance: boot_id.to_owned(),
            metrics: Arc::clone(&self.metrics),
            gauges: Box::new(move || gauges()),
            counts: Arc::clone(counts),
        })
        .map(Some)
    }

    /// Reads what a moment has, beside the counters of the workers.
    fn gauges(
        &self,
        limits: &Arc<Limits>,
        balance: &Arc<Balance>,
        counters: &Arc<reload::ReloadCounters>,
        live: &Arc<ArcSwap<Live>>,
        registry: Option<&Arc<Registry>>,
    ) -> GaugeSource {
        let view = self.view();
        let (limits, balance) = (Arc::clone(limits), Arc::clone(balance));
        let (counters, live) = (Arc::clone(counters), Arc::clone(live));
        let registry = registry.map(Arc::clone);
        let traces = self.traces.as_ref().map(Traces::counts);
        let exports = self.metric_exports.clone();
        Arc::new(move || {
            let live = live.load();
            let states = balance.states(&live.endpoints);
            let idle = balance.idle(&live.endpoints);
            let upstreams = live.endpoints.iter().zip(states).zip(idle);
            Gauges {
                version: env!("CARGO_PKG_VERSION"),
                in_flight: limits.in_flight(),
                connections: limits.connections(),
                reload_succeeded: counters.succeeded.load(Relaxed),
                reload_failed: counters.failed.load(Relaxed),
                last_reload_successful: counters.last_succeeded.load(Relaxed),
                log_lines_dropped: logging::dropped(),
                exchanges_dropped: view.as_ref().map_or(0, |view| view.dropped()),
                access_log_lines_dropped: view.as_ref().map_or(0, |view| view.access_log_dropped()),
                traces_dropped: traces.as_ref().map(|traces| traces.dropped()),
                metric_exports: exports.as_ref().map(|exports| exports.read()),
                cache_breaks: view.as_ref().map_or_else(Vec::new, |view| {
                    let labels = BreakCause::ALL.map(BreakCause::label);
                    labels.into_iter().zip(view.cache_breaks()).collect()
                }),
                state: registry.as_ref().map(|registry| registry.store_health()),
                state_copy: registry.as_ref().and_then(|it| it.copy_age()),
                sharing: registry
                    .as_ref()
                    .and_then(|it| it.sharing())
                    .map(|it| SharingGauges {
                        syncs: it.syncs,
                        failures: it.failures,
                        reports: it.reports,
                        silent: it.silent,
                        stale: it.stale,
                        lost: it.lost,
                    }),
                upstreams: upstreams
                    .map(|((endpoint, state), idle)| UpstreamGauges {
                        // of two with one URL, each has a series
                        url: endpoint.name.to_string(),
                        circuit: state.label(),
                        idle_connections: idle.load(Relaxed),
                    })
                    .collect(),
                prices_date: live.prices.date.to_string(),
            }
        })
    }
}

/// Snapshots, counts and the phase, shared by all workers.
#[derive(Clone)]
struct SharedState {
    live: Arc<ArcSwap<Live>>,
    limits: Arc<Limits>,
    edit_memory: EditMemory,
    replay_memory: Arc<Budget>,
    balance: Arc<Balance>,
    /// Counters for the metrics.
    metrics: Arc<Metrics>,
    /// Queue of finished exchanges, if the dashboard or the access log is on.
    recorder: Option<EventSender>,
    /// Traces, if they are on.
    tracer: Option<Tracer>,
    /// Sessions that keys may read.
    view: Option<ActivityView>,
    status: Arc<Status>,
    plane: Arc<AdminState>,
    /// Keys of the proxy, where there may be any.
    access: Option<Arc<Access>>,
    /// Requests that need one.
    access_mode: AccessMode,
    /// Alerts look at the counts of the workers, or they are sent.
    is_watched: bool,
    /// Part of the admin paths that the main ports serve.
    served: control::DashboardPlacement,
    /// All listeners are reachable from this machine only.
    is_loopback: bool,
    phase: watch::Receiver<DrainPhase>,
    trust: Trust,
    /// The listeners' own addresses: no upstream may have one of them.
    own_addresses: Arc<[SocketAddr]>,
    /// Shares of the file descriptors.
    shares: Shares,
    workers: usize,
    /// Signs of life of the workers, where systemd wants them.
    watchdog: Option<Arc<systemd::Watchdog>>,
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
    let announced = StartupSummary::of(&listeners, &alone, &loaded.settings);
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
    let counters = Arc::<reload::ReloadCounters>::default();
    let own = Arc::new(OwnReplica {
        boot: status.boot_id.clone(),
        started: status.started,
        limits: Arc::clone(&limits),
        metrics: Arc::clone(&observation.metrics),
        balance: Arc::clone(&balance),
        standing: Arc::clone(&standing),
        phase: receiver.clone(),
        name: fleet::host_name(&status.boot_id),
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
        shares: descriptors::share(descriptors::Wanted {
            connections: boot.max_connections,
            in_flight: live.load().max_in_flight,
            workers: boot.workers.get(),
            has_admin: boot.admin_listen.is_some() || desk.registry.is_some(),
        }),
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
    let late_operators =
        waits_for.map(|data_dir| tokio::spawn(listen_late(data_dir, boot.clone(), shared.clone())));
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

/// Takes the socket of verbs once the server that has it has ended, and serves there until the end.
#[cfg(unix)]
async fn listen_late(data_dir: PathBuf, boot: Boot, shared: SharedState) {
    loop {
        tokio::time::sleep(OPERATORS_INTERVAL).await;
        let (socket, _file) = match access::listen(&data_dir) {
            access::OperatorsSocket::Ours(socket, file) => (socket, file),
            access::OperatorsSocket::Occupied => continue,
            access::OperatorsSocket::Unusable => return,
        };
        match start_admin(&boot, vec![AdminListener::Unix(socket)], &shared) {
            Ok(Some(server)) => {
                log::info!(
                    "[Admin] the other server on DATA_DIR {} has ended: verbs on this machine reach this one now",
                    data_dir.display()
                );
                // it ends with the process
                let _ = server.await;
            }
            Ok(None) => {}
            Err(cause) => log::warn!(
                "[Admin] {} could not be served: {cause}; verbs on this machine need --server",
                data_dir.join(ADMIN_SOCKET).display()
            ),
        }
        return;
    }
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

/// Inputs of the shutdown.
struct Shutdown<'a> {
    /// The event that asked for it.
    cause: ShutdownCause,
    server: &'a ServerHandle,
    closing: Closing,
    phase: &'a watch::Sender<DrainPhase>,
    limits: &'a Arc<Limits>,
    workers: usize,
    delay: Duration,
    patience: Duration,
}

/// Cause of a shutdown.
#[derive(Debug, Clone, Copy)]
enum ShutdownCause {
    /// A signal, by its name.
    Signal(&'static str),
    /// The process of this id has taken over.
    #[cfg(unix)]
    HandOver(u32),
}

impl std::fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            #[cfg(unix)]
            Self::HandOver(successor) => write!(f, "process {successor} has taken over"),
        }
    }
}

impl Shutdown<'_> {
    /// Readiness fails; after a delay the listeners close and idle connections end, and what runs may
    /// run on for a while. What still runs then, or at a second signal, is cut.
    async fn drain(self, listeners: Listeners, signals: &mut Signals) {
        let cause = tokio::select! {
            biased;
            () = signals.stop() => "second signal",
            is_quiet = self.run_out(listeners) => match is_quiet {
                true => return log::info!("[Proxy] drained"),
                false => "SHUTDOWN_TIMEOUT",
            },
        };
        log::warn!(
            "[Proxy] {cause}: {} exchanges aborted",
            self.limits.in_flight()
        );
        self.limits.cut();
        let _ = self.phase.send(DrainPhase::Cut);
        // the workers need a moment to see it and to reset what must not look complete
        let _ = tokio::time::timeout(CUT_PATIENCE, until_quiet(self.limits)).await;
    }

    /// Waits for connections to end; reports that all ended in time.
    async fn run_out(&self, listeners: Listeners) -> bool {
        let Self {
            cause, patience, ..
        } = self;
        match cause {
            #[cfg(unix)]
            ShutdownCause::HandOver(successor) => {
                // no more connections; idle ones may send one more request, which is answered
                self.closing.close(self.server).await;
                log::info!(
                    "[Upgrade] process {successor} takes all new connections; {} exchanges run on here",
                    self.limits.in_flight()
                );
                let _ = self.phase.send(DrainPhase::HandedOver);
                let quiet = until_quiet(self.limits);
                let _ = tokio::time::timeout(self.delay, quiet).await;
            }
            ShutdownCause::Signal(name) if !self.delay.is_zero() => {
                let _ = self.phase.send(DrainPhase::Leaving);
                log::info!(
                    "[Proxy] {name}: readiness fails; connections are still accepted for {:?} (DRAIN_DELAY)",
                    self.delay
                );
                tokio::time::sleep(self.delay).await;
            }
            ShutdownCause::Signal(_) => {}
        }
        log::info!(
            "[Proxy] {cause}: draining, up to {patience:?} for {} exchanges",
            self.limits.in_flight()
        );
        let _ = self.phase.send(DrainPhase::Draining);
        if let ShutdownCause::Signal(_) = cause {
            self.closing.close(self.server).await;
        }
        drop(listeners);
        // stopping the server drops what its workers have not begun to serve; a worker that died since
        // the last look will not begin
        let _ = tokio::time::timeout(BEGIN_PATIENCE, async {
            while self.limits.draining_workers() < self.workers {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        })
        .await;
        drop(self.server.stop(true));
        tokio::time::timeout(*patience, until_quiet(self.limits))
            .await
            .is_ok()
    }
}

/// Hand-over of the sockets to a new process.
#[cfg(unix)]
struct Upgrade {
    program: io::Result<handover::Program>,
    sockets: Vec<handover::Heirloom>,
    owner: handover::SocketOwner,
    successor: Option<handover::Successor>,
}

#[cfg(unix)]
impl Upgrade {
    fn prepare(listeners: &Listeners, admin: &[TcpListener]) -> Self {
        Self {
            program: handover::Program::current(),
            sockets: listeners.heirlooms(admin),
            owner: match listeners.are_passed {
                true => handover::SocketOwner::Manager,
                false => handover::SocketOwner::Program,
            },
            successor: None,
        }
    }

    /// Starts a new process, unless one is starting.
    fn begin(&mut self) {
        if let Some(successor) = &self.successor {
            log::warn!(
                "[Upgrade] process {} is starting already; a second request changes nothing",
                successor.id()
            );
            return;
        }
        let program = match &self.program {
            Ok(program) => program,
            Err(cause) => {
                log::error!(
                    "[Upgrade] the program's own file is not known: {cause}; this process goes on"
                );
                return;
            }
        };
        match program.start(&self.sockets, self.owner) {
            Ok(successor) => {
                log::info!(
                    "[Upgrade] process {} is starting with this one's sockets",
                    successor.id()
                );
                self.successor = Some(successor);
            }
            Err(fault) => log::error!("[Upgrade] {fault}; this process goes on"),
        }
    }

    /// Waits until a new process has taken over, and gives its id. May be dropped and called again.
    async fn taken_over(&mut self) -> u32 {
        loop {
            let Some(successor) = &mut self.successor else {
                return std::future::pending().await;
            };
            let id = successor.id();
            let outcome = successor.ready().await;
            // it is on its own now, or has ended
            self.successor = None;
            match outcome {
                Ok(()) => return id,
                Err(fault) => log::error!("[Upgrade] {fault}; this process goes on"),
            }
        }
    }
}

#[cfg(unix)]
impl Drop for Upgrade {
    fn drop(&mut self) {
        // this process ends: one that is not ready yet would be left without its place
        if let Some(successor) = &mut self.successor {
            successor.end();
        }
    }
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

/// For a reload to end.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// For the next request of an idle connection, after a hand-over.
#[cfg(unix)]
const HANDOVER_GRACE: Duration = Duration::from_secs(5);

/// For all workers to begin the drain, on however busy a machine.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at what the workers count.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Between looks at whether another server still has the socket of verbs.
#[cfg(unix)]
const OPERATORS_INTERVAL: Duration = Duration::from_millis(500);

/// For a cut to reach every connection.
const CUT_PATIENCE: Duration = Duration::from_millis(500);

async fn until_quiet(limits: &Limits) {
    while limits.connections() > 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Starts the workers on the listeners.
fn start(boot: &Boot, listeners: Vec<Listener>, shared: &SharedState) -> io::Result<Server> {
    let mut builder = builder(boot, boot.workers.get(), &shared.shares);
    for (index, listener) in listeners.into_iter().enumerate() {
        let (name, shared) = (format!("listener-{index}"), shared.clone());
        builder = match listener {
            Listener::Plain(socket) => builder.listen(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || service::<inbound::PlainTcp>(shared.clone(), ListenerRole::Main))
            })?,
            Listener::Tls(socket) => builder.listen(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || service::<inbound::TlsTcp>(shared.clone(), ListenerRole::Main))
            })?,
            #[cfg(unix)]
            Listener::Unix(socket) => builder.listen_uds(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::UnixDomain>(shared.clone(), ListenerRole::Main)
                })
            })?,
        };
    }
    Ok(builder.run())
}

/// A listener of the admin plane alone.
enum AdminListener {
    /// `ADMIN_LISTEN`.
    Tcp(TcpListener),
    /// The socket in `DATA_DIR`.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Starts the admin plane's own worker, where it has a listener. It counts its connections by itself:
/// they take no place of clients, and no drain waits for them.
fn start_admin(
    boot: &Boot,
    alone: Vec<AdminListener>,
    shared: &SharedState,
) -> io::Result<Option<Server>> {
    if alone.is_empty() {
        return Ok(None);
    }
    let mut shared = shared.clone();
    shared.limits = Arc::default();
    shared.shares.connections = shared.shares.admin;
    shared.workers = 1;
    let mut builder = builder(boot, 1, &shared.shares);
    for socket in alone {
        let shared = shared.clone();
        builder = match socket {
            AdminListener::Tcp(socket) => builder.listen("admin", socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::PlainTcp>(shared.clone(), ListenerRole::Admin)
                })
            })?,
            #[cfg(unix)]
            AdminListener::Unix(socket) => builder.listen_uds("operators", socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::UnixDomain>(shared.clone(), ListenerRole::Operators)
                })
            })?,
        };
    }
    Ok(Some(builder.run()))
}

fn builder(boot: &Boot, workers: usize, shares: &Shares) -> ServerBuilder {
    // We count connections ourselves, and answer some of those beyond the limit. This bounds what is
    // accepted and not yet counted: the rest waits in the kernel.
    let most = (shares.connections + shares.overflow).div_ceil(workers) + MOST_QUEUED;
    Server::build()
        .workers(workers)
        .disable_signals()
        .max_concurrent_connections(most)
        // the drain decides; this only must not be shorter
        .shutdown_timeout(boot.shutdown_timeout.as_secs() + 60)
}

/// Connections of one worker that are accepted and not yet counted: half of the descriptors that are
/// reserved for a worker.
const MOST_QUEUED: usize = 8;

/// Purpose of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListenerRole {
    /// Forwarding, and what paths of ours there are.
    Main,
    /// The admin plane alone.
    Admin,
    /// The API alone, on the socket in `DATA_DIR`.
    Operators,
}

/// Builds the service that a worker runs for the connections of one listener.
async fn service<I: InboundProtocol>(
    shared: SharedState,
    part: ListenerRole,
) -> Result<impl Service<I::Stream, Response = (), Error = ()>, ()> {
    let place = WorkerContext::here(&shared);
    let overflow = match I::IS_COSTLY {
        true => &place.costly_overflow,
        false => &place.overflow,
    };
    let overflow = Rc::clone(overflow);
    let services = Rc::new(worker(shared, Rc::clone(&place), part, overflow).await?);
    Ok(fn_service(move |stream| {
        // the listeners that start later find it
        let _place = &place;
        let services = Rc::clone(&services);
        async move {
            I::serve(stream, services).await;
            Ok(())
        }
    }))
}

/// State that the listeners of one worker share: its connections to the upstream, and the drain.
struct WorkerContext {
    worker: Rc<Worker>,
    drain: Rc<Drain>,
    overflow: Rc<Overflow>,
    costly_overflow: Rc<Overflow>,
}

/// Connections over TLS beyond the limit, at a time, of the process: each takes tens of kilobytes.
const COSTLY_OVERFLOW: usize = 64;

impl WorkerContext {
    /// The context of this thread's worker.
    fn here(shared: &SharedState) -> Rc<Self> {
        thread_local! {
            static PLACE: RefCell<Weak<WorkerContext>> = const { RefCell::new(Weak::new()) };
        }
        PLACE.with_borrow_mut(|place| {
            place.upgrade().unwrap_or_else(|| {
                let new = Rc::new(Self::new(shared));
                *place = Rc::downgrade(&new);
                new
            })
        })
    }

    fn new(shared: &SharedState) -> Self {
        let drain = Rc::new(Drain::default());
        actix_rt::spawn(follow_phase(
            shared.phase.clone(),
            Rc::downgrade(&drain),
            Arc::clone(&shared.limits),
        ));
        if let Some(watchdog) = &shared.watchdog {
            actix_rt::spawn(Arc::clone(watchdog).live());
        }
        let observer = Telemetry::new(
            shared.recorder.clone(),
            shared.tracer.clone(),
            shared.metrics.shard(),
        );
        let observer = Rc::new(observer.watched(shared.is_watched));
        let worker = Rc::new(Worker {
            client: Client::new(
                Dialer::new(shared.trust.clone()).that_refuses(Arc::clone(&shared.own_addresses)),
                &shared.live.load(),
                Arc::clone(&shared.balance),
                Arc::clone(&observer.shard),
            ),
            observer,
            live: Arc::clone(&shared.live),
            limits: Arc::clone(&shared.limits),
            edit_memory: shared.edit_memory.clone(),
            replay_memory: Arc::clone(&shared.replay_memory),
            balance: Arc::clone(&shared.balance),
            access: shared.access.clone().map(LocalAccess::new),
            access_mode: shared.access_mode,
            running_keys: match &shared.access {
                Some(access) => RunningKeys::watched(Arc::clone(access)),
                None => Rc::default(),
            },
            recent_prices: RefCell::default(),
            last_model: RefCell::default(),
            sessions: OwnSessions::new(shared.view.clone()),
            serves_dashboard: shared.served == control::DashboardPlacement::Here,
            is_loopback: shared.is_loopback,
            max_in_flight: shared.shares.in_flight,
        });
        let of_worker = |all: usize| Overflow::new((all / shared.workers).max(1));
        Self {
            worker,
            drain,
            overflow: of_worker(shared.shares.overflow),
            costly_overflow: of_worker(shared.shares.overflow.min(COSTLY_OVERFLOW)),
        }
    }
}

/// Builds a worker's part for one listener: its routes, and what it shares with the others.
async fn worker(
    shared: SharedState,
    place: Rc<WorkerContext>,
    part: ListenerRole,
    overflow: Rc<Overflow>,
) -> Result<Services<impl Service<Request, Response = ServiceResponse<BoxBody>>>, ()> {
    let (worker, drain) = (Rc::clone(&place.worker), Rc::clone(&place.drain));
    let (status, phase) = (Arc::clone(&shared.status), shared.phase.clone());
    let door: Rc<dyn doctor::Door> = Rc::new(WorkerDoor(Rc::clone(&worker)));
    let app = App::new()
        .app_data(web::ThinData(worker))
        .app_data(web::ThinData(status))
        .app_data(web::ThinData(phase))
        .app_data(web::ThinData(door))
        .service(own("/health", part).route(local().to(status::health)))
        .service(own("/livez", part).route(local().to(status::livez)))
        .service(own("/readyz", part).route(local().to(status::readyz)))
        .configure(|routes| match part {
            ListenerRole::Main => {
                let forward = web::to(proxy::forward);
                control::mount(routes, &shared.plane, shared.served, forward);
            }
            ListenerRole::Admin => control::mount_alone(routes, &shared.plane),
            ListenerRole::Operators => control::mount_socket(routes, &shared.plane),
        })
        .default_service(match part {
            ListenerRole::Main => web::to(proxy::forward),
            ListenerRole::Admin | ListenerRole::Operators => web::to(control::not_found),
        });
    let app = app.into_factory().new_service(AppConfig::default()).await?;
    let (observer, live) = (Rc::clone(&place.worker.observer), Arc::clone(&shared.live));
    Ok(Services {
        app,
        live: Arc::clone(&shared.live),
        limits: Arc::clone(&shared.limits),
        max_connections: shared.shares.connections,
        overflow,
        drain,
        is_local: match part {
            ListenerRole::Main if shared.served == control::DashboardPlacement::Here => {
                status::is_local_or_dashboard
            }
            ListenerRole::Main => status::is_local,
            ListenerRole::Admin | ListenerRole::Operators => |_| true,
        },
        request_id: || RequestId::next().to_string(),
        refused: Box::new(move |client, refused| observer.refused(&live.load(), client, refused)),
    })
}

/// The HTTP client of a worker, for the doctor.
struct WorkerDoor(Rc<Worker>);

impl doctor::Door for WorkerDoor {
    fn client(&self) -> &Client {
        &self.0.client
    }
}

/// A path of ours; methods that we do not answer are forwarded as everything else, where anything is.
fn own(path: &str, part: ListenerRole) -> actix_web::Resource {
    web::resource(path.to_owned()).default_service(match part {
        ListenerRole::Main => web::to(proxy::forward),
        ListenerRole::Admin | ListenerRole::Operators => web::to(|| control::refused("GET, HEAD")),
    })
}

fn local() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Tells the worker's connections how far the end has come.
async fn follow_phase(
    mut phase: watch::Receiver<DrainPhase>,
    drain: std::rc::Weak<Drain>,
    limits: Arc<Limits>,
) {
    let mut drains = false;
    loop {
        let now = *phase.borrow_and_update();
        let Some(drain) = drain.upgrade() else { return };
        drain.advance(now);
        drop(drain);
        if now >= DrainPhase::Draining && !std::mem::replace(&mut drains, true) {
            // the connections that were sent to this worker before it was woken for this are spawned by
            // now, and count themselves when they are polled first
            tokio::task::yield_now().await;
            limits.drains();
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}
