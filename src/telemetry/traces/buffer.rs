//! Encoded spans of one worker that wait to be sent.

use super::span;
use crate::{
    background::Buffer,
    exchange::{Exchange, TraceContext},
};

/// Encoded spans that wait.
#[derive(Default)]
pub(super) struct SpanBuffer {
    pub(super) octets: Vec<u8>,
    /// Exchanges that they are of.
    pub(super) exchanges: u64,
}

impl SpanBuffer {
    /// Adds the spans of an exchange. Returns false if there is no room.
    pub(super) fn push(
        &mut self,
        exchange: &Exchange,
        context: &TraceContext,
        most: usize,
    ) -> bool {
        let before = self.octets.len();
        // full already: not even encoded
        if before < most {
            span::write(&mut self.octets, exchange, context);
        }
        let fits = before < most && self.octets.len() <= most;
        match fits {
            true => self.exchanges += 1,
            false => self.octets.truncate(before),
        }
        fits
    }
}

impl Buffer for SpanBuffer {
    fn is_empty(&self) -> bool {
        self.exchanges == 0
    }

    fn reset(&mut self) {
        self.octets.clear();
        self.octets.shrink_to(1 << 20);
        self.exchanges = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::exchange::{ExchangeStart, Route, Termination, TerminationPhase, TerminationSource};

    fn exchange() -> Exchange {
        let begun = ExchangeStart {
            seq: 0,
            id: "req_1".into(),
            started: SystemTime::now(),
            client: None,
            version: "1.1",
            method: "GET".into(),
            path: "/x".into(),
            route: Route::Other,
            session: None,
            user_agent: None,
            agent: None,
            parent_agent: None,
            owner: None,
        };
        let termination = Termination {
            source: TerminationSource::Complete,
            phase: TerminationPhase::Response,
            label: None,
        };
        Exchange::new(begun, termination)
    }

    #[test]
    fn a_full_buffer_takes_whole_exchanges_alone() {
        let (mut spans, exchange) = (SpanBuffer::default(), exchange());
        let context = TraceContext::default();
        assert!(spans.push(&exchange, &context, usize::MAX));
        let one = spans.octets.len();
        assert!(spans.push(&exchange, &context, 2 * one));
        for most in [2 * one, 3 * one - 1, 0] {
            assert!(!spans.push(&exchange, &context, most));
            assert_eq!((spans.octets.len(), spans.exchanges), (2 * one, 2));
        }
        assert!(!spans.is_empty());
        spans.reset();
        assert!(spans.is_empty() && spans.octets.is_empty());
    }
}
