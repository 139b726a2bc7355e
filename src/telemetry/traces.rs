//! Traces of exchanges, sent by OTLP: a SERVER and a CLIENT span for each exchange that is sampled.
//!
//! A worker decides at the beginning of an exchange if it is sampled ([`Tracer::begin`]), and encodes its spans
//! at the end into a bounded buffer ([`Tracer::end`]). A thread posts the buffers (`traces::exporter`). No exchange
//! waits for the receiver: what does not fit, or is not taken, is dropped and counted. The fields of a request
//! are read and never changed.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
    io,
    time::Duration,
};

use crate::{
    background::{Background, Entrance, Handle, Terms},
    config::{Sampler, TraceSettings},
    exchange::{Exchange, TraceContext},
};

mod buffer;
mod context;
mod exporter;
mod span;

use self::{buffer::SpanBuffer, exporter::Exporter};

/// Traces of the process. Its drop sends what was handed over, for a while.
pub struct Traces {
    background: Background<SpanBuffer>,
    sampler: Sampler,
}

/// Traces of one worker; a clone of it is one for another worker.
pub struct Tracer {
    spans: Entrance<SpanBuffer>,
    sampler: Sampler,
    ids: TraceIds,
}

/// Read access to the count of traces that were dropped.
#[derive(Clone)]
pub struct TraceCounts(Handle<SpanBuffer>);

impl Traces {
    /// Starts the thread that sends them. `instance` names this run of the process.
    ///
    /// # Errors
    /// If the receiver's URL is none of HTTP, or the system refuses the thread.
    pub fn start(settings: &TraceSettings, instance: &str) -> io::Result<Self> {
        let exporter = Exporter::new(settings, instance)?;
        Ok(Self {
            background: Background::start("traces", TERMS, exporter)?,
            sampler: settings.sampler,
        })
    }

    /// The traces of a worker.
    pub fn tracer(&self) -> Tracer {
        Tracer {
            spans: self.background.handle().entrance(),
            sampler: self.sampler,
            ids: TraceIds::default(),
        }
    }

    /// Read access to the counts.
    pub fn counts(&self) -> TraceCounts {
        TraceCounts(self.background.handle())
    }
}

impl TraceCounts {
    /// Exchanges whose spans were dropped.
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }
}

impl Clone for Tracer {
    fn clone(&self) -> Self {
        Self {
            spans: self.spans.clone(),
            sampler: self.sampler,
            ids: TraceIds::default(),
        }
    }
}

impl Tracer {
    /// Begins the trace of an exchange with these fields, if it is sampled.
    pub fn begin(
        &self,
        traceparent: Option<&[u8]>,
        tracestate: Option<&[u8]>,
    ) -> Option<Box<TraceContext>> {
        let parent = traceparent.and_then(context::parent);
        let trace = match &parent {
            Some(parent) => parent.trace,
            None => self.ids.trace(),
        };
        let is_sampled = parent.as_ref().map(|parent| parent.is_sampled);
        if !self.sampler.samples(&trace, is_sampled) {
            return None;
        }
        Some(Box::new(TraceContext {
            trace,
            // without a parent it belongs to nothing
            state: parent.as_ref().and(tracestate).and_then(context::state),
            parent: parent.map(|parent| parent.span),
            server: self.ids.span(),
            client: self.ids.span(),
            asked_model: None,
        }))
    }

    /// Hands over the spans of an exchange that has ended.
    pub fn end(&self, exchange: &Exchange, context: &TraceContext) {
        self.spans
            .add(|spans, most| spans.push(exchange, context, most));
    }
}

/// Random ids, of one worker: hashes of a count, under keys that the system chose.
#[derive(Default)]
struct TraceIds {
    keys: RandomState,
    count: Cell<u64>,
}

impl TraceIds {
    fn next(&self) -> u64 {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        // an id of zeros is none
        self.keys.hash_one(count).max(1)
    }

    fn span(&self) -> [u8; 8] {
        self.next().to_be_bytes()
    }

    fn trace(&self) -> [u8; 16] {
        let (high, low) = (u128::from(self.next()), u128::from(self.next()));
        ((high << 64) | low).to_be_bytes()
    }
}

/// An exchange has about 1 KiB of spans, so that 8,000 of them may wait.
const TERMS: Terms = Terms {
    most: 8 << 20,
    interval: Duration::from_secs(1),
    patience: Duration::from_secs(2),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_differ() {
        let (one, other) = (TraceIds::default(), TraceIds::default());
        let mut all: Vec<u64> = (0..1000).flat_map(|_| [one.next(), other.next()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
        assert_ne!(one.trace(), one.trace());
    }
}
