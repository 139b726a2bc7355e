#!/usr/bin/env bash
# The proxy beside nginx and haproxy, measured one way, in turn, in one run.
#
#     tests/bench/compare.sh [CELLS] [ROUNDS]     (default: G,A,B,C,Clo,E100,E1M,F,D5 and 3)
#
# Every peer runs every cell once a round, so that a disturbance of the machine meets all of them.
# The proxy runs with its edit switched on, the peers pass through (nginx-njs does the same edit).
# Prints the medians and how they stand to the targets; the raw lines stay in RESULTS.
#
#     RIG_DIR   the rig: load generator, mock upstream, peers (default: shared/rig beside this
#               repository)
#     PROXY     the program (default: builds target/release/anthropic-proxy)
#     RESULTS   where the lines go (default: a new file in the system's temporary folder)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
rig=${RIG_DIR:-$root/../shared/rig}
cells=${1:-G,A,B,C,Clo,E100,E1M,F,D5}
rounds=${2:-3}

main() {
    require
    local program=${PROXY:-} round results
    if [[ -z $program ]]; then
        cargo build --release --locked --manifest-path "$root/Cargo.toml"
        program=${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy
    fi
    program=$(realpath "$program")
    results=${RESULTS:-$(mktemp -t "anthropic-proxy-bench.XXXXXX.jsonl")}
    # 5,000 streams are 10,000 sockets
    ulimit -n "$(ulimit -Hn)"

    for ((round = 1; round <= rounds; round++)); do
        echo "== round $round of $rounds"
        measure "$(only B)" direct
        measure "$cells" nginx
        measure "$cells" haproxy
        measure "$(only E100,E1M)" nginx-njs
        measure "$cells" ours --cmd "$program" --port 29120 --ready /health --env PORT=29120 --env RUST_LOG=warn \
            --env API_BASE_URL=http://127.0.0.1:29000 \
            --env 'SYSTEM_PROMPT_REPLACEMENT=You are a helpful assistant behind a proxy (replaced system prompt).'
    done
    python3 "$rig/report.py" "$results"
    python3 "$here/targets.py" "$results"
    echo "lines: $results"
}

# require : all that is missing, at once.
require() {
    local missing=() program
    [[ -f $rig/bench.py ]] || missing+=("the rig: no bench.py in $rig (set RIG_DIR)")
    for program in nginx haproxy; do
        command -v "$program" >/dev/null || [[ -x /usr/sbin/$program ]] ||
            missing+=("$program: apt-get install -y $program, and stop the service it starts")
    done
    [[ -e /usr/lib/nginx/modules/ngx_http_js_module.so ]] || missing+=("nginx's njs: apt-get install -y libnginx-mod-http-js")
    python3 -c 'import tomllib' 2>/dev/null || missing+=("python3 of version 3.11 or newer")
    command -v cargo >/dev/null || missing+=("cargo")
    if ((${#missing[@]})); then
        printf 'cannot compare, this is missing:\n' >&2
        printf -- '- %s\n' "${missing[@]}" >&2
        exit 1
    fi
}

# measure CELLS PEER ARGS… : one pass of a peer; nothing if it has no cells.
measure() {
    local what=$1 peer=$2
    shift 2
    [[ -n $what ]] || return 0
    python3 "$rig/bench.py" "$peer" "$what" --reps 1 --out "$results" "$@"
}

# only CELLS : those of them that were asked for.
only() {
    local cell chosen=()
    for cell in ${1//,/ }; do
        [[ ,$cells, != *,$cell,* ]] || chosen+=("$cell")
    done
    (IFS=, && echo "${chosen[*]-}")
}

main "$@"
