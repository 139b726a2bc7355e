#!/usr/bin/env bash
# A real WebSocket client and server, Python's `websockets`, with the proxy between them.
#
#     tests/clients/websocket.sh
#
# Needs python3; what it installs and writes goes to tests/clients/.work.
#
#     PROXY    the program (default: target/release/anthropic-proxy; `none` goes without, which shows
#              that the harness itself is sound)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$here/.work
run=$work/websocket
# shellcheck source=tests/clients/process.sh
source "$here/process.sh"

main() {
    local proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy} packages=$work/websockets
    if [[ $proxy != none && ! -x $proxy ]]; then
        echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2
        exit 1
    fi
    [[ $proxy == none ]] || proxy=$(realpath "$proxy")
    trap stop_all EXIT
    rm -rf "$run"
    mkdir -p "$run"
    [[ -d $packages/websockets ]] || python3 -m pip install --quiet --target "$packages" websockets
    export PYTHONPATH=$packages
    start_listening "$run/server.log" '^([0-9]+)$' python3 "$here/websocket.py" serve
    if [[ $proxy != none ]]; then
        start_listening "$run/proxy.log" 'listening on http://127\.0\.0\.1:([0-9]+)' \
            env -i -C "$run" "PATH=$PATH" PORT=0 "API_BASE_URL=http://127.0.0.1:$PORT" "$proxy"
    fi
    local pid=$PID
    python3 "$here/websocket.py" drive "$PORT"
    if [[ $proxy != none ]]; then
        stop "$pid"
        # each tunnel has its line, and each but the aborted one ended both ways
        grep -o 'status=101 .*' "$run/proxy.log" | grep -o 'ended=[^ ]*' | sort | uniq -c | tee "$run/ended"
        if ! [[ $(<"$run/ended") =~ ^\ *210\ ended=complete[[:space:]]*1\ ended=upstream:connection_terminated$ ]]; then
            echo "not the 210 complete ones and the aborted one" >&2
            exit 1
        fi
    fi
    echo "websocket: all passed"
}

main "$@"
