//! The spans of an exchange: names and attributes as the semantic conventions of OpenTelemetry have them, those
//! of HTTP and of generative AI. What they have no name for begins with `anthropic_proxy.`.

use std::time::SystemTime;

use crate::{
    exchange::{Exchange, Route, TerminationSource, TraceContext, Tried, Usage},
    telemetry::otlp::{
        nanos,
        protobuf::{AttributeValue, attribute, fixed32, fixed64, message, number, octets, text},
    },
    wire::address::AddressText,
};

/// Appends the spans of an exchange as fields of `ScopeSpans`.
pub(super) fn write(out: &mut Vec<u8>, exchange: &Exchange, context: &TraceContext) {
    message(out, SPANS, |out| server(out, exchange, context));
    // one that no upstream was asked for has none
    if exchange.upstream.is_some() {
        message(out, SPANS, |out| client(out, exchange, context));
    }
}

/// The field of spans in `ScopeSpans`.
pub(super) const SPANS: u32 = 2;

/// The span of the client's request.
fn server(out: &mut Vec<u8>, exchange: &Exchange, context: &TraceContext) {
    let begun = &exchange.begun;
    let route = route(begun.route);
    let ids = (&context.server, context.parent.as_ref());
    begin(out, context, ids, SpanKind::Server);
    match route {
        Some(route) => text(out, NAME, &[&begun.method, " ", route]),
        None => octets(out, NAME, &*begun.method),
    }
    times(out, begun.started, begun.started + exchange.timings.total);
    let mut attributes = Attributes(out);
    attributes.text("http.request.method", Some(&begun.method));
    attributes.text("http.route", route);
    attributes.text("url.path", Some(&begun.path));
    attributes.text("network.protocol.version", Some(begun.version));
    let client = begun.client.map(AddressText::of);
    attributes.text("client.address", client.as_ref().map(AddressText::as_str));
    attributes.text("user_agent.original", begun.user_agent.as_deref());
    attributes.number("http.response.status_code", exchange.status.map(u64::from));
    attributes.number("http.request.body.size", Some(exchange.received));
    attributes.number("http.response.body.size", Some(exchange.sent));
    attributes.text("session.id", begun.session.as_deref());
    attributes.text("anthropic_proxy.request.id", Some(&begun.id));
    attributes.text(
        "anthropic_proxy.edit",
        exchange.edit.map(|edit| edit.text()),
    );
    attributes.text(
        "anthropic_proxy.ended_by",
        Some(exchange.termination.source.label()),
    );
    let overhead = exchange.timings.overhead.as_secs_f64() * 1000.0;
    attributes.add(
        "anthropic_proxy.overhead_ms",
        AttributeValue::Fraction(overhead),
    );
    if let Some(owner) = &begun.owner {
        attributes.text("anthropic_proxy.key.id", Some(&owner.key));
        attributes.text("anthropic_proxy.key.name", Some(&owner.name));
        attributes.text("anthropic_proxy.user", owner.user.as_deref());
        attributes.text("anthropic_proxy.team", owner.team.as_deref());
    }
    // a client's mistake is no error of the server
    let is_error = exchange.status.is_some_and(|status| status >= 500)
        || matches!(
            exchange.termination.source,
            TerminationSource::Upstream | TerminationSource::Proxy
        );
    end(attributes.0, exchange, is_error, context.parent.is_some());
}

