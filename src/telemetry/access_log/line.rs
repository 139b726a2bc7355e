//! A line of the access log. Unknown facts of an exchange are left out.
//!
//! Written member by member into the buffer of the worker: at the rate of lines, a serialiser in between
//! would cost more than the line.

use std::{
    cell::RefCell,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    exchange::{Exchange, MeteringFailure, OtherModel, Tokens, Usage, shortened},
    label::Label,
    logging::Clock,
};

/// Adds the line of an exchange.
pub(super) fn write(lines: &mut Vec<u8>, exchange: &Exchange) {
    let (begun, timings) = (&exchange.begun, &exchange.timings);
    lines.extend_from_slice(b"{\"time\":\"");
    time(lines, begun.started);
    lines.push(b'"');
    let to = &mut Members(lines);
    to.text("request_id", &begun.id);
    to.some_text(
        "upstream_request_id",
        exchange.upstream_request_id.as_deref(),
    );
    to.address("client", begun.client);
    to.text("version", begun.version);
    to.text("method", shortened(&begun.method, LONGEST_METHOD));
    to.text("path", shortened(&begun.path, LONGEST_PATH));
    to.text("route", begun.route.label());
    to.some_number("status", exchange.status.map(u64::from));
    to.number("bytes_in", exchange.received);
    to.number("bytes_out", exchange.sent);
    to.millis("duration_ms", Some(timings.total));
    to.millis("overhead_ms", Some(timings.overhead));
    to.millis("connected_ms", timings.connected);
    to.millis("connecting_ms", timings.connecting);
    to.millis("head_ms", timings.head);
    to.millis("ttft_ms", timings.first_token);
    to.some_text("upstream", exchange.upstream.as_deref());
    to.some_text("session", begun.session.as_deref());
    to.some_text("agent", begun.agent.as_deref());
    if let Some(owner) = &begun.owner {
        to.text("key", &owner.key);
        to.some_text("user", owner.user.as_deref());
        to.some_text("team", owner.team.as_deref());
    }
    to.some_text("user_agent", begun.user_agent.as_deref());
    to.some_text("edit", exchange.edit.map(Label::text));
    if let Some(verified) = &exchange.verified {
        to.text("verify", verified.identity().label());
    }
    if let Some(usage) = &exchange.usage {
        to.usage(usage);
    }
    to.text("result", exchange.verdict().label());
    to.text("ended_by", exchange.termination.source.label());
    to.text("ended_in", exchange.termination.phase.label());
    to.some_text("ended_label", exchange.termination.label.map(Label::text));
    lines.extend_from_slice(b"}\n");
}

