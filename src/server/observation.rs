//! Telemetry of the process: activity, metrics, traces, and what is sent of them.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;

use super::alerts::GaugeSource;
use crate::{
    config::{Boot, Live, reload},
    control,
    limits::Limits,
    logging,
    registry::Registry,
    telemetry::activity::{
        self, Activity, ActivityView, BreakCause, CacheWarningSources, EventSender, SharedStore,
    },
    telemetry::metrics::{Gauges, Metrics, SharingGauges, UpstreamGauges},
    telemetry::sent_metrics::{ExportCounts, MetricSender, SentMetricSources},
    telemetry::traces::Traces,
    upstream::balance::Balance,
};

/// Telemetry of the process; parts without a reader are off.
pub(super) struct Observation {
    /// The activity and the access log. Dropped last: what is queued is written then.
    pub(super) activity: Option<Activity>,
    pub(super) recorder: Option<EventSender>,
    /// Traces, if they are on.
    pub(super) traces: Option<Traces>,
    pub(super) metrics: Arc<Metrics>,
    /// Counts of requests with metrics, if they are sent.
    pub(super) metric_exports: Option<Arc<ExportCounts>>,
}

impl Observation {
    pub(super) fn start(
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
    pub(super) fn view(&self) -> Option<ActivityView> {
        self.activity.as_ref().map(Activity::view)
    }

    /// Writes the metrics of a moment.
    pub(super) fn exposition(&self, gauges: &GaugeSource) -> control::Exposition {
        let (metrics, gauges) = (Arc::clone(&self.metrics), Arc::clone(gauges));
        Box::new(move |format| metrics.expose(&gauges(), format))
    }

    /// Starts the thread that sends the metrics, if they are asked for (`OTEL_METRICS_EXPORTER`).
    pub(super) fn send_metrics(
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
    pub(super) fn gauges(
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
