#!/usr/bin/env bash
# Traces and metrics through a real collector of OpenTelemetry: rotel (PyPI; a program in a wheel) takes them by
# OTLP over HTTP, and sends on what it understood. check.py decodes that with Google's protobuf and the messages
# of OpenTelemetry's own package, and holds the metrics against /metrics.
#
#     tests/otlp.sh
#
#     PROXY       the program (default: target/release/anthropic-proxy)
#     ROTEL       the collector (default: rotel-agent)
#     PYTHONPATH  has opentelemetry-proto
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d)
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy} mock sink http grpc pid
    [[ -x $proxy ]] || { echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2; exit 1; }
    trap 'stop_all; rm -rf "$work"' EXIT
    mkdir "$work/cwd" "$work/sink"
    start_listening "$work/mock.log" '^([0-9]+)$' python3 "$here/clients/mock.py" "$work/captures"
    mock=$PORT
    start_listening "$work/sink.log" '^([0-9]+)$' python3 "$here/otlp/check.py" sink "$work/sink"
    sink=$PORT
    # it does not say which ports the kernel would choose
    read -r http grpc < <(python3 "$here/otlp/check.py" ports)
    start_listening "$work/rotel.log" '(Rotel|rotel).*' \
        env -i -C "$work/cwd" "PATH=$PATH" "${ROTEL:-rotel-agent}" start --exporter otlp \
        --otlp-http-endpoint "127.0.0.1:$http" --otlp-grpc-endpoint "127.0.0.1:$grpc" \
        --otlp-exporter-endpoint "http://127.0.0.1:$sink" --otlp-exporter-protocol http \
        --batch-timeout 50ms --pid-file "$work/rotel.pid"
    start_listening "$work/proxy.log" '\[Proxy\] listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$work/cwd" "PATH=$PATH" PORT=0 "API_BASE_URL=http://127.0.0.1:$mock" METRICS_PUBLIC=true \
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$http" OTEL_METRICS_EXPORTER=otlp \
        OTEL_METRIC_EXPORT_INTERVAL=200 OTEL_SERVICE_NAME=proxy-of-tests "$proxy"
    pid=$PID
    python3 "$here/otlp/check.py" check "$work/sink" "http://127.0.0.1:$PORT" ||
        { cat "$work/proxy.log" "$work/rotel.log" >&2; exit 1; }
    stop "$pid"
    ! grep -E '\[(Traces|Metrics)\]' "$work/proxy.log" || exit 1
    echo "otlp: all passed"
}

main
