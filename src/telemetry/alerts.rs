//! Alerts from inside, for operators without Prometheus (`ALERT_WEBHOOK`): the conditions of
//! `static/prometheus/alerts.yaml`, looked at by a thread of their own, and told to a webhook.
//!
//! A look adds up the counters that the workers keep anyway; no exchange does anything for it, and without the
//! setting there is no thread. One post says that a condition holds, and one that it has ended. It cannot tell
//! that the process is gone: a process that ends tells nothing.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use crate::{
    config::{AlertForm, AlertSettings},
    telemetry::metrics::{Gauges, Metrics},
    webhook::Webhook,
};

mod alert;
mod condition;
mod post;
mod watch;

use self::{condition::Look, post::Facts, watch::Watch};

/// Sources of alerts: the settings, and the rest of the process.
pub struct AlertSources {
    /// Receiver and thresholds.
    pub settings: AlertSettings,
    /// Name of this replica.
    pub replica: String,
    /// URL of the dashboard, if it has one.
    pub dashboard: Option<String>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The rest that is looked at.
    pub gauges: Box<dyn Fn() -> Gauges + Send>,
}

/// The thread. Its drop ends it.
pub struct AlertThread {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AlertThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses it, or the URL is none.
    pub fn start(sources: AlertSources) -> io::Result<Self> {
        let webhook = Webhook::start(sources.settings.webhook.expose())?;
        let (end, ended) = mpsc::channel();
        let interval = sources.settings.interval;
        let mut desk = AlertDesk {
            watch: Watch::new(&sources.settings),
            sources,
            webhook,
        };
        // before the first exchange, so that it is one that was added
        desk.look();
        let thread = thread::Builder::new()
            .name("alerts".to_owned())
            .spawn(move || {
                while ended.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                    desk.look();
                }
            })?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for AlertThread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // a panic was logged
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct AlertDesk {
    sources: AlertSources,
    watch: Watch,
    webhook: Webhook,
}

impl AlertDesk {
    fn look(&mut self) {
        let look = Look {
            at: Instant::now(),
            time: SystemTime::now(),
            counters: self.sources.metrics.reading(),
            gauges: (self.sources.gauges)(),
        };
        for event in self.watch.look(look) {
            let AlertSources {
                replica, dashboard, ..
            } = &self.sources;
            let facts = Facts::of(&event, replica, dashboard.as_deref());
            match self.sources.settings.form {
                AlertForm::Json => self.webhook.send(&facts.post()),
                AlertForm::Slack => self.webhook.send(&facts.slack()),
            };
        }
    }
}
