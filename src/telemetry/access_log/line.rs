//! A line of the access log. Unknown facts of an exchange are left out.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use crate::{
    exchange::{self, Exchange, MeteringFailure, Tokens},
    logging::timestamp,
};

#[derive(Serialize)]
struct LogLine<'a> {
    /// Time at which the head of the request was complete.
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    version: &'a str,
    method: &'a str,
    path: &'a str,
    route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    overhead_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connecting_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    usage: Option<LineUsage<'a>>,
    /// `succeeded`, `failed` or `canceled`.
    result: &'a str,
    /// The side that ended it: `complete`, `client`, `upstream`, `proxy`.
    ended_by: &'a str,
    ended_in: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_label: Option<&'a str>,
}

#[derive(Serialize)]
struct LineUsage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    tokens: LineTokens,
    #[serde(skip_serializing_if = "is_zero")]
    server_tools: u64,
    /// Requests of the whole exchange, those of other models included.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    /// Tokens and cost are a floor.
    #[serde(skip_serializing_if = "is_false")]
    at_least: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_estimate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_estimate_usd: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_models: Vec<LineOtherModel<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference_geo: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metering_failure: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
}

/// Usage of another model; not part of `tokens`.
#[derive(Serialize)]
struct LineOtherModel<'a> {
    model: &'a str,
    tokens: LineTokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
}

#[derive(Serialize)]
struct LineTokens {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
}

/// Adds the line of an exchange.
pub(super) fn write(lines: &mut Vec<u8>, exchange: &Exchange) {
    let (begun, timings) = (&exchange.begun, &exchange.timings);
    let line = LogLine {
        time: timestamp(begun.started),
        request_id: &begun.id,
        upstream_request_id: exchange.upstream_request_id.as_deref(),
        client: begun.client,
        version: begun.version,
        method: beginning(&begun.method, LONGEST_METHOD),
        path: beginning(&begun.path, LONGEST_PATH),
        route: begun.route.label(),
        status: exchange.status,
        bytes_in: exchange.received,
        bytes_out: exchange.sent,
        duration_ms: millis(timings.total),
        overhead_ms: millis(timings.overhead),
        connected_ms: timings.connected.map(millis),
        connecting_ms: timings.connecting.map(millis),
        head_ms: timings.head.map(millis),
        ttft_ms: timings.first_token.map(millis),
        upstream: exchange.upstream.as_deref(),
        session: begun.session.as_deref(),
        user_agent: begun.user_agent.as_deref(),
        edit: exchange.edit,
        usage: exchange.usage.as_ref().map(|usage| LineUsage {
            model: usage.model.as_deref(),
            stream: usage.is_stream,
            max_tokens: usage.max_tokens,
            tokens: spent(&usage.tokens),
            server_tools: usage.server_tools,
            cost_usd: usage.total_cost().map(dollars),
            at_least: usage.at_least,
            output_estimate: usage.estimate.map(|estimate| estimate.output),
            cost_estimate_usd: usage
                .estimate
                .and_then(|estimate| estimate.cost)
                .map(dollars),
            other_models: usage.others.iter().map(other_model).collect(),
            inference_geo: usage.terms.inference_geo.as_deref(),
            speed: usage.terms.speed.as_deref(),
            service_tier: usage.terms.service_tier.as_deref(),
            metering_failure: usage.failure.map(MeteringFailure::label),
            stop_reason: usage.stop_reason.as_deref(),
            error_type: usage.error_type.as_deref(),
        }),
        result: exchange.verdict().label(),
        ended_by: exchange.termination.source.label(),
        ended_in: exchange.termination.phase.label(),
        ended_label: exchange.termination.label,
    };
    let before = lines.len();
    match serde_json::to_writer(&mut *lines, &line) {
        Ok(()) => lines.push(b'\n'),
        // nothing of it can fail; half a line would be worse than none
        Err(_) => lines.truncate(before),
    }
}

fn other_model(other: &exchange::OtherModel) -> LineOtherModel<'_> {
    LineOtherModel {
        model: &other.model,
        tokens: spent(&other.tokens),
        cost_usd: other.cost.map(dollars),
    }
}

fn dollars(billionths: u64) -> f64 {
    billionths as f64 / 1e9
}

fn spent(tokens: &Tokens) -> LineTokens {
    LineTokens {
        input: tokens.input,
        output: tokens.output,
        cache_read: tokens.cache_read,
        cache_write_5m: tokens.cache_write_5m,
        cache_write_1h: tokens.cache_write_1h,
    }
}

/// Beginning of a text, of at most this many bytes.
fn beginning(text: &str, longest: usize) -> &str {
    let mut ends = (0..=longest.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Milliseconds, with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
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
                id: "req_1".into(),
                started: UNIX_EPOCH + Duration::from_millis(1_795_402_800_123),
                client: Some([127, 0, 0, 1].into()),
                version: "1.1",
                method: "POST".into(),
                path: "/v1/messages".into(),
                route: Route::Messages,
                session: Some("s".into()),
                user_agent: Some("curl/8".into()),
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
            edit: Some("replaced"),
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
            rate_limit: Vec::new(),
            tries: Vec::new(),
            request_fields: Default::default(),
            response_fields: Default::default(),
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
                "upstream": "https://a.example", "session": "s", "user_agent": "curl/8",
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
            label: Some("client_gone"),
        };
        assert_eq!(
            line(&exchange),
            json!({
                "time": "2026-11-23T03:00:00.123Z", "request_id": "req_1", "version": "1.1",
                "method": "POST", "path": "/a\"b\nc", "route": "messages",
                "bytes_in": 10, "bytes_out": 20, "duration_ms": 0.0, "overhead_ms": 0.0,
                "result": "canceled", "ended_by": "client", "ended_in": "request", "ended_label": "client_gone"
            })
        );
    }
}
