#!/usr/bin/env bash
# The dashboard in headless Chromium: the built program, a mock upstream, real traffic.
#
#     tests/browser.sh [NAME…]          (the tests whose name holds one of these; default: all)
#
# What needs a process to itself (restarts, no key, other settings) has one: tests/browser/program.mjs.
#
# Needs Debian's chromium, node and npm, python3 and curl. Screenshots go to tests/browser/.shots.
#
#     PROXY    the program (default: target/release/anthropic-proxy)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
run=$here/clients/.work/browser
key=a-key-of-the-browser-tests
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy} admin main
    if [[ ! -x $proxy ]]; then
        echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2
        exit 1
    fi
    proxy=$(realpath "$proxy")
    trap stop_all EXIT
    rm -rf "$run"
    mkdir -p "$run/cwd"
    python3 "$here/vendored.py"
    (cd "$here/browser" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null && node static.mjs)
    start_listening "$run/mock.log" '^([0-9]+)$' python3 "$here/clients/mock.py" "$run/captures"
    start_listening "$run/proxy.log" '\[Admin\] listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$run/cwd" "PATH=$PATH" PORT=0 ADMIN_LISTEN=127.0.0.1:0 "DASHBOARD_API_KEY=$key" \
        "DATA_DIR=$run/data" "API_BASE_URL=http://127.0.0.1:$PORT" "$proxy"
    admin=http://127.0.0.1:$PORT
    main=http://$(sed -nE 's#.*\[Proxy\] listening on http://([0-9.:]+).*#\1#p' "$run/proxy.log" | head -n 1)
    traffic "$main"
    BASE=$admin KEY=$key TRAFFIC=$main/v1/models PROGRAM=$proxy node "$here/browser/run.mjs" "$@"
    echo "browser: all passed"
}

# traffic URL : what the pages can show: generations, lists, an overloaded upstream, an unknown path.
traffic() {
    local turn='"max_tokens":16,"messages":[{"role":"user","content":"say hi"}]'
    for _ in 1 2 3 4 5 6; do
        asks "$1/v1/messages" -d "{\"model\":\"claude-sonnet-4-5\",\"stream\":true,$turn}"
        asks "$1/v1/messages" -d "{\"model\":\"claude-haiku-4-5\",$turn}"
        asks "$1/v1/models"
    done
    asks "$1/v1/messages" -d "{\"model\":\"claude-mock-1\",${turn/say hi/mock status 529}}"
    asks "$1/no/such/path?key=canary"
}

asks() {
    curl -sS --noproxy '*' --max-time 30 -o /dev/null -H 'content-type: application/json' -H 'x-api-key: sk-ant-canary-5' \
        -H 'X-Claude-Code-Session-Id: 7c0c2d5e-40a1-4f0b-9d4b-1a5b0e8f5a11' "$@"
}

main "$@"
