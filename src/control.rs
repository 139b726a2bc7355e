//! The admin plane: the dashboard's pages, the API that they read, and the metrics.
//!
//! It reads what others keep, and changes its own sessions. Keys and limits it has the registry change
//! (`control::call`), and the file of settings the room `revision` (`control::revisions`). The one thing that it
//! does to what passes is to end an exchange (`control::end`). Who may read what is decided in one place, around
//! all routes (`control::admission`): a path that is not named there is closed. The routes are a table here;
//! their handlers are thin.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, Resource, ResponseError as _,
    guard::{self, GuardContext},
    http::{Method, header},
    middleware, web,
};

use crate::{drain::DrainPhase, wire::head::RequestHead};

mod admission;
mod api;
mod assets;
mod attempts;
mod audit;
mod author;
mod blocking_pool;
mod broadcast;
mod call;
mod caller;
mod configuration;
mod content;
mod doctor;
mod doctor_desk;
mod end;
mod events;
mod generated_key;
mod heard;
mod identity;
mod keys;
mod limits;
mod login;
mod near_miss;
mod openapi;
mod paths;
mod problem;
mod query;
mod rejected_keys;
mod replicas;
mod revisions;
mod session;
mod state;

pub use self::{
    doctor_desk::DoctorSources,
    generated_key::check_generated_key,
    heard::{FleetSnapshot, HeardReplica, ReplicaBeat},
    paths::{METRICS, owns},
    state::{AdminSources, AdminState, Exposition, ReplicaSource},
};
use self::{
    paths::{API, Exposure, PAGES, ROOT, is_unknown_page, names_html},
    problem::Problem,
};

impl AdminState {
    /// Sends events to listening clients, logs rejected keys, and puts the generated key into effect where a
    /// reload unset the configured one, once a second until the drain.
    pub async fn tell(self: Arc<Self>) {
        let mut phase = self.sources.phase.clone();
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut teller = events::EventBroadcaster::default();
        let mut last_fault = None;
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    teller.tell(&self);
                    for line in self.refused.due(Instant::now()) {
                        log::warn!("[Admin] {line}");
                    }
                    let fault = match self.generate_key() {
                        Ok(line) => {
                            line.inspect(|line| log::info!("[Admin] {line}"));
                            None
                        }
                        Err(fault) => Some(fault.to_string()),
                    };
                    if let Some(fault) = fault.as_ref().filter(|_| fault != last_fault) {
                        log::error!("[Admin] the dashboard is closed: {fault}");
                    }
                    last_fault = fault;
                }
                ended = phase.wait_for(|phase| *phase >= DrainPhase::Draining) => {
                    drop(ended);
                    return;
                }
            }
        }
    }
}

/// Place of the dashboard, as a main port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DashboardPlacement {
    /// The dashboard and the metrics.
    Here,
    /// Nothing: the plane has a listener of its own.
    Elsewhere,
    /// Nothing, and there is no dashboard.
    Nowhere,
}

/// Puts the plane before what a main port forwards: the metrics where they are public, and the dashboard if
/// it is to be there. Where the plane is served at all, what was meant for it does not go upstream.
///
/// `forward` takes what is forwarded, and is routed as `/`, before the router tries the dashboard's prefix: that
/// is a regular expression, while the path of a resource is a text.
pub fn mount(
    routes: &mut web::ServiceConfig,
    plane: &Arc<AdminState>,
    served: DashboardPlacement,
    forward: actix_web::Route,
) {
    let has_dashboard = served == DashboardPlacement::Here;
    let live = Arc::clone(&plane.sources.live);
    let is_answered = move |context: &GuardContext<'_>| {
        let method = &context.head().method;
        let is_read = *method == Method::GET || *method == Method::HEAD;
        is_read && (has_dashboard || live.load().metrics_public)
    };
    let metrics = resource(METRICS, api::metrics).guard(guard::fn_guard(is_answered));
    routes.service(guarded(metrics, plane, Exposure::Main));
    if has_dashboard {
        routes.service(guarded(home(), plane, Exposure::Main));
    }
    if served != DashboardPlacement::Nowhere {
        // one for each path: a resource of several is a set of regular expressions
        for path in ["/", METRICS] {
            routes.service(near_misses(path, plane, served));
        }
    }
    if has_dashboard {
        routes.service(web::resource("/").route(forward));
        routes.service(scope(plane, Exposure::Main));
    }
}

/// The plane where nothing is forwarded.
pub fn mount_alone(routes: &mut web::ServiceConfig, plane: &Arc<AdminState>) {
    let metrics = resource(METRICS, api::metrics);
    routes.service(guarded(metrics, plane, Exposure::Alone));
    routes.service(scope(plane, Exposure::Alone));
    routes.service(guarded(home(), plane, Exposure::Alone));
}

