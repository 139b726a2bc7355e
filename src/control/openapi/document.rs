//! The document, made anew from the handlers and the types themselves. The program has it as a file, so that
//! what makes it is compiled for tests alone.

use std::{env, fs, path::Path};

use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::super::{
    api, audit, configuration, doctor, end, events, keys, limits, login, openapi, replicas,
    revisions,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "anthropic-proxy admin API",
        description = "What the proxy has seen, and how it is set up. Times are Unix milliseconds, \
                       durations milliseconds, money US dollars.",
    ),
    paths(
        login::status,
        login::log_in,
        login::log_out,
        api::overview,
        api::requests,
        api::request,
        end::answer,
        api::errors,
        api::usage,
        api::usage_csv,
        api::usage_json,
        api::usage_series,
        api::sessions,
        api::session,
        api::upstreams,
        replicas::answer,
        keys::list,
        keys::create,
        keys::show,
        keys::rotate,
        keys::revoke,
        keys::apply,
        keys::export,
        keys::import,
        limits::used,
        limits::explain,
        limits::set,
        limits::grant,
        limits::verify,
        limits::spend,
        audit::search,
        audit::verify,
        doctor::last,
        doctor::run,
        configuration::answer,
        revisions::change,
        revisions::roll_back,
        revisions::history,
        revisions::since,
        events::answer,
        api::metrics,
        openapi::answer,
    ),
    // no answer is one, but events are
    components(schemas(events::TickEvent)),
    security(("bearer" = []), ("session" = [])),
    modifiers(&Schemes),
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::new(HttpAuthScheme::Bearer);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new("anthropic_proxy_session"));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// Path of the file in the repository.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/static/openapi.json");

#[test]
fn the_file_is_what_handlers_and_types_say() {
    let made = Document::openapi().to_pretty_json().unwrap() + "\n";
    if env::var_os("WRITE_OPENAPI").is_some() {
        fs::write(FILE, &made).unwrap();
    }
    let kept = fs::read_to_string(Path::new(FILE)).unwrap_or_default();
    let differs = made
        .lines()
        .zip(kept.lines().chain([""; 1]))
        .position(|(a, b)| a != b);
    assert!(
        made == kept,
        "static/openapi.json is not what handlers and types say now (line {}): write it anew with \
         `WRITE_OPENAPI=1 cargo test --locked --lib openapi`, and commit it",
        differs.map_or(made.lines().count(), |line| line + 1)
    );
}
