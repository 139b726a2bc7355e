//! The configuration, complete, typed and valid by construction.
//!
//! [`Boot`] needs a restart to change; [`Live`] is one snapshot that a reload replaces as a whole.
//! The variables are the table in [`mod@env`]; [`source`] holds flags, environment and files, and
//! [`Source::load`] gives a [`Loaded`] or all [`Faults`] at once. Watching and swapping is in
//! [`reload`]. Nothing here listens, connects or edits.

mod duration;
mod endpoint;
pub mod env;
mod envfile;
mod fault;
mod gather;
mod headers;
mod identity;
mod load;
mod loaded;
mod loops;
mod loss;
mod mask;
mod memory;
mod model;
mod options;
mod origin;
mod origins;
pub mod prices;
mod read;
pub mod reload;
pub mod route;
mod scalar;
mod settle;
mod size;
pub mod source;
mod typed;
mod upstream;
mod watch;
mod writable;

pub use self::{
    endpoint::{Credential, Endpoint, HttpVersion, Statuses},
    fault::{Fault, Faults, Warning},
    identity::Identity,
    loaded::Loaded,
    model::{AccessLog, AccessLogTarget, Boot, Config, Edit, Listen, Live, Timers},
    options::{EditMode, EditTarget, ForwardedFields},
    origin::{Origin, Setting},
    origins::AllowedOrigins,
    prices::Prices,
    route::{ProxyAddress, Resolve, Route},
    source::{Environment, Flags, Source},
    upstream::{InvalidUpstream, Scheme, Upstream},
};
pub use crate::{logging::LogFormat, secret::Secret};