/// The API and the metrics alone, for those who may open the socket in `DATA_DIR`.
pub fn mount_socket(routes: &mut web::ServiceConfig, plane: &Arc<AdminState>) {
    let scope = web::scope(ROOT)
        .app_data(web::ThinData(Arc::clone(plane)))
        .app_data(web::ThinData(Exposure::Socket))
        .service(web::scope(API).configure(api))
        .default_service(web::to(not_found))
        .wrap(middleware::from_fn(admission::guard));
    let metrics = resource(METRICS, api::metrics);
    routes.service(guarded(metrics, plane, Exposure::Socket));
    routes.service(scope);
}

/// The dashboard and its API.
fn scope(
    plane: &Arc<AdminState>,
    exposure: Exposure,
) -> impl actix_web::dev::HttpServiceFactory + use<> {
    let mut scope = web::scope(ROOT)
        .app_data(web::ThinData(Arc::clone(plane)))
        .app_data(web::ThinData(exposure));
    for path in PAGES {
        scope = scope.service(resource(path, page));
    }
    for name in assets::AT_ROOT {
        scope = scope.service(resource(&format!("/{name}"), file));
    }
    scope
        .service(resource("/assets/{path:.*}", file))
        .service(resource("/grafana/{path:.*}", file))
        .service(resource("/prometheus/{path:.*}", file))
        .service(web::scope(API).configure(api))
        .default_service(web::to(nowhere))
        .wrap(middleware::from_fn(admission::guard))
}

/// The routes of the API; `openapi` describes each.
fn api(routes: &mut web::ServiceConfig) {
    routes
        // else it were that of the whole application, which forwards
        .default_service(web::to(not_found))
        .service(
            web::resource("/session")
                .route(read().to(login::status))
                .route(web::post().to(login::log_in))
                .route(web::delete().to(login::log_out))
                .default_service(web::to(|| refused("GET, HEAD, POST, DELETE"))),
        )
        .service(resource("/overview", api::overview))
        .service(resource("/requests", api::requests))
        .service(resource("/requests/{id}", api::request))
        .service(
            web::resource("/requests/{id}/end")
                .route(web::post().to(end::answer))
                .default_service(web::to(|| refused("POST"))),
        )
        .service(resource("/errors", api::errors))
        .service(resource("/usage", api::usage))
        .service(resource("/usage/series", api::usage_series))
        .service(resource("/usage.csv", api::usage_csv))
        .service(resource("/usage.json", api::usage_json))
        .service(resource("/sessions", api::sessions))
        .service(resource("/sessions/{id}", api::session))
        .service(resource("/upstreams", api::upstreams))
        .service(resource("/replicas", replicas::answer))
        .service(
            web::resource("/keys")
                .route(read().to(keys::list))
                .route(web::post().to(keys::create))
                .default_service(web::to(|| refused("GET, HEAD, POST"))),
        )
        .service(posted("/keys/apply", keys::apply))
        .service(resource("/keys/export", keys::export))
        .service(posted("/keys/import", keys::import))
        .service(resource("/keys/{id}", keys::show))
        .service(posted("/keys/{id}/rotate", keys::rotate))
        .service(posted("/keys/{id}/revoke", keys::revoke))
        .service(resource("/limits", limits::used))
        .service(resource("/limits/verify", limits::verify))
        .service(
            web::resource("/limits/{subject}")
                .route(read().to(limits::explain))
                .route(web::put().to(limits::set))
                .default_service(web::to(|| refused("GET, HEAD, PUT"))),
        )
        .service(posted("/limits/{subject}/grant", limits::grant))
        .service(resource("/spend", limits::spend))
        .service(resource("/audit", audit::search))
        .service(resource("/audit/verify", audit::verify))
        .service(
            web::resource("/doctor")
                .route(read().to(doctor::last))
                .route(web::post().to(doctor::run))
                .default_service(web::to(|| refused("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/config")
                .route(read().to(configuration::answer))
                .route(web::patch().to(revisions::change))
                .default_service(web::to(|| refused("GET, HEAD, PATCH"))),
        )
        .service(posted("/config/rollback", revisions::roll_back))
        .service(resource("/config/history", revisions::history))
        .service(resource("/config/history/{id}", revisions::since))
        .service(resource("/events", events::answer))
        .service(resource("/openapi.json", openapi::answer));
}

/// A read-only resource: GET and HEAD, and 405 for other methods.
fn resource<F, Args>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path.to_owned())
        .route(read().to(handler))
        .default_service(web::to(|| refused("GET, HEAD")))
}

/// A resource for POST alone.
fn posted<F, Args>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path.to_owned())
        .route(web::post().to(handler))
        .default_service(web::to(|| refused("POST")))
}

fn read() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A resource outside of the scope, as closed as those inside.
fn guarded(
    resource: Resource,
    plane: &Arc<AdminState>,
    exposure: Exposure,
) -> impl actix_web::dev::HttpServiceFactory + use<> {
    resource
        .app_data(web::ThinData(Arc::clone(plane)))
        .app_data(web::ThinData(exposure))
        .wrap(middleware::from_fn(admission::guard))
}

