#!/usr/bin/env bash
# Real clients through the proxy to a faithful mock: curl, the `anthropic` Python SDK, Claude Code.
#
#     tests/clients.sh [curl] [sdk] [claude]        (default: all three)
#
# client -> tap -> proxy -> mock. The clients judge what a user sees; tests/clients/check.py holds
# the octets at the tap against the octets at the mock. Needs python3, curl and npm; what it
# installs and writes goes to tests/clients/.work.
#
#     PROXY                 the program (default: target/release/anthropic-proxy; `none` goes without,
#                           which shows that the harness itself is sound)
#     CLAUDE_CODE_VERSION   npm version or tag (default: latest)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$here/clients/.work
run=$work/run
replacement=$'You are "the replaced" system prompt.\nSecond line.'
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy}
    local clients=("$@")
    ((${#clients[@]})) || clients=(curl sdk claude)
    if [[ $proxy != none && ! -x $proxy ]]; then
        echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2
        exit 1
    fi
    trap stop_all EXIT
    mkdir -p "$work"
    rm -rf "$run"
    mkdir -p "$run/cwd"

    start_listening "$run/mock.log" '^([0-9]+)$' python3 "$here/clients/mock.py" "$run/captures"
    mock=$PORT

    if [[ $proxy == none ]]; then
        edit=none target=$mock
        each "${clients[@]}"
    else
        edit=replace
        start_proxy "$proxy" SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST=
        each "${clients[@]}"
        edit=insert
        stop "$proxy_pid"
        start_proxy "$proxy" SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST=true
        each "${clients[@]}"
        stop "$proxy_pid"
        no_secret_in_log
        if [[ " ${clients[*]} " == *" sdk "* ]]; then
            echo "refusals of keys (curl, sdk)"
            with_keys "$proxy"
        fi
    fi
    echo "clients: all passed"
}

# start_proxy PROGRAM NAME=VALUE : with nothing of this machine's environment. Sets target and proxy_pid.
start_proxy() {
    start_listening "$run/proxy.log" 'listening on http://127\.0\.0\.1:([0-9]+)' \
        env -i -C "$run/cwd" "PATH=$PATH" PORT=0 RUST_LOG=trace DEBUG_MODE=true "API_BASE_URL=http://127.0.0.1:$mock" \
        "SYSTEM_PROMPT_REPLACEMENT=$replacement" "$2" "$1"
    target=$PORT proxy_pid=$PID
}

each() {
    local client
    for client in "$@"; do
        echo "$client ($edit)"
        "with_$client"
    done
}

# start_tap NAME : a fresh tap in front of the target. Sets base and tap.
start_tap() {
    tap=$run/tap-$edit-$1
    start_listening "$run/tap.log" '^([0-9]+)$' python3 "$here/clients/tap.py" "$target" "$tap"
    base=http://127.0.0.1:$PORT
}

# check EDITS STREAMS : holds the tap against the mock.
check() {
    local edits=$1
    [[ $edit != none ]] || edits=0
    python3 "$here/clients/check.py" "$tap" "$run/captures" --edit "$edit" --replacement "$replacement" \
        --expect-edits "$edits" --expect-streams "$2"
}

with_curl() {
    local key='x-api-key: sk-ant-canary-1' version='anthropic-version: 2023-06-01' json='content-type: application/json'
    local blocks='{ "model":"claude-mock-1", "system" : [{"type":"text","text":"Original \u00fc \"prompt\""},{"type":"text","text":"two"}],'
    local turn='"max_tokens":16,"messages":[{"role":"user","content":"say hi"}],"x_future":1.0e5'
    start_tap curl
    asks() { curl -sS --noproxy '*' --max-time 30 -H "$key" -H "$version" "$@"; }

    asks "$base/v1/messages" -H "$json" -d "$blocks$turn}" | grep -q 'Hello from the mock'
    asks "$base/v1/messages?beta=true" -N -H "$json" -H 'anthropic-beta: a-2025-01-01' -H 'anthropic-beta: b,c' \
        -d "$blocks$turn,\"stream\":true}" | grep -q '^event: message_stop'
    # no Content-Length: the upload is chunked
    printf '%s' "$blocks$turn}" | asks "$base/v1/messages" -H "$json" -H 'transfer-encoding: chunked' -T - -X POST -o /dev/null
    # content-coded: passes untouched
    printf '%s' "$blocks$turn}" | gzip -c | asks "$base/v1/messages" -H "$json" -H 'content-encoding: gzip' --data-binary @- -o /dev/null
    asks "$base/v1/messages" -H "$json" -d "{\"system\":\"a string\",\"model\":\"claude-mock-1\",$turn}" --compressed | grep -q 'Hello from the mock'
    asks "$base/v1/messages/count_tokens" -H "$json" -d "$blocks$turn}" | grep -q input_tokens
    [[ $(asks "$base/v1/messages" -H "$json" -d '{not json' -o /dev/null -w '%{http_code}') == 400 ]]
    [[ $(asks "$base/v1/messages" -H "$json" -d "${blocks}\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"mock status 529\"}]}" \
        -o /dev/null -w '%{http_code}') == 529 ]]
    [[ $(asks -I "$base/api/hello" -o /dev/null -w '%{http_code}') == 200 ]]
    [[ $(asks "$base/a/%2e%2E//x?y=%20&&z" --path-as-is -o /dev/null -w '%{http_code}') == 404 ]]
    # four cache_control blocks, as many as one request may have: an inserted block has none
    local cached='{"type":"text","text":"a block","cache_control":{"type":"ephemeral"}}'
    asks "$base/v1/messages" -H "$json" -d "{\"model\":\"claude-mock-1\",\"system\":[$cached,$cached,$cached,$cached],$turn}" -o /dev/null
    # two exchanges on one connection
    asks "$base/v1/models" "$base/v1/models" -o /dev/null -o /dev/null
    check 5 1
}

with_sdk() {
    local packages=$work/python
    [[ -d $packages/anthropic ]] || python3 -m pip install --quiet --target "$packages" anthropic
    start_tap sdk
    env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy \
        "PYTHONPATH=$packages" "ANTHROPIC_BASE_URL=$base" ANTHROPIC_API_KEY=sk-ant-canary-2 python3 "$here/clients/sdk.py"
    check 8 3
}

# with_keys PROGRAM : what a refusal of each kind costs curl and the SDK, by a proxy with keys.
with_keys() {
    local packages=$work/python program
    program=$(realpath "$1")
    env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy \
        "PYTHONPATH=$packages" python3 "$here/clients/access.py" "$program" "$run/keys"
}

with_claude() {
    local claude home
    claude=$(claude_code)
    start_tap claude
    home=$(mktemp -d "$work/home.XXXXXX")
    asks() {
        local prompt=$1
        shift
        # the prompt comes first: --allowedTools takes all that follows
        (cd "$home" && timeout 120 env -i "PATH=$PATH" "HOME=$home" "ANTHROPIC_BASE_URL=$base" \
            ANTHROPIC_API_KEY=sk-ant-canary-3 CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1 \
            "$claude" -p "$prompt" --output-format stream-json --include-partial-messages --verbose "$@" </dev/null)
    }
    # its exit code says less than its transcript
    asks "say hi" >"$run/claude-$edit-hi.jsonl" || true
    says 'Hello from the mock upstream' "$run/claude-$edit-hi.jsonl"
    asks "use a tool" --allowedTools Bash >"$run/claude-$edit-tool.jsonl" || true
    says 'The tool said: marker-42' "$run/claude-$edit-tool.jsonl"
    rm -rf "$home"
    echo "  ok Claude Code $("$claude" --version): an answer, a tool-use turn"
    check 3 3
}

# says TEXT FILE : Claude Code's transcript ends in success with that text.
says() {
    python3 - "$@" <<'PYTHON'
import json, sys
text, file = sys.argv[1:]
lines = [json.loads(line) for line in open(file) if line.startswith("{")]
result = next((line for line in lines if line.get("type") == "result"), None)
if not result or result["is_error"] or not result["result"].startswith(text):
    sys.exit(f"Claude Code did not say {text!r}: {result}")
if not any(line.get("type") == "stream_event" for line in lines):
    sys.exit("Claude Code saw no stream events")
PYTHON
}

# claude_code : installs Claude Code if need be and prints the program. The platform's package
# carries the native program, so no install script has to run.
claude_code() {
    local version=${CLAUDE_CODE_VERSION:-latest} prefix program
    prefix=$work/claude-$version
    if [[ ! -d $prefix/node_modules ]]; then
        mkdir -p "$prefix"
        npm install --prefix "$prefix" --no-audit --no-fund --ignore-scripts --loglevel=error \
            "@anthropic-ai/claude-code@$version" >&2
    fi
    for program in "$prefix"/node_modules/@anthropic-ai/claude-code-*/claude "$prefix"/node_modules/.bin/claude; do
        if [[ -x $program ]] && "$program" --version >/dev/null 2>&1; then
            echo "$program"
            return
        fi
    done
    echo "no Claude Code for this platform in $prefix" >&2
    return 1
}

# Nothing that a client or we must keep secret stands in a log at trace level.
no_secret_in_log() {
    local canary
    for canary in sk-ant-canary "$(head -n 1 <<<"$replacement")" 'say hi' 'Original' 'Second block: never' 'Hello from the mock'; do
        if grep -qF "$canary" "$run/proxy.log"; then
            echo "the proxy's log contains: $canary" >&2
            return 1
        fi
    done
    echo "log: nothing secret at trace level"
}

main "$@"
