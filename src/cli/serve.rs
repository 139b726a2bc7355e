//! `serve`: load, start the log, hand over to the server.

use std::process::ExitCode;

use log::{info, warn};

use super::output;
use crate::{config::ConfigSource, logging, server};

pub(super) fn run(source: ConfigSource) -> ExitCode {
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(faults) => {
            output::complain(&faults);
            return output::EXIT_USAGE.into();
        }
    };
    let boot = &loaded.config.boot;
    logging::init(
        boot.log_format,
        boot.log_filter.as_deref(),
        loaded.config.live.debug,
    );
    info!("[Config] {}", loaded.files());
    for warning in &loaded.warnings {
        warn!("[Config] {warning}");
    }
    server::serve(loaded, source)
}