/// Resource for requests that are routed as `/` and belong to the dashboard: a browser's home page and icon,
/// and paths below [`ROOT`] that cannot be routed. The last must not go upstream.
///
/// Every request that is forwarded is routed as `/`, so the guard reads the head itself.
fn home() -> Resource {
    let is_ours = |context: &GuardContext<'_>| {
        let data = context.req_data();
        data.get::<RequestHead>().and_then(AtRoot::of).is_some()
    };
    web::resource("/")
        .guard(guard::fn_guard(is_ours))
        .route(web::to(at_root))
}

/// Resource for requests that are refused rather than forwarded: all paths below [`ROOT`] while the dashboard
/// has a listener of its own, and near misses of its paths that carry its key or its session.
fn near_misses(path: &str, plane: &Arc<AdminState>, served: DashboardPlacement) -> Resource {
    let plane = Arc::clone(plane);
    let is_refused = move |context: &GuardContext<'_>| {
        let refusal = {
            let data = context.req_data();
            let Some(head) = data.get::<RequestHead>() else {
                return false;
            };
            if served == DashboardPlacement::Elsewhere && owns(head.path()) {
                Some(Problem::NotFound)
            } else {
                let client = context.head().peer_addr.map(|client| client.ip());
                plane.refuses_near_miss(head, client)
            }
        };
        refusal
            .map(|problem| context.req_data_mut().insert(problem))
            .is_some()
    };
    web::resource(path.to_owned())
        .guard(guard::fn_guard(is_refused))
        .route(web::to(refuse))
}

/// Answers with the problem that a guard found.
async fn refuse(request: HttpRequest) -> HttpResponse {
    let problem = request.extensions_mut().remove::<Problem>();
    told(&problem.unwrap_or(Problem::NotFound))
}

/// A request that is routed as `/` and answered here.
enum AtRoot {
    /// A browser's at `/`.
    Home,
    /// A browser's for `/favicon.ico`, which it makes on its own.
    Icon,
    /// Anything below [`ROOT`].
    Nothing,
}

impl AtRoot {
    fn of(head: &RequestHead) -> Option<Self> {
        match head.path() {
            b"/" if is_home_of_a_browser(head) => Some(Self::Home),
            b"/favicon.ico" if is_icon_of_a_browser(head) => Some(Self::Icon),
            path if owns(path) => Some(Self::Nothing),
            _ => None,
        }
    }
}

fn is_home_of_a_browser(head: &RequestHead) -> bool {
    head.method == Method::GET
        && head.upgrade.is_none()
        && head.fields.value("accept").is_some_and(names_html)
}

fn is_read_as_html(head: &RequestHead) -> bool {
    (head.method == Method::GET || head.method == Method::HEAD)
        && head.fields.value("accept").is_some_and(names_html)
}

fn is_icon_of_a_browser(head: &RequestHead) -> bool {
    let agent = head.fields.value("user-agent");
    (head.method == Method::GET || head.method == Method::HEAD)
        && (head.fields.value("sec-fetch-dest").is_some()
            || agent.is_some_and(|agent| agent.starts_with(b"Mozilla/")))
}

async fn at_root(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let extensions = request.extensions();
    match extensions.get::<RequestHead>().and_then(AtRoot::of) {
        Some(AtRoot::Home) => Ok(HttpResponse::Found()
            .insert_header((header::LOCATION, ROOT))
            .insert_header((header::VARY, "accept"))
            .finish()),
        Some(AtRoot::Icon) => assets::answer(&request, assets::ICON),
        Some(AtRoot::Nothing) if extensions.get().is_some_and(is_read_as_html) => {
            assets::unknown_page()
        }
        Some(AtRoot::Nothing) | None => Err(Problem::NotFound),
    }
}

async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    assets::answer(&request, assets::INDEX)
}

/// Answers what there is not below [`ROOT`]: a browser with the dashboard, which says so.
async fn nowhere(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if is_unknown_page(request.method(), request.path(), request.headers()) {
        return assets::unknown_page();
    }
    Err(Problem::NotFound)
}

async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let name = request.path().strip_prefix(ROOT).unwrap_or_default();
    assets::answer(&request, name.strip_prefix('/').unwrap_or_default())
}

/// Answers what there is not.
pub async fn not_found() -> HttpResponse {
    told(&Problem::NotFound)
}

/// Answers a method that is not one of those.
pub async fn refused(allowed: &'static str) -> HttpResponse {
    told(&Problem::MethodNotAllowed(allowed))
}

/// Gives the response to a problem, with the security fields: the guard does not see it.
fn told(problem: &Problem) -> HttpResponse {
    let mut response = problem.error_response();
    admission::secure(response.headers_mut());
    response
}
