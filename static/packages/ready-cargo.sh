#!/usr/bin/env bash
# In the place of cargo for maturin (CARGO): "compiles" by naming the program that is ready (READY), and leaves all else
# to cargo. So each package has the one program that was built and tested.
set -euo pipefail

if [[ ${1:-} != rustc ]]; then
    exec cargo "$@"
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
id=$(cargo pkgid --locked --manifest-path "$root/Cargo.toml")
printf '{"reason":"compiler-artifact","package_id":"%s","manifest_path":"%s/Cargo.toml","target":{"kind":["bin"],"crate_types":["bin"],"name":"anthropic-proxy","src_path":"%s/src/main.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":false},"features":[],"filenames":["%s"],"executable":"%s","fresh":true}\n' \
    "$id" "$root" "$root" "$READY" "$READY"
printf '{"reason":"build-finished","success":true}\n'
