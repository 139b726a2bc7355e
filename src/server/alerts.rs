//! Alerts from inside: their thread, where they are on.

use std::{io, sync::Arc};

use crate::{
    config::Boot,
    telemetry::{
        alerts::{AlertSources, AlertThread},
        metrics::{Gauges, Metrics},
    },
};

/// Reader of what a moment has, beside the counters of the workers.
pub(super) type GaugeSource = Arc<dyn Fn() -> Gauges + Send + Sync>;

/// Starts the thread (`ALERT_WEBHOOK`).
pub(super) fn start(
    boot: &Boot,
    replica: &str,
    dashboard: &str,
    metrics: &Arc<Metrics>,
    gauges: &GaugeSource,
) -> io::Result<Option<AlertThread>> {
    let Some(settings) = boot.alerts.clone() else {
        return Ok(None);
    };
    let gauges = Arc::clone(gauges);
    let has_url = boot.has_pages() && dashboard.starts_with("http");
    let thread = AlertThread::start(AlertSources {
        settings,
        replica: replica.to_owned(),
        dashboard: has_url.then(|| dashboard.to_owned()),
        metrics: Arc::clone(metrics),
        gauges: Box::new(move || gauges()),
    })?;
    Ok(Some(thread))
}
