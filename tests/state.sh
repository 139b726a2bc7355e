#!/usr/bin/env bash
# The shared state with real servers: Redis alone, with Sentinel and as a Cluster, Valkey, faults under load.
# tests/state/check.py says what it holds. Needs python3, redis-server, redis-cli, openssl, iproute2 and root (for
# namespaces): .ci/run brings them.
#
#     tests/state.sh [PART[:SCENARIO]…]     (default: all of single sentinel cluster partition absent tls valkey)
#
#     PROXY    the program (default: target/release/anthropic-proxy)
#     VALKEY   the program valkey-server (default: its scenarios are left out)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
export PYTHONDONTWRITEBYTECODE=1 # no __pycache__ in the tree

proxy=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/release/anthropic-proxy}
if [[ ! -x $proxy ]]; then
    echo "$proxy is missing: run cargo build --release --locked, or set PROXY" >&2
    exit 1
fi
# the mounts of network namespaces are its own, too
exec unshare --net --mount python3 "$here/state/check.py" "$(realpath "$proxy")" "$@"
