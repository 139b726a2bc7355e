//! Traces: the spans of an exchange as a collector of OpenTelemetry reads them, and an exchange that does not
//! feel one that is slow, away or unwilling.

use std::{collections::BTreeMap, io::Read as _};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;

use crate::{
    access::site::{self, Site},
    support::{
        Answering, Body, DEADLINE, Proxy, ProxyBuilder, Upstream, get, upstream::OK, wire::chunk,
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

const EVENTS: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5-20250929\",\"usage\":{\"input_tokens\":20,\"cache_creation_input_tokens\":35,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n\
event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"canary-answer\"}}\n\n\
event: message_delta\n\
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":42}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

fn streaming() -> Answering {
    let mut octets =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_theirs\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for event in EVENTS.split_inclusive("\n\n") {
        octets.extend(chunk(event.as_bytes()));
    }
    octets.extend(chunk(b""));
    Upstream::always(octets)
}

fn message(fields: &str) -> String {
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,"messages":[{"role":"user","content":"canary-prompt"}]}"#;
    format!(
        "POST /v1/messages?canary-query HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: session-7\r\n\
         x-api-key: sk-ant-canary\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn tracing(upstream: impl ToString, collector: &str) -> ProxyBuilder {
    Proxy::to(upstream).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
}

/// A request, decoded.
#[track_caller]
fn decoded(body: &Body) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(body.content()).unwrap()
}

/// All spans that reach the collector, until there are this many.
#[track_caller]
fn spans(collector: &Answering, count: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    while spans.len() < count {
        let resources = decoded(&collector.request().1).resource_spans;
        let scopes = resources.into_iter().flat_map(|it| it.scope_spans);
        spans.extend(scopes.flat_map(|it| it.spans));
    }
    assert_eq!(spans.len(), count);
    spans
}

fn values(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::ArrayValue(list) => format!("{:?}", list.values),
        other => format!("{other:?}"),
    };
    let pairs = attributes.iter().map(|it| {
        let value = it.value.as_ref().unwrap().value.as_ref().unwrap();
        (&*it.key, text(value))
    });
    pairs.collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[track_caller]
fn assert_values(span: &Span, expected: &[(&str, &str)]) {
    let values = values(&span.attributes);
    for (name, value) in expected {
        assert_eq!(
            values.get(name).map(String::as_str),
            Some(*value),
            "{name}: {values:#?}"
        );
    }
}

#[test]
fn an_exchange_is_a_server_span_and_a_client_span_below_the_clients() {
    let (upstream, collector) = (streaming(), Upstream::ok());
    let site = Site::new();
    let key = site.key(&["--name", "ada", "--team", "core"]);
    let proxy = site
        .proxy(&upstream)
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("{}/otel/", collector.url()),
        )
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "api-key=canary%20key,x-tenant=a",
        )
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_SERVICE_NAME", "proxy-of-tests")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=other,deployment.environment.name=a%2Cb",
        )
        .start();
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let fields = format!("traceparent: {parent}\r\ntracestate: vendor=1\r\nx-proxy-key: {key}\r\n");
    let answer = proxy.send(message(&fields));
    assert_eq!(answer.status(), 200);
    let (head, _) = upstream.request();
    assert_eq!(
        head.one("traceparent"),
        Some(&*parent),
        "it is forwarded untouched"
    );
    assert_eq!(head.one("tracestate"), Some("vendor=1"));

    let (head, body) = collector.request();
    assert_eq!(head.line, "POST /otel/v1/traces HTTP/1.1");
    assert_eq!(head.one("content-type"), Some("application/x-protobuf"));
    assert_eq!(head.one("api-key"), Some("canary key"));
    assert_eq!(head.one("x-tenant"), Some("a"));
    for secret in [
        "canary-prompt",
        "canary-answer",
        "canary-query",
        "sk-ant-",
        &key,
    ] {
        assert!(
            !crate::support::contains(body.content(), secret.as_bytes()),
            "{secret}"
        );
    }
    let request = decoded(&body);
    let [resource] = &request.resource_spans[..] else {
        panic!("{request:#?}")
    };
    let of_program = values(&resource.resource.as_ref().unwrap().attributes);
    assert_eq!(of_program["service.name"], "proxy-of-tests");
    assert_eq!(of_program["deployment.environment.name"], "a,b");
    assert!(
        of_program.contains_key("service.instance.id"),
        "{of_program:?}"
    );
    let [scope] = &resource.scope_spans[..] else {
        panic!("{request:#?}")
    };
    assert_eq!(scope.scope.as_ref().unwrap().name, "anthropic-proxy");
    let [server, client] = &scope.spans[..] else {
        panic!("{request:#?}")
    };

    for span in [server, client] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "vendor=1");
        assert!(
            span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano
        );
        assert_eq!(span.status, None);
        assert_eq!(span.flags & 1, 1);
    }
    assert_eq!((server.kind, client.kind), (SERVER, CLIENT));
    assert_eq!(hex(&server.parent_span_id), SPAN);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_ne!(client.span_id, server.span_id);
    assert!(client.start_time_unix_nano >= server.start_time_unix_nano);
    assert_eq!(
        (&*server.name, &*client.name),
        ("POST /v1/messages", "chat claude-sonnet-4-5")
    );
    assert_values(
        server,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/v1/messages"),
            ("url.path", "/v1/messages"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
            ("session.id", "session-7"),
            ("anthropic_proxy.key.name", "ada"),
            ("anthropic_proxy.team", "core"),
        ],
    );
    let port = upstream.addr().port().to_string();
    assert_values(
        client,
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "anthropic"),
            ("gen_ai.request.model", "claude-sonnet-4-5"),
            ("gen_ai.request.max_tokens", "1024"),
            ("gen_ai.response.model", "claude-sonnet-4-5-20250929"),
            ("gen_ai.conversation.id", "session-7"),
            // 20 + 35 + 100
            ("gen_ai.usage.input_tokens", "155"),
            ("gen_ai.usage.output_tokens", "42"),
            ("gen_ai.usage.cache_read.input_tokens", "100"),
            ("gen_ai.usage.cache_creation.input_tokens", "35"),
            ("anthropic_proxy.upstream.request.id", "req_theirs"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
        ],
    );
    let reasons = &values(&client.attributes)["gen_ai.response.finish_reasons"];
    assert!(reasons.contains("end_turn"), "{reasons}");
    assert_eq!(client.events[0].name, "anthropic_proxy.first_token");
}

