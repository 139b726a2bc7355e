#!/usr/bin/env python3
"""The far side of a collector: takes what it sends on, and holds it against what the proxy says.

    check.py ports           prints two ports that are free
    check.py sink FOLDER     prints its port, and keeps each request of OTLP in FOLDER
    check.py check FOLDER URL
"""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import math
import pathlib
import re
import socket
import sys
import time
import urllib.parse

PATIENCE = 30
"""Seconds until what was asked for has come."""

CUMULATIVE = 2
SERVER, CLIENT = 2, 3


def ports() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    print(*(it.getsockname()[1] for it in sockets))


def sink(folder: pathlib.Path) -> None:
    class Sink(http.server.BaseHTTPRequestHandler):
        count = 0

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            # this collector compresses whatever it is told
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            Sink.count += 1
            kind = self.path.rsplit("/", 1)[-1]
            part = folder / f"{Sink.count:04}.part"
            part.write_bytes(body)
            part.rename(folder / f"{Sink.count:04}.{kind}")
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Sink)
    print(server.server_port, flush=True)
    server.serve_forever()


def ask(url: str, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=PATIENCE)
    fields = {"content-type": "application/json", "x-api-key": "canary-key"} if body else {}
    connection.request(method, path, body, fields)
    response = connection.getresponse()
    content = response.read()
    assert response.status in (200, 529), (path, response.status, content)
    return content


def attributes(pairs) -> dict[str, object]:
    def value(it):
        kind = it.WhichOneof("value")
        found = getattr(it, kind)
        return [value(one) for one in found.values] if kind == "array_value" else found

    return {pair.key: value(pair.value) for pair in pairs}


def series(name: str, labels: dict[str, object]) -> tuple:
    name = name.replace(".", "_")
    return name, frozenset((key.replace(".", "_"), str(value)) for key, value in labels.items())


def sent(metric) -> dict[tuple, float]:
    """The samples of a metric, as Prometheus' receiver names them."""
    name = metric.name
    if metric.unit == "s" and "_seconds" not in name:
        name += "_seconds"
    samples: dict[tuple, float] = {}
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    if kind != "gauge":
        assert data.aggregation_temporality == CUMULATIVE, name
    for point in data.data_points:
        labels = attributes(point.attributes)
        assert point.time_unix_nano > 0
        if kind != "gauge":
            assert 0 < point.start_time_unix_nano <= point.time_unix_nano, name
        if kind != "histogram":
            samples[series(name, labels)] = float(getattr(point, point.WhichOneof("value")))
            continue
        samples[series(f"{name}_sum", labels)] = point.sum
        samples[series(f"{name}_count", labels)] = float(point.count)
        total = 0
        for count, upper in zip(point.bucket_counts, [*point.explicit_bounds, math.inf], strict=True):
            total += count
            samples[series(f"{name}_bucket", labels | {"le": upper})] = float(total)
        assert total == point.count, name
    return samples


def exposed(text: str) -> dict[tuple, float]:
    """The samples of an exposition."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
        found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
        if "le" in found:
            found["le"] = float(found["le"])
        samples[series(name, {key: value for key, value in found.items() if value != ""})] = float(value)
    return samples


def moving(key: tuple) -> bool:
    """What goes on while nothing is asked, or counts the asking itself."""
    return key[0].startswith(("process_", "anthropic_proxy_metric_exports", "anthropic_proxy_connections"))


def check(folder: pathlib.Path, url: str) -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    body = {"model": "claude-mock-1", "max_tokens": 16, "messages": [{"role": "user", "content": "canary-prompt"}]}
    ask(url, "POST", "/v1/messages", json.dumps(body | {"stream": True}).encode())
    body["messages"][0]["content"] = "mock status 529"
    ask(url, "POST", "/v1/messages", json.dumps(body).encode())
    # an exchange is counted a moment after its client has the last octet
    begun, expected = time.monotonic(), {}
    ended = series("anthropic_proxy_request_duration_seconds_count", {"route": "messages"})
    while expected.get(ended) != 2:
        assert time.monotonic() - begun < PATIENCE, expected.get(ended)
        expected = exposed(ask(url, "GET", "/metrics").decode())

    begun, spans, found, resource = time.monotonic(), [], {}, {}
    done: set[pathlib.Path] = set()
    while len(spans) < 4 or any(found.get(key) != value for key, value in expected.items() if not moving(key)):
        if time.monotonic() - begun > PATIENCE:
            wrong = {key: (value, found.get(key)) for key, value in expected.items() if found.get(key) != value}
            raise SystemExit(f"{len(spans)} spans; exposed and sent: {wrong}")
        time.sleep(0.02)
        for path in sorted(set(folder.glob("*.traces")) | set(folder.glob("*.metrics"))):
            if path in done:
                continue
            done.add(path)
            content = path.read_bytes()
            assert b"canary" not in content
            if path.suffix == ".traces":
                request = ExportTraceServiceRequest.FromString(content)
                for it in request.resource_spans:
                    assert attributes(it.resource.attributes)["service.name"] == "proxy-of-tests"
                    spans += [span for scope in it.scope_spans for span in scope.spans]
            else:
                request = ExportMetricsServiceRequest.FromString(content)
                for it in request.resource_metrics:
                    resource = attributes(it.resource.attributes)
                    for scope in it.scope_metrics:
                        for metric in scope.metrics:
                            found |= sent(metric)
    assert resource["service.name"] == "proxy-of-tests" and resource["service.instance.id"], resource
    unknown = {key for key in found if key not in expected and not moving(key)}
    assert not unknown, f"sent, but not exposed: {unknown}"
    missing = {key for key in expected if key not in found}
    assert not missing, f"exposed, but not sent: {missing}"

    assert [span.kind for span in spans] == [SERVER, CLIENT] * 2, spans
    server, client = spans[:2]
    assert (server.name, client.name) == ("POST /v1/messages", "chat claude-mock-1")
    assert client.parent_span_id == server.span_id and client.trace_id == server.trace_id
    assert attributes(client.attributes)["gen_ai.usage.output_tokens"] > 0
    assert spans[3].status.code == 2 and attributes(spans[3].attributes)["http.response.status_code"] == 529
    print(f"otlp: {len(spans)} spans, {len(found)} samples, as /metrics has them")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ports"]:
            ports()
        case ["sink", folder]:
            sink(pathlib.Path(folder))
        case ["check", folder, url]:
            check(pathlib.Path(folder), url)
        case _:
            raise SystemExit(__doc__)
