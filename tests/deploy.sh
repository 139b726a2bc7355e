#!/usr/bin/env bash
# The Helm chart and the compose file of static/deploy, without a cluster and without a container engine:
#  - helm renders several files of values, which must hold against the schemas of Kubernetes, against the
#    table of settings, and against the program's own reading; wrong combinations must be refused,
#  - haproxy runs in front of three replicas, with the files as they are, and with the Valkey of both.
# Needs python3 with PyYAML and kubernetes-validate, npm, helm, haproxy, redis-server (or valkey-server), iproute2
# and root (for a network namespace): .ci/run brings them.
#
#     HELM     the program helm (default: from PATH)
#     MODULES  where npm puts the packages of tests/deploy (default: target/ci-tools/deploy)
#     PROXY    the program (default: target/release/anthropic-proxy)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-$root/target}
export PYTHONDONTWRITEBYTECODE=1 # no __pycache__ in the tree

main() {
    local monitors modules=${MODULES:-$target/ci-tools/deploy}
    export HELM=${HELM:-helm} PROXY=${PROXY:-$target/release/anthropic-proxy} MODULES=$modules/node_modules
    if [[ ! -x $PROXY ]]; then
        echo "$PROXY is missing: run cargo build --release --locked, or set PROXY" >&2
        exit 1
    fi
    PROXY=$(realpath "$PROXY")
    if ! cmp -s "$here/deploy/package-lock.json" "$modules/package-lock.json"; then
        mkdir -p "$modules"
        cp "$here"/deploy/package*.json "$modules"
        npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefix "$modules" >/dev/null ||
            { rm "$modules/package-lock.json"; exit 1; }
    fi
    monitors=$(mktemp)
    # shellcheck disable=SC2064 # the name of now
    trap "rm -f '$monitors'" EXIT
    python3 "$here/deploy/check.py" --monitors "$monitors"
    node "$here/deploy/monitors.mjs" "$monitors"
    unshare --net python3 "$here/deploy/replicas.py" "$PROXY"
}

main "$@"
