#!/usr/bin/env bash
# Real clients of HTTP/2 through the proxy to the mock: curl, nghttp, h2load, Python's httpx.
#
#     tests/clients/http2.sh [curl] [nghttp] [h2load] [httpx] [tls] [upstream]   (default: all)
#
# client (HTTP/2 in clear) -> proxy (H2C=true) -> mock (HTTP/1.1); `tls` is curl with HTTP/2 and HTTP/1.1
# over TLS, `upstream` is curl -> proxy -> (HTTP/2 over TLS) -> proxy -> mock. What a client sent and got is held
# against the mock's captures, octet for octet. Needs python3, curl and nghttp2-client; what it
# installs and writes goes to tests/clients/.work.
#
#     PROXY     the program (default: target/release/anthropic-proxy)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$here/.work
run=$work/run-http2
key='x-api-key: sk-ant-canary-4'
# shellcheck source=tests/clients/process.sh
source "$here/process.sh"

main() {
    proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy}
    local clients=("$@") client
    ((${#clients[@]})) || clients=(curl nghttp h2load httpx tls upstream)
    if [[ ! -x $proxy ]]; then
        echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2
        exit 1
    fi
    proxy=$(realpath "$proxy")
    trap stop_all EXIT
    rm -rf "$run"
    mkdir -p "$run/cwd"
    head -c 3000000 /dev/urandom >"$run/upload"
    printf '%s' '{"model":"claude-mock-1","max_tokens":16,"system":[{"type":"text","text":"\u00fc"}],"stream":true,"messages":[{"role":"user","content":"say hi"}]}' \
        >"$run/message"

    start_listening "$run/mock.log" '^([0-9]+)$' python3 "$here/mock.py" "$run/captures"
    mock=http://127.0.0.1:$PORT
    start_listening "$run/proxy.log" 'listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$run/cwd" "PATH=$PATH" PORT=0 RUST_LOG=trace H2C=true "API_BASE_URL=$mock" "$proxy"
    base=http://127.0.0.1:$PORT proxy_pid=$PID
    for client in "${clients[@]}"; do
        "with_$client"
        echo "  ok $client"
    done
    stop "$proxy_pid"
    if grep -qF sk-ant-canary "$run/proxy.log"; then
        echo "the proxy's log contains the key" >&2
        return 1
    fi
    echo "http2: all passed"
}

with_curl() {
    asks() { curl -sS --noproxy '*' --max-time 30 --http2-prior-knowledge -H "$key" "$@"; }
    [[ $(asks "$base/v1/messages" -N --data-binary "@$run/message" -o "$run/got" -w '%{http_version} %{http_code}') == '2 200' ]]
    captured "$run/message" "$run/got"
    # with a length, without one, and one that waits for 100
    [[ $(asks "$base/v1/files" --data-binary "@$run/upload" -o "$run/got" -w '%{http_code}') == 404 ]]
    captured "$run/upload" "$run/got"
    [[ $(asks "$base/v1/files" -X POST -T - -o "$run/got" -w '%{http_code}' <"$run/upload") == 404 ]]
    captured "$run/upload" "$run/got"
    [[ $(asks "$base/v1/files" -H 'expect: 100-continue' --data-binary "@$run/upload" -o "$run/got" -w '%{http_code}') == 404 ]]
    captured "$run/upload" "$run/got"
    [[ $(asks -I "$base/api/hello" -o /dev/null -w '%{http_code}') == 200 ]]
    [[ $(asks "$base/a/%2e%2E//x?y=%20&&z" --path-as-is -o /dev/null -w '%{http_code}') == 404 ]]
    grep -qF 'GET /a/%2e%2E//x?y=%20&&z HTTP/1.1' "$(newest head)"
    # -Z is left out: curl 7.88 (Debian 12) cannot use a connection of prior knowledge twice
}

with_nghttp() {
    nghttp -t 30 -H "$key" "$base/v1/models" >"$run/got"
    captured /dev/null "$run/got"
    nghttp -t 30 -H "$key" -H ':method: POST' -d "$run/upload" "$base/v1/files" >"$run/got"
    captured "$run/upload" "$run/got"
}

with_h2load() {
    h2load -n 2000 -c 10 -m 50 -T 60 -H "$key" "$base/v1/models" >"$run/h2load"
    grep -qF '2000 succeeded, 0 failed, 0 errored, 0 timeout' "$run/h2load"
    grep -qF '2000 2xx, 0 3xx, 0 4xx, 0 5xx' "$run/h2load"
}

with_httpx() {
    local packages=$work/python-http2
    [[ -d $packages/httpx ]] || python3 -m pip install --quiet --target "$packages" 'httpx[http2]'
    env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy \
        "PYTHONPATH=$packages" timeout 120 python3 "$here/http2.py" "$base" "$run"
}

# start_tls : a proxy that serves TLS, with a certificate of its own. Sets PORT.
start_tls() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=127.0.0.1' \
        -addext 'subjectAltName=IP:127.0.0.1' -addext 'basicConstraints=critical,CA:FALSE' -keyout "$run/key.pem" -out "$run/cert.pem" 2>/dev/null
    start_listening "$run/proxy.log" 'listening on https://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$run/cwd" "PATH=$PATH" PORT=0 RUST_LOG=trace "TLS_CERT_FILE=$run/cert.pem" \
        "TLS_KEY_FILE=$run/key.pem" "API_BASE_URL=$mock" "$proxy"
}

with_tls() {
    start_tls
    local at=https://127.0.0.1:$PORT pid=$PID version
    for version in 2 1.1; do
        [[ $(curl -sS --noproxy '*' --max-time 30 "--http$version" --cacert "$run/cert.pem" -H "$key" "$at/v1/files" \
            --data-binary "@$run/upload" -o "$run/got" -w '%{http_version} %{http_code}') == "$version 404" ]]
        captured "$run/upload" "$run/got"
    done
    stop "$pid"
}

with_upstream() {
    start_tls
    local far_pid=$PID
    start_listening "$run/near.log" 'listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$run/cwd" "PATH=$PATH" PORT=0 RUST_LOG=info UPSTREAM_HTTP_VERSION=auto "UPSTREAM_CA_FILE=$run/cert.pem" \
        "API_BASE_URL=https://127.0.0.1:$PORT" "$proxy"
    local at=http://127.0.0.1:$PORT near_pid=$PID
    [[ $(curl -sS --noproxy '*' --max-time 30 -H "$key" "$at/v1/files" --data-binary "@$run/upload" -o "$run/got" \
        -w '%{http_code}') == 404 ]]
    captured "$run/upload" "$run/got"
    curl -sS --noproxy '*' --max-time 30 -N -H "$key" "$at/v1/messages" --data-binary "@$run/message" -o "$run/got"
    captured "$run/message" "$run/got"
    stop "$near_pid"
    stop "$far_pid"
}

# captured SENT GOT : the newest exchange at the mock has these octets.
captured() {
    cmp "$1" "$(newest body)"
    cmp <(decoded "$2") <(decoded "$(newest reply)")
}

# newest KIND : the file of the mock's newest capture.
newest() {
    local files=("$run"/captures/*."$1")
    echo "${files[-1]}"
}

# decoded FILE : nghttp asks for gzip, and decodes it.
decoded() {
    gzip -dcf "$1"
}

main "$@"
