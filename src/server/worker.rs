//! A worker: its client, its routes, and the connection loop of [`crate::downstream`] between them, for the connections
//! of each listener.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use actix_http::Request;
use actix_service::{IntoServiceFactory as _, Service, ServiceFactory as _, fn_service};
use actix_web::{
    App,
    body::BoxBody,
    dev::{AppConfig, ServiceResponse},
    guard, web,
};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    descriptors::Shares,
    inbound::InboundProtocol,
    status::{self, Status},
    systemd,
};
use crate::{
    access::{Access, local::LocalAccess},
    config::{AccessMode, Live},
    control::{self, AdminState},
    doctor,
    downstream::Services,
    drain::{Drain, DrainPhase},
    limits::{Limits, Overflow},
    memory::Budget,
    proxy::{self, EditMemory, OwnSessions, RequestId, RunningKeys, Telemetry, Worker},
    telemetry::activity::{ActivityView, EventSender},
    telemetry::metrics::Metrics,
    telemetry::traces::Tracer,
    upstream::{
        Client,
        balance::Balance,
        dial::{Dialer, Trust},
    },
};

/// Snapshots, counts and the phase, shared by all workers.
#[derive(Clone)]
pub(super) struct SharedState {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) limits: Arc<Limits>,
    pub(super) edit_memory: EditMemory,
    pub(super) replay_memory: Arc<Budget>,
    pub(super) balance: Arc<Balance>,
    /// Counters for the metrics.
    pub(super) metrics: Arc<Metrics>,
    /// Queue of finished exchanges, if the dashboard or the access log is on.
    pub(super) recorder: Option<EventSender>,
    /// Traces, if they are on.
    pub(super) tracer: Option<Tracer>,
    /// Sessions that keys may read.
    pub(super) view: Option<ActivityView>,
    pub(super) status: Arc<Status>,
    pub(super) plane: Arc<AdminState>,
    /// Keys of the proxy, where there may be any.
    pub(super) access: Option<Arc<Access>>,
    /// Requests that need one.
    pub(super) access_mode: AccessMode,
    /// Alerts look at the counts of the workers, or they are sent.
    pub(super) is_watched: bool,
    /// Part of the admin paths that the main ports serve.
    pub(super) served: control::DashboardPlacement,
    /// All listeners are reachable from this machine only.
    pub(super) is_loopback: bool,
    pub(super) phase: watch::Receiver<DrainPhase>,
    pub(super) trust: Trust,
    /// The listeners' own addresses: no upstream may have one of them.
    pub(super) own_addresses: Arc<[SocketAddr]>,
    /// Shares of the file descriptors.
    pub(super) shares: Shares,
    pub(super) workers: usize,
    /// Signs of life of the workers, where systemd wants them.
    pub(super) watchdog: Option<Arc<systemd::Watchdog>>,
}

/// Purpose of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerRole {
    /// Forwarding, and what paths of ours there are.
    Main,
    /// The admin plane alone.
    Admin,
    /// The API alone, on the socket in `DATA_DIR`.
    Operators,
}

/// Builds the service that a worker runs for the connections of one listener.
pub(super) async fn service<I: InboundProtocol>(
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
