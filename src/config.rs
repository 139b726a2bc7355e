//! The configuration, complete, typed and valid by construction.
//!
//! [`Boot`] needs a restart to change; [`Live`] is one snapshot that a reload replaces as a whole.
//! The variables are the table in [`mod@env`]; [`source`] holds flags, environment and files, and
//! [`ConfigSource::load`] gives a [`Loaded`] or all [`ConfigErrors`] at once. Watching and swapping is in
//! [`reload`]. Nothing here listens, connects or edits.

mod certificate;
mod digest;
mod duration;
mod endpoint;
pub mod env;
pub mod envdiff;
mod envfile;
pub mod envtext;
mod error;
mod forward_auth;
mod headers;
mod host;
mod identity;
mod load;
mod loaded;
mod loops;
mod loss;
mod mask;
mod memory;
mod merge;
mod model;
mod options;
mod origin;
mod origins;
mod otlp;
mod parse;
pub mod prices;
mod read;
pub mod reload;
pub mod route;
mod scalar;
mod settle;
mod size;
pub mod source;
mod traces;
mod upstream;
mod verify;
mod writable;

pub use self::{
    certificate::{CERTIFICATE_ENDS_SOON, CertificateFacts},
    digest::{SettingsDigest, settings_that_differ},
    endpoint::{Credential, Endpoint, HttpVersion, InvalidCredential, Statuses},
    error::{ConfigError, ConfigErrors, Warning},
    forward_auth::{ForwardAuth, RoleRules, TrustedProxies},
    identity::TlsIdentity,
    loaded::Loaded,
    loss::is_guarded,
    model::{
        AccessLogSettings, AccessLogTarget, AccessSettings, AlertSettings, Boot,
        CacheWarningSettings, Config, Edit, Listen, Live, Timers,
    },
    options::{AccessMode, AlertForm, EditMode, EditTarget, ForwardedFields, Role},
    origin::{Origin, Setting},
    origins::AllowedOrigins,
    otlp::{MetricSettings, OtlpCompression, OtlpReceiver},
    prices::Prices,
    read::in_der,
    route::{OutboundRoute, ProxyAddress, Resolve},
    source::{ConfigSource, Environment, Flags},
    traces::{Sampler, TraceSettings},
    upstream::{InvalidUpstream, Scheme, Upstream},
    verify::VerifyRule,
};
pub use crate::{logging::LogFormat, secret::Secret};