/// The span of the request to the upstream.
fn client(out: &mut Vec<u8>, exchange: &Exchange, context: &TraceContext) {
    let begun = &exchange.begun;
    begin(
        out,
        context,
        (&context.client, Some(&context.server)),
        SpanKind::Client,
    );
    let usage = exchange.usage.as_ref();
    let asked_model = context.asked_model.as_deref();
    match (begun.route, asked_model) {
        (Route::Messages, Some(model)) => text(out, NAME, &["chat ", model]),
        (Route::Messages, None) => octets(out, NAME, "chat"),
        _ => octets(out, NAME, &*begun.method),
    }
    let timings = &exchange.timings;
    // a connection was looked for then, or the head was ready
    let connecting = timings.connecting.unwrap_or_default();
    let asked = match timings.connected {
        Some(connected) => connected.saturating_sub(connecting),
        None => timings.overhead,
    };
    times(out, begun.started + asked, begun.started + timings.total);
    let mut attributes = Attributes(out);
    attributes.text("http.request.method", Some(&begun.method));
    attributes.text("url.path", Some(&begun.path));
    attributes.text("anthropic_proxy.upstream", exchange.upstream.as_deref());
    if let Some((host, port)) = exchange.upstream.as_deref().and_then(address) {
        attributes.text("server.address", Some(host));
        attributes.number("server.port", Some(u64::from(port)));
    }
    // that of a refusal of ours is no answer of it
    let status = exchange.status.filter(|_| timings.head.is_some());
    attributes.number("http.response.status_code", status.map(u64::from));
    let resent = Some(exchange.tries.len() as u64).filter(|tries| *tries > 0);
    attributes.number("http.request.resend_count", resent);
    attributes.text(
        "anthropic_proxy.upstream.request.id",
        exchange.upstream_request_id.as_deref(),
    );
    if begun.route == Route::Messages {
        attributes.text("gen_ai.operation.name", Some("chat"));
        attributes.text("gen_ai.provider.name", Some("anthropic"));
        attributes.text("gen_ai.request.model", asked_model);
        attributes.text("gen_ai.conversation.id", begun.session.as_deref());
    }
    if let Some(usage) = usage {
        usage_of(&mut attributes, usage, exchange);
    }
    let Attributes(out) = attributes;
    for tried in &exchange.tries {
        failed(out, begun.started, &tried.upstream, tried.outcome);
    }
    if let Some(first) = timings.first_token {
        message(out, EVENTS, |out| {
            fixed64(out, 1, nanos(begun.started + first));
            octets(out, 2, "anthropic_proxy.first_token");
        });
    }
    let is_error = exchange.status.is_some_and(|status| status >= 400)
        || usage.is_some_and(|usage| usage.error_type.is_some())
        || exchange.termination.source == TerminationSource::Upstream;
    end(out, exchange, is_error, false);
}

fn usage_of(attributes: &mut Attributes<'_>, usage: &Usage, exchange: &Exchange) {
    let tokens = &usage.tokens;
    // the model of the response, unless nothing came
    let model = usage
        .model
        .as_deref()
        .filter(|_| exchange.timings.head.is_some());
    attributes.text("gen_ai.response.model", model);
    attributes.number("gen_ai.request.max_tokens", usage.max_tokens);
    if let Some(reason) = usage.stop_reason.as_deref() {
        attributes.add(
            "gen_ai.response.finish_reasons",
            AttributeValue::Texts(reason),
        );
    }
    if tokens.all() > 0 {
        let written = tokens.cache_write_5m.saturating_add(tokens.cache_write_1h);
        // all kinds of input, those of caches among them
        attributes.number("gen_ai.usage.input_tokens", Some(tokens.prompt()));
        attributes.number("gen_ai.usage.output_tokens", Some(tokens.output));
        attributes.number(
            "gen_ai.usage.cache_read.input_tokens",
            Some(tokens.cache_read),
        );
        attributes.number("gen_ai.usage.cache_creation.input_tokens", Some(written));
    }
    if let Some(cost) = usage.total_cost() {
        attributes.add(
            "anthropic_proxy.cost_usd",
            AttributeValue::Fraction(cost as f64 / 1e9),
        );
    }
    attributes.add(
        "anthropic_proxy.stream",
        AttributeValue::Flag(usage.is_stream),
    );
}

/// An event of an attempt that did not bring the response.
fn failed(out: &mut Vec<u8>, started: SystemTime, upstream: &str, outcome: Tried) {
    message(out, EVENTS, |out| {
        // its own time is not kept
        fixed64(out, 1, nanos(started));
        octets(out, 2, "anthropic_proxy.attempt_failed");
        attribute(
            out,
            3,
            "anthropic_proxy.upstream",
            AttributeValue::Text(upstream),
        );
        let outcome = match outcome {
            Tried::Unreachable => "unreachable",
            Tried::Unanswered => "unanswered",
            Tried::Overloaded => "overloaded",
            Tried::Status(status) => {
                let status = AttributeValue::Number(u64::from(status));
                return attribute(out, 3, "http.response.status_code", status);
            }
        };
        attribute(out, 3, "error.type", AttributeValue::Text(outcome));
    });
}