/// Members of an object of JSON, after the first one.
struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    /// Begins a member; names of members are plain.
    #[inline]
    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    #[inline]
    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        string(self.0, text);
    }

    #[inline]
    fn some_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    #[inline]
    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        digits(self.0, number);
    }

    #[inline]
    fn some_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    /// Milliseconds, with microseconds behind the point.
    fn millis(&mut self, name: &str, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.name(name);
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            digits(self.0, micros / 1000);
            let [tenths, rest] = [micros / 100 % 10, micros % 100];
            self.0.extend_from_slice(&[b'.', digit(tenths)]);
            if rest > 0 {
                self.0.push(digit(rest / 10));
            }
            if rest % 10 > 0 {
                self.0.push(digit(rest % 10));
            }
        }
    }

    fn dollars(&mut self, name: &str, billionths: Option<u64>) {
        if let Some(billionths) = billionths {
            self.name(name);
            json(self.0, &(billionths as f64 / 1e9));
        }
    }

    fn address(&mut self, name: &str, address: Option<IpAddr>) {
        match address {
            Some(IpAddr::V4(address)) => {
                self.name(name);
                let mut mark = b'"';
                for octet in address.octets() {
                    self.0.push(mark);
                    digits(self.0, octet.into());
                    mark = b'.';
                }
                self.0.push(b'"');
            }
            Some(address @ IpAddr::V6(_)) => {
                self.name(name);
                json(self.0, &address);
            }
            None => {}
        }
    }

    fn usage(&mut self, usage: &Usage) {
        self.some_text("model", usage.model.as_deref());
        self.flag("stream", usage.is_stream);
        self.some_number("max_tokens", usage.max_tokens);
        self.tokens(&usage.tokens);
        self.some_number(
            "server_tools",
            Some(usage.server_tools).filter(|it| *it > 0),
        );
        self.dollars("cost_usd", usage.total_cost());
        if usage.at_least {
            self.flag("at_least", true);
        }
        self.some_number("output_estimate", usage.estimate.map(|it| it.output));
        self.dollars("cost_estimate_usd", usage.estimate.and_then(|it| it.cost));
        self.others(&usage.others);
        self.some_text("inference_geo", usage.terms.inference_geo.as_deref());
        self.some_text("speed", usage.terms.speed.as_deref());
        self.some_text("service_tier", usage.terms.service_tier.as_deref());
        self.some_text(
            "metering_failure",
            usage.failure.map(MeteringFailure::label),
        );
        self.some_text("stop_reason", usage.stop_reason.as_deref());
        self.some_text("error_type", usage.error_type.as_deref());
    }

    fn flag(&mut self, name: &str, is_true: bool) {
        self.name(name);
        self.0
            .extend_from_slice(if is_true { b"true" } else { b"false" });
    }

    fn tokens(&mut self, tokens: &Tokens) {
        self.0.extend_from_slice(b",\"tokens\":{\"input\":");
        digits(self.0, tokens.input);
        self.number("output", tokens.output);
        self.number("cache_read", tokens.cache_read);
        self.number("cache_write_5m", tokens.cache_write_5m);
        self.number("cache_write_1h", tokens.cache_write_1h);
        self.0.push(b'}');
    }

    /// Usage of other models; not part of `tokens`.
    fn others(&mut self, others: &[OtherModel]) {
        if others.is_empty() {
            return;
        }
        self.name("other_models");
        let mut mark = b'[';
        for other in others {
            self.0.push(mark);
            self.0.extend_from_slice(b"{\"model\":");
            string(self.0, &other.model);
            self.tokens(&other.tokens);
            self.dollars("cost_usd", other.cost);
            self.0.push(b'}');
            mark = b',';
        }
        self.0.push(b']');
    }
}

fn string(line: &mut Vec<u8>, text: &str) {
    // without an early end it is done by many octets at once
    let is_plain = |plain, octet: &u8| plain & !matches!(octet, 0..=0x1f | b'"' | b'\\');
    if text
        .bytes()
        .fold(true, |plain, octet| is_plain(plain, &octet))
    {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    } else {
        json(line, text);
    }
}

/// Adds a value that needs the serialiser.
fn json(line: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    let begin = line.len();
    if serde_json::to_writer(&mut *line, value).is_err() {
        // texts, addresses and finite numbers cannot fail
        line.truncate(begin);
        line.extend_from_slice(b"null");
    }
}

