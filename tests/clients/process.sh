# shellcheck shell=bash
# Starts programs that say on which port they listen, and ends them by process id: sourced by the
# scripts of tests/. It waits for what a program prints, never for time to pass.

export PYTHONDONTWRITEBYTECODE=1  # no __pycache__ in the tree

declare -A RUNNING=()

# start_listening LOG PATTERN COMMAND… : runs COMMAND, waits until it prints a line that matches
# PATTERN (an extended regular expression with one group) and sets PORT (the group) and PID. All
# that it prints goes to LOG.
start_listening() {
    local log=$1 pattern=$2 line out pipe
    shift 2
    pipe=$(mktemp -u)
    mkfifo -m 600 "$pipe"
    PORT=
    "$@" </dev/null >"$pipe" 2>&1 &
    PID=$!
    RUNNING[$PID]=1
    exec {out}<"$pipe"
    rm "$pipe"
    while IFS= read -r -t 30 -u "$out" line; do
        printf '%s\n' "$line" >>"$log"
        if [[ $line =~ $pattern ]]; then
            PORT=${BASH_REMATCH[1]}
            break
        fi
    done
    if [[ -z $PORT ]]; then
        printf '%s did not start:\n' "$1" >&2
        tail -n 20 "$log" >&2
        return 1
    fi
    cat <&"$out" >>"$log" &
    exec {out}<&-
}

# stop PID : asks a process to end and waits for it; its exit code is the result.
stop() {
    unset "RUNNING[$1]"
    kill -TERM "$1" 2>/dev/null || true
    wait "$1"
}

# stop_all : ends what start_listening started and still runs. For a trap.
stop_all() {
    local pid
    for pid in "${!RUNNING[@]}"; do
        stop "$pid" 2>/dev/null || true
    done
}