#[test]
fn without_a_parent_a_trace_begins_here_and_an_unsampled_parent_begins_none() {
    let (upstream, collector) = (Upstream::ok(), Upstream::ok());
    // spans come in the order of one worker
    let proxy = tracing(upstream.url(), &collector.url())
        .env("WORKERS", 1)
        .start();
    let unsampled = format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n");
    proxy.send(message(&unsampled));
    let (head, _) = upstream.request();
    assert!(head.one("traceparent").is_some());
    proxy.send(get("/v1/models"));
    let (head, _) = upstream.request();
    assert!(!head.has("traceparent"), "nothing is added");
    // what cannot be read is no parent
    let twice = format!("GET /x HTTP/1.1\r\nHost: x\r\ntraceparent: 00-{TRACE}-{SPAN}\r\n\r\n");
    proxy.send(twice);
    let (head, _) = upstream.request();
    assert_eq!(
        head.one("traceparent"),
        Some(&*format!("00-{TRACE}-{SPAN}"))
    );
    let spans = spans(&collector, 4);
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["GET /v1/models", "GET", "GET", "GET"]);
    for span in &spans {
        assert_ne!(hex(&span.trace_id), TRACE);
        assert_eq!(span.parent_span_id.is_empty(), span.kind == SERVER);
    }
    assert_ne!(spans[0].trace_id, spans[2].trace_id);
}