fn digits(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The digit of a number below ten.
fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

fn time(line: &mut Vec<u8>, at: SystemTime) {
    thread_local! {
        static CLOCK: RefCell<Clock> = RefCell::default();
    }
    CLOCK.with_borrow_mut(|clock| line.extend_from_slice(clock.now(at).as_bytes()));
}

/// Upper bound of bytes of a path, as on the dashboard.
const LONGEST_PATH: usize = 1024;
/// Upper bound of bytes of a method.
const LONGEST_METHOD: usize = 128;

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;
    use crate::exchange::{
        ExchangeStart, Route, Termination, TerminationPhase, TerminationSource, Timings,
    };

    pub(crate) fn exchange() -> Exchange {
        Exchange {
            begun: ExchangeStart {
                seq: 0,
                id: "req_1".into(),
                started: UNIX_EPOCH + Duration::from_millis(1_795_402_800_123),
                client: Some([127, 0, 0, 1].into()),
                version: "1.1",
                method: "POST".into(),
                path: "/v1/messages".into(),
                route: Route::Messages,
                session: Some("s".into()),
                user_agent: Some("curl/8".into()),
                agent: Some("a1b2".into()),
                parent_agent: None,
                owner: Some(std::sync::Arc::new(crate::exchange::Owner {
                    key: "0123456789".into(),
                    name: "laptop".into(),
                    user: Some("anna".into()),
                    team: Some("core".into()),
                })),
            },
            status: Some(200),
            upstream: Some("https://a.example".into()),
            upstream_request_id: Some("req_2".into()),
            received: 10,
            sent: 20,
            timings: Timings {
                connected: Some(Duration::from_micros(1500)),
                connecting: Some(Duration::from_millis(1)),
                head: Some(Duration::from_millis(30)),
                first_token: Some(Duration::from_millis(40)),
                total: Duration::from_millis(500),
                overhead: Duration::from_micros(70),
            },
            termination: Termination {
                source: TerminationSource::Complete,
                phase: TerminationPhase::Response,
                label: None,
            },
            edit: Some(Label::Replaced),
            usage: Some(crate::exchange::Usage {
                model: Some("claude-x".into()),
                is_stream: true,
                max_tokens: Some(1000),
                tokens: Tokens {
                    input: 1,
                    output: 2,
                    cache_read: 3,
                    cache_write_5m: 4,
                    cache_write_1h: 5,
                },
                cost: Some(1_500_000),
                stop_reason: Some("end_turn".into()),
                ..Default::default()
            }),
            error: None,
            tries: Vec::new(),
            request_fields: Default::default(),
            response_fields: Default::default(),
            prompt: None,
            trace: None,
            verified: None,
        }
    }

    fn line(exchange: &Exchange) -> serde_json::Value {
        let mut text = Vec::new();
        write(&mut text, exchange);
        assert_eq!(text.iter().filter(|octet| **octet == b'\n').count(), 1);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_line_says_all_that_is_known() {
        assert_eq!(
            line(&exchange()),
            json!({
                "time": "2026-11-23T03:00:00.123Z", "request_id": "req_1",
                "upstream_request_id": "req_2", "client": "127.0.0.1", "version": "1.1",
                "method": "POST", "path": "/v1/messages", "route": "messages", "status": 200,
                "bytes_in": 10, "bytes_out": 20, "duration_ms": 500.0, "overhead_ms": 0.07,
                "connected_ms": 1.5, "connecting_ms": 1.0, "head_ms": 30.0, "ttft_ms": 40.0,
                "upstream": "https://a.example", "session": "s", "agent": "a1b2",
                "key": "0123456789", "user": "anna", "team": "core", "user_agent": "curl/8",
                "edit": "replaced",
                "model": "claude-x", "stream": true, "max_tokens": 1000,
                "tokens": {"input": 1, "output": 2, "cache_read": 3, "cache_write_5m": 4,
                           "cache_write_1h": 5},
                "cost_usd": 0.0015, "stop_reason": "end_turn",
                "result": "succeeded", "ended_by": "complete", "ended_in": "response"
            })
        );
    }

    #[test]
    fn a_line_has_the_beginning_of_what_is_long() {
        let mut exchange = exchange();
        exchange.begun.path = format!("/{}", "é".repeat(40_000)).into();
        exchange.begun.method = "M".repeat(60_000).into();
        let line = line(&exchange);
        let length = |member: &str| line[member].as_str().unwrap().len();
        assert_eq!((length("path"), length("method")), (1023, 128));
        assert!(line["path"].as_str().unwrap().starts_with("/éé"));
    }

    #[test]
    fn a_line_leaves_out_what_is_not_known_and_is_one_line() {
        let mut exchange = exchange();
        exchange.begun.client = None;
        exchange.begun.session = None;
        exchange.begun.agent = None;
        exchange.begun.owner = None;
        exchange.begun.user_agent = None;
        exchange.begun.path = "/a\"b\nc".into();
        exchange.status = None;
        exchange.upstream = None;
        exchange.upstream_request_id = None;
        exchange.timings = Timings::default();
        exchange.edit = None;
        exchange.usage = None;
        exchange.termination = Termination {
            source: TerminationSource::Client,
            phase: TerminationPhase::Request,
            label: Some(Label::ClientDisconnected),
        };
        assert_eq!(
            line(&exchange),
            json!({
                "time": "2026-11-23T03:00:00.123Z", "request_id": "req_1", "version": "1.1",
                "method": "POST", "path": "/a\"b\nc", "route": "messages",
                "bytes_in": 10, "bytes_out": 20, "duration_ms": 0.0, "overhead_ms": 0.0,
                "result": "canceled", "ended_by": "client", "ended_in": "request", "ended_label": "client_disconnected"
            })
        );
    }

    #[test]
    fn milliseconds_are_written_as_a_serialiser_would() {
        for micros in [
            0, 1, 10, 99, 100, 101, 110, 999, 1000, 1001, 1010, 12_345, 120_300,
        ] {
            let mut text = Vec::new();
            Members(&mut text).millis("x", Some(Duration::from_micros(micros)));
            let expected = serde_json::to_string(&(micros as f64 / 1000.0)).unwrap();
            assert_eq!(
                String::from_utf8(text).unwrap(),
                format!(",\"x\":{expected}")
            );
        }
    }
}
