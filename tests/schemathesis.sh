#!/usr/bin/env bash
# The admin API against its own description: schemathesis asks what the document allows, and what it
# does not, and holds each answer against it.
#
#     tests/schemathesis.sh
#
#     PROXY          the program (default: target/release/anthropic-proxy)
#     SCHEMATHESIS   the tester (default: schemathesis)
#     SECONDS_MOST   how long it may ask (default: 60)
#     PHASES         what it tries (default: examples,coverage, the same each time; `fuzzing` looks for more)
#
# The upstream is the mock of tests/clients: a few exchanges go there first, so that there is something
# to tell. Events are left out: they do not end. So are its tries with wrong keys, which are told 429 after
# ten, as they should: tests/it/admin.rs walks the same document without a key, with a wrong and a right one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d)
key=a-key-of-the-tests-$RANDOM$RANDOM
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy} mock base
    [[ -x $proxy ]] || { echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2; exit 1; }
    trap 'stop_all; rm -rf "$work"' EXIT
    mkdir "$work/cwd"
    start_listening "$work/mock.log" '^([0-9]+)$' python3 "$here/clients/mock.py" "$work/captures"
    mock=$PORT
    # where nothing is forwarded: on a main port, /metrics is only ours for GET and HEAD
    start_listening "$work/proxy.log" '\[Admin\] listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$work/cwd" "PATH=$PATH" PORT=0 "API_BASE_URL=http://127.0.0.1:$mock" \
        ADMIN_LISTEN=127.0.0.1:0 "DASHBOARD_API_KEY=$key" "DATA_DIR=$work/data" "$proxy"
    base=http://127.0.0.1:$PORT
    exchanges "$(grep -oE -m 1 '\[Proxy\] listening on http://127\.0\.0\.1:[0-9]+' "$work/proxy.log" | grep -oE 'http.*')"

    # the key is remembered for this client before wrong ones are tried
    local document=$base/admin/api/v1/openapi.json
    curl -sSf --noproxy '*' -H "Authorization: Bearer $key" "$document" -o "$work/openapi.json"
    # once there is a key, requests need one: after the exchanges
    curl -sSf --noproxy '*' -o /dev/null -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        "$base/admin/api/v1/keys" -d '{"name": "tests", "id": "0aB3zZ9xY1", "team": "core", "limits":
            [{"kind": "spend", "amount_usd": 5, "period": "month", "zone": "Europe/Berlin"}]}'
    (cd "$work" && env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy NO_PROXY='*' \
        "${SCHEMATHESIS:-schemathesis}" --config-file "$here/schemathesis.toml" \
        run "$work/openapi.json" --url "$base" -H "Authorization: Bearer $key" \
        --checks all --exclude-checks ignored_auth --exclude-path /admin/api/v1/events \
        --phases "${PHASES:-examples,coverage}" --seed 1 --max-examples 25 --max-time "${SECONDS_MOST:-60}" --request-timeout 10 --continue-on-failure \
        --suppress-health-check all --warnings off --no-color)
    echo "schemathesis: all passed"
}

# exchanges BASE : a stream, an error, something that is no generation.
exchanges() {
    local body='"model":"claude-mock-1","max_tokens":16,"messages":[{"role":"user","content":'
    asks() { curl -sS --noproxy '*' --max-time 30 -o /dev/null -H 'x-api-key: k' -H 'content-type: application/json' "$@"; }
    asks "$1/v1/messages" -d "{\"stream\":true,$body\"say hi\"}]}"
    asks "$1/v1/messages" -d "{$body\"say hi\"}]}"
    asks "$1/v1/messages" -d "{$body\"mock status 529\"}]}"
    asks "$1/v1/models"
}

main "$@"
