# Recipes for people. What must hold is listed in .ci/run, and only there.

set shell := ["bash", "-euo", "pipefail", "-c"]

# list the recipes
default:
    @just --list --unsorted

# run, rebuild and restart on every change (with watchexec or cargo-watch if they are there)
dev *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    watched=(src static Cargo.toml)
    if command -v watchexec >/dev/null; then
        exec watchexec --restart --stop-signal SIGTERM "${watched[@]/#/--watch=}" -- cargo run --locked -- {{ARGS}}
    elif command -v cargo-watch >/dev/null; then
        exec cargo watch "${watched[@]/#/--watch=}" -x "run --locked -- {{ARGS}}"
    fi
    stamp=$(mktemp) pid=
    stop() { [[ -z $pid ]] || { kill "$pid" && wait "$pid"; } 2>/dev/null || true; pid=; }
    trap 'stop; rm -f "$stamp"' EXIT
    while true; do
        touch "$stamp"
        # a change that does not compile leaves the running one alone
        if cargo build --locked; then
            stop
            "${CARGO_TARGET_DIR:-target}/debug/anthropic-proxy" {{ARGS}} & pid=$!
        fi
        until [[ -n $(find "${watched[@]}" -newer "$stamp" -print -quit 2>/dev/null) ]]; do sleep 1; done
    done

# the tests, as README says
test:
    .ci/run test

# what CI runs; `just check fmt clippy` runs some of its steps
check *STEPS:
    .ci/run {{STEPS}}

# format the code, the dashboard's too (needs npm)
fmt:
    .ci/run format

# beside nginx and haproxy (if installed), in one run: tests/bench/compare.sh [CELLS] [ROUNDS]
bench *ARGS:
    tests/bench/compare.sh {{ARGS}}

# curl, the Python SDK and Claude Code through the proxy (needs npm)
clients *CLIENTS:
    cargo build --release --locked
    tests/clients.sh {{CLIENTS}}

# real clients of HTTP/2 and WebSocket (needs nghttp2-client)
protocols:
    cargo build --release --locked
    tests/clients/http2.sh
    tests/clients/websocket.sh

# the container image
image:
    docker build -t anthropic-proxy .

# the image's program, checked without a container engine
image-check:
    .ci/run image

# write .env.example, docs/configuration*.md and the chart's list anew from the table of variables, static/openapi.json from the API
docs:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --quiet --locked
    write() { local to=$1; shift; cargo run --quiet --locked -- "$@" > "$to.new" && mv "$to.new" "$to"; }
    write .env.example env-example
    write docs/configuration.md docs configuration
    write docs/configuration.zh-CN.md docs configuration --lang zh
    python3 tests/deploy/check.py --write
    WRITE_OPENAPI=1 cargo test --quiet --locked --lib openapi