#[test]
fn failures_are_errors_of_the_side_at_fault() {
    let collector = Upstream::ok();
    let upstream = Upstream::always("HTTP/1.1 529 Overloaded\r\nContent-Length: 0\r\n\r\n");
    let proxy = tracing(upstream.url(), &collector.url())
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .start();
    assert_eq!(proxy.send(message("")).status(), 529);
    for span in spans(&collector, 2) {
        assert_eq!(span.status.as_ref().unwrap().code, 2, "{span:?}");
        assert_values(&span, &[("error.type", "529")]);
    }
    // refused here: no upstream was asked
    let site = Site::new();
    site.key(&["--name", "ada"]);
    let proxy = site
        .proxy(&upstream)
        .env(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            format!("{}/own?x=1", collector.url()),
        )
        .start();
    assert_eq!(
        proxy
            .send(site::shown("", "GET", "/v1/models", ""))
            .status(),
        401
    );
    let (head, body) = collector.request();
    assert_eq!(head.line, "POST /own?x=1 HTTP/1.1");
    let spans = &decoded(&body).resource_spans[0].scope_spans[0].spans;
    let [server] = &spans[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(server.kind, SERVER);
    assert_eq!(server.status, None, "the client's mistake");
    assert_values(server, &[("http.response.status_code", "401")]);
}

#[test]
fn a_collector_that_refuses_is_counted_and_nothing_else() {
    let upstream = Upstream::ok();
    let collector = Upstream::always("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let proxy = tracing(upstream.url(), &format!("{}/canary-path", collector.url()))
        .env("METRICS_PUBLIC", "true")
        .start();
    assert_eq!(proxy.send(get("/v1/models")).status(), 200);
    collector.request();
    let line = proxy.wait_for_line(|line| line.contains("[Traces]"));
    assert!(
        line.contains("status 400") && !line.contains("canary"),
        "{line}"
    );
    let end = std::time::Instant::now() + DEADLINE;
    while !site::metrics(&proxy).contains("\nanthropic_proxy_traces_dropped_total 1\n") {
        assert!(std::time::Instant::now() < end, "{}", site::metrics(&proxy));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn requests_are_compressed_and_have_the_fields_of_their_signal() {
    let (upstream, collector) = (Upstream::ok(), Upstream::ok());
    let proxy = tracing(upstream.url(), &collector.url())
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=all,x-tenant=a")
        .env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=own")
        .start();
    assert_eq!(proxy.send(get("/v1/models")).status(), 200);
    let (head, body) = collector.request();
    assert_eq!(head.one("content-encoding"), Some("gzip"));
    assert_eq!(head.one("content-type"), Some("application/x-protobuf"));
    assert_eq!(head.one("api-key"), Some("own"));
    assert_eq!(head.one("x-tenant"), None);
    let mut content = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(body.content());
    decoder.read_to_end(&mut content).unwrap();
    let request = ExportTraceServiceRequest::decode(&*content).unwrap();
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 2);
}

#[test]
fn a_request_that_is_taken_in_part_is_counted_and_told_once_a_minute() {
    let upstream = Upstream::ok();
    let answer = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "the span is too old\n".to_owned(),
        }),
    };
    let answer = answer.encode_to_vec();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let collector = Upstream::always([head.into_bytes(), answer].concat());
    let proxy = tracing(upstream.url(), &collector.url())
        .env("METRICS_PUBLIC", "true")
        .start();
    let dropped = |count: u32| {
        let line = format!("\nanthropic_proxy_traces_dropped_total {count}\n");
        let end = std::time::Instant::now() + DEADLINE;
        while !site::metrics(&proxy).contains(&line) {
            assert!(std::time::Instant::now() < end, "{}", site::metrics(&proxy));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    assert_eq!(proxy.send(get("/v1/models")).status(), 200);
    let line = proxy.wait_for_line(|line| line.contains("[Traces]"));
    for part in [
        "rejected 1 spans",
        r#""the span is too old\n""#,
        "anthropic_proxy_traces_dropped_total",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    dropped(1);
    assert_eq!(proxy.send(get("/v1/models")).status(), 200);
    dropped(2);
    proxy.signal("TERM");
    let ended = proxy.wait();
    assert_eq!(
        ended.stderr.matches("[Traces]").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end() {
    let (upstream, collector) = (Upstream::ok(), Upstream::bind());
    let proxy = tracing(upstream.url(), &collector.url()).start();
    assert_eq!(proxy.send(get("/1")).status(), 200);
    // it has the first ones, and keeps them
    let _kept = collector.accept();
    for _ in 0..20 {
        assert_eq!(proxy.send(get("/2")).status(), 200);
    }
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn switched_off_nothing_is_sent() {
    let (upstream, collector) = (Upstream::always(OK), Upstream::ok());
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let proxy = tracing(upstream.url(), &collector.url())
            .env(name, value)
            .start();
        assert_eq!(proxy.send(message("")).status(), 200);
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code, Some(0));
        assert!(collector.try_request().is_none(), "{name}");
    }
}

#[test]
fn a_setting_that_cannot_be_is_an_error_with_a_remedy() {
    for (name, value, part) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf"),
        ("OTEL_METRICS_EXPORTER", "otpl", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "http://"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "on", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key", "name=value"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "0 to 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-value", "name=value"),
    ] {
        let checked = ProxyBuilder::new().env(name, value).arg("check").run();
        assert_eq!(checked.code, Some(2), "{name}: {checked:?}");
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert!(said.contains(name) && said.contains(part), "{name}: {said}");
    }
}
