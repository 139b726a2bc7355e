//! Field filter: from a parsed head to the octets that go on, for requests as Claude Code sends
//! them and responses as Anthropic does.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set up shall stop"
)]

use std::hint::black_box;

use anthropic_proxy::{
    config::{ConfigSource, Environment, Flags},
    proxy::field::{self, ExpectHandling, OutgoingFraming, RequestFields},
    wire::head::{Fields, ResponseHead, Transport, Version},
};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const REQUEST: &str = "Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: claude-cli/2.1.330 (external, sdk-cli)\r\nX-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000000\r\nX-Stainless-Arch: x64\r\nX-Stainless-Lang: js\r\nX-Stainless-OS: Linux\r\nX-Stainless-Package-Version: 0.128.0\r\nX-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: node\r\nX-Stainless-Runtime-Version: v26.12.1\r\nX-Stainless-Timeout: 600\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,advanced-tool-use-2025-11-20,effort-2025-11-24\r\nanthropic-dangerous-direct-browser-access: true\r\nanthropic-version: 2023-06-01\r\nx-api-key: sk-ant-api03-fake\r\nx-app: cli\r\nConnection: keep-alive\r\nHost: 127.0.0.1:8088\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nContent-Length: 49220\r\n\r\n";

const RESPONSE: &str = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\nrequest-id: req_011CUmockmockmockmockmock\r\nanthropic-organization-id: 00000000-1111-2222-3333-444444444444\r\nanthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-requests-remaining: 3999\r\nanthropic-ratelimit-tokens-limit: 400000\r\nanthropic-ratelimit-tokens-remaining: 399000\r\nstrict-transport-security: max-age=31536000; includeSubDomains; preload\r\nvia: 1.1 google\r\ncf-cache-status: DYNAMIC\r\nx-robots-tag: none\r\nserver: cloudflare\r\n\r\n";

fn fields(text: &'static str) -> Fields {
    let raw = Bytes::from_static(text.as_bytes());
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let (_, parsed) = httparse::parse_headers(&raw, &mut slots).unwrap().unwrap();
    let spans = Fields::spans(raw.as_ptr(), parsed);
    Fields::with_spans(raw, spans)
}

fn filter(criterion: &mut Criterion) {
    let nothing: Environment = std::iter::empty::<(String, String)>().collect();
    let live = ConfigSource::new(Flags::default(), nothing)
        .load()
        .unwrap()
        .config
        .live;
    let sent = fields(REQUEST);
    let mut group = criterion.benchmark_group("fields");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    let mut octets = BytesMut::with_capacity(2 * REQUEST.len());
    group.bench_function("request", |bencher| {
        bencher.iter(|| {
            octets.clear();
            let request = RequestFields {
                endpoint: &live.endpoints[0],
                transport: Transport::Clear,
                live: &live,
                fields: black_box(&sent),
                client: Some([127, 0, 0, 1].into()),
                framing: OutgoingFraming::Exactly(49_220),
                expect: ExpectHandling::Forward,
                proxy_authorization: None,
                upgrade: None,
                keyed: None,
            };
            field::put_request_fields(&mut octets, &request);
        });
    });
    let head = ResponseHead {
        status: actix_web::http::StatusCode::OK,
        reason: Bytes::from_static(b"OK"),
        fields: fields(RESPONSE),
    };
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |bencher| {
        bencher.iter(|| field::response_head(black_box(&head), false, Version::Http11));
    });
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
