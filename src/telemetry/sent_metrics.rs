//! Metrics sent by OTLP, for operators without a scrape (`OTEL_METRICS_EXPORTER`): those of `/metrics`, at an
//! interval, by a thread of their own.
//!
//! A request adds up the counters that the workers keep anyway; no exchange does anything for it, and without the
//! setting there is no thread. Sums are those since the start of the process, so a request that a receiver does not
//! take is not kept: it is counted, and the next one includes what it counted. The last one goes out at the end of
//! the process, which waits for it a little.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use super::{
    metrics::{Gauges, Metrics},
    otlp::{Delivery, OtlpSender, PostPatience, SignalWords},
};
use crate::config::MetricSettings;

/// Sources of what is sent: the settings, and the rest of the process.
pub struct SentMetricSources {
    /// Receiver and interval.
    pub settings: MetricSettings,
    /// Name of this run of the process.
    pub instance: String,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The rest of the metrics.
    pub gauges: Box<dyn Fn() -> Gauges + Send>,
    /// Counts of the requests.
    pub counts: Arc<ExportCounts>,
}

/// Counts of requests with metrics.
#[derive(Debug, Default)]
pub struct ExportCounts {
    taken: AtomicU64,
    failed: AtomicU64,
}

/// The thread. Its drop sends the metrics a last time, and waits for that a little.
pub struct MetricSender {
    end: Option<mpsc::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl ExportCounts {
    /// Requests that a receiver took, and that it did not take, or not wholly.
    pub fn read(&self) -> (u64, u64) {
        (self.taken.load(Relaxed), self.failed.load(Relaxed))
    }
}

impl MetricSender {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the receiver's URL is none of HTTP, or the system refuses the thread.
    pub fn start(sources: SentMetricSources) -> io::Result<Self> {
        let (end, is_over) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        let interval = sources.settings.interval;
        let mut desk = SendingDesk {
            receiver: OtlpSender::new(&METRICS, &sources.settings.receiver, &sources.instance)?,
            started: SystemTime::now(),
            sources,
        };
        thread::Builder::new()
            .name("sent-metrics".to_owned())
            .spawn(move || {
                while is_over.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                    desk.send(PostPatience::Usual);
                }
                desk.send(PostPatience::Last);
                let _ = done.send(());
            })?;
        Ok(Self {
            end: Some(end),
            ended,
        })
    }
}

impl Drop for MetricSender {
    fn drop(&mut self) {
        drop(self.end.take());
        // a receiver may hold the thread up for longer: it ends with the process
        let _ = self.ended.recv_timeout(LONGEST_END);
    }
}

/// The state of the thread.
struct SendingDesk {
    sources: SentMetricSources,
    receiver: OtlpSender,
    started: SystemTime,
}

impl SendingDesk {
    fn send(&mut self, patience: PostPatience) {
        let SentMetricSources {
            metrics,
            gauges,
            counts,
            ..
        } = &self.sources;
        let messages = metrics.messages(&gauges(), self.started);
        let count = match self.receiver.deliver(&messages, patience) {
            Delivery::Taken => &counts.taken,
            Delivery::Partly(_) | Delivery::Lost => &counts.failed,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// Longest wait at the end.
const LONGEST_END: Duration = Duration::from_millis(2_500);

static METRICS: SignalWords = SignalWords {
    tag: "Metrics",
    name: "metrics",
    parts: "data points",
    effect: "requests that it does not take are counted (anthropic_proxy_metric_exports_total), and the next one \
             includes what they counted",
    effect_on_parts: "the requests count as failed (anthropic_proxy_metric_exports_total)",
    variables: "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, and those of metrics alone \
                (OTEL_EXPORTER_OTLP_METRICS_…)",
};