/// Kind of a span.
#[derive(Debug, Clone, Copy)]
enum SpanKind {
    Server = 2,
    Client = 3,
}

/// Fields of `Span`.
const NAME: u32 = 5;
const ATTRIBUTES: u32 = 9;
const EVENTS: u32 = 11;

fn begin(
    out: &mut Vec<u8>,
    context: &TraceContext,
    (own, parent): (&[u8; 8], Option<&[u8; 8]>),
    kind: SpanKind,
) {
    octets(out, 1, context.trace);
    octets(out, 2, own);
    if let Some(state) = &context.state {
        octets(out, 3, &**state);
    }
    if let Some(parent) = parent {
        octets(out, 4, parent);
    }
    number(out, 6, kind as u64);
}

fn times(out: &mut Vec<u8>, start: SystemTime, end: SystemTime) {
    fixed64(out, 7, nanos(start));
    fixed64(out, 8, nanos(end.max(start)));
}

/// Ends a span, with its error and its flags.
fn end(out: &mut Vec<u8>, exchange: &Exchange, is_error: bool, is_parent_remote: bool) {
    if is_error {
        let said = exchange
            .usage
            .as_ref()
            .and_then(|usage| usage.error_type.as_deref());
        let label = exchange.termination.label.map(|label| label.text());
        let status = exchange.status.map(|status| status.to_string());
        let kind = label.or(said).or(status.as_deref()).unwrap_or("_OTHER");
        attribute(out, ATTRIBUTES, "error.type", AttributeValue::Text(kind));
        message(out, 15, |out| number(out, 3, STATUS_ERROR));
    }
    let remote = if is_parent_remote { IS_REMOTE } else { 0 };
    fixed32(out, 16, SAMPLED | KNOWS_REMOTE | remote);
}

const STATUS_ERROR: u64 = 2;
const SAMPLED: u32 = 1;
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The path of a route that has one.
fn route(route: Route) -> Option<&'static str> {
    match route {
        Route::Messages => Some("/v1/messages"),
        Route::CountTokens => Some("/v1/messages/count_tokens"),
        Route::Batches => Some("/v1/messages/batches"),
        Route::Models => Some("/v1/models"),
        Route::Files => Some("/v1/files"),
        Route::Tunnel | Route::Other => None,
    }
}

/// Host and port of an upstream's name: its URL, or `URL #2`.
fn address(name: &str) -> Option<(&str, u16)> {
    let (rest, port) = match name.strip_prefix("https://") {
        Some(rest) => (rest, 443),
        None => (name.strip_prefix("http://")?, 80),
    };
    let authority = rest.split(['/', ' ']).next()?;
    match authority.rsplit_once(':') {
        // the colons of an address of IPv6 stand in brackets
        Some((host, port)) if !port.ends_with(']') => Some((host, port.parse().ok()?)),
        _ => Some((authority, port)),
    }
}

/// Attributes of a span.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn add(&mut self, key: &str, value: AttributeValue<'_>) {
        attribute(self.0, ATTRIBUTES, key, value);
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add(key, AttributeValue::Text(value));
        }
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.add(key, AttributeValue::Number(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_upstream() {
        for (name, expected) in [
            (
                "https://api.anthropic.com",
                Some(("api.anthropic.com", 443)),
            ),
            ("http://a:8080/prefix", Some(("a", 8080))),
            ("https://a.test #2", Some(("a.test", 443))),
            ("http://[::1]:81", Some(("[::1]", 81))),
            ("http://[::1]", Some(("[::1]", 80))),
            ("other", None),
        ] {
            assert_eq!(address(name), expected, "{name}");
        }
    }
}
