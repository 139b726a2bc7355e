#!/usr/bin/env bash
# The proxy beside nginx and haproxy, measured one way, in turn, in one run.
#
#     tests/bench/compare.sh [CELLS] [ROUNDS]     (default: G,A,B,C,Clo,E100,E1M,F,D5 and 3)
#
# Every peer runs every cell once a round, so that a disturbance of the machine meets all of them.
# The proxy runs with its edit switched on, the peers pass through (nginx-njs does the same edit).
# Peers that are not installed are left out, with a word on how to install them.
# Prints the medians and how they stand to the targets; the raw lines stay in RESULTS. What the
# cells are: tests/bench/cells.py --help.
#
#     PROXY     the program (default: builds target/dist/anthropic-proxy)
#     RESULTS   where the lines go (default: a new file in the system's temporary folder)
#     QUICK     not empty: a third of the time, for a first look
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cells=${1:-G,A,B,C,Clo,E100,E1M,F,D5}
rounds=${2:-3}

main() {
    require
    local program=${PROXY:-} round
    if [[ -z $program ]]; then
        cargo build --profile dist --locked --manifest-path "$root/Cargo.toml"
        program=${CARGO_TARGET_DIR:-$root/target}/dist/anthropic-proxy
    fi
    program=$(realpath "$program")
    results=${RESULTS:-$(mktemp -t "anthropic-proxy-bench.XXXXXX.jsonl")}
    # 5,000 streams are 10,000 sockets
    ulimit -n "$(ulimit -Hn)"

    for ((round = 1; round <= rounds; round++)); do
        echo "== round $round of $rounds"
        measure direct "$(only B)"
        measure nginx "$cells"
        measure haproxy "$cells"
        measure nginx-njs "$(only E100,E1M)"
        measure ours "$cells" --program "$program"
    done
    python3 "$here/report.py" "$results"
    python3 "$here/targets.py" "$results"
    echo "lines: $results"
}

# require : all that is missing, at once; peers are left out.
require() {
    local need missing=() peer advice
    for need in cargo python3 taskset; do
        command -v "$need" >/dev/null || missing+=("$need")
    done
    if ((${#missing[@]})); then
        echo "cannot compare, this is missing: ${missing[*]}" >&2
        exit 1
    fi
    absent=()
    for peer in nginx haproxy nginx-njs; do
        advice=$(cd "$here" && python3 -c 'import harness, sys; print(harness.missing(sys.argv[1]))' "$peer")
        [[ -n $advice ]] || continue
        echo "without $peer: $advice" >&2
        absent+=("$peer")
    done
}

# measure PEER CELLS ARGS… : one pass of a peer; nothing if it is absent or has no cells.
measure() {
    local peer=$1 what=$2
    shift 2
    [[ -n $what && " ${absent[*]-} " != *" $peer "* ]] || return 0
    python3 "$here/cells.py" "$peer" "$what" --out "$results" ${QUICK:+--quick} "$@"
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
