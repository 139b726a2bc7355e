//! Diagnosis: checks of everything between a client and the upstream, each with a remedy.
//!
//! The command line and the API run the same checks and show the same [`Check`]s. A check measures or asks, and
//! changes nothing that stays. It takes at most [`PATIENCE`], and those of a group that do not depend on each
//! other run at once. Requests to an upstream go through the HTTP client of a worker, as those of clients do.
//! One that costs money is made only when the operator asks for it. No check has a secret in its texts.

mod bundle;
mod check;
mod client;
mod configuration;
mod contract;
mod data;
mod examination;
mod exchange;
mod kernel;
mod listener;
mod outbound;
mod peer;
mod reply;
mod run;
mod shared_state;
mod stream;
mod upstream;
mod verdict;

pub use self::{
    bundle::{Bundle, BundleError, BundlePart, may_write, write_bundle},
    check::{Check, CheckCounts, CheckGroup, CheckStatus, DoctorReport, plural},
    client::{ClientPlaces, ClientSetup, client_limits, client_setup},
    configuration::{invalid_configuration, running_configuration, valid_configuration},
    data::{AuditCheck, AuditFinding, DataPlaces, DeniedSocket, data_checks},
    examination::Examination,
    exchange::Door,
    kernel::kernel_facts,
    listener::{ListenerPlaces, ListenerTarget, ServerPresence, listener_checks, refusal},
    outbound::outbound_remedy,
    reply::Reply,
    run::{GroupRun, PATIENCE, Telling, run_groups},
    shared_state::shared_state_checks,
    upstream::{UpstreamPlace, tls_fault, upstream_checks},
    verdict::{UpstreamVerdict, UpstreamVerdicts},
};
