#!/usr/bin/env bash
# The container image without a container engine: builds the program as static as the image has it
# and runs it as the image would: an empty root, a numeric user, nothing writable, no shell, names
# resolved without NSS, the bundle of CA roots as the only trust. Needs Linux, root (for chroot),
# python3, curl and openssl.
#
#     PROXY    a static program to check instead of building one
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
user=65532:65532
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local program=${PROXY:-}
    work=$(mktemp -d)
    image=$work/image
    trap 'stop_all; chmod -R u+w "$work"; rm -rf "$work"' EXIT
    if [[ -z $program ]]; then
        build
        program=$built
    fi
    is_static "$program"
    lay_out "$program"
    exchanges
    refuses_bad_settings
    echo "image: all passed"
}

# build : the program of the image (profile `dist`) with the C library inside, linked as the Dockerfile does. `--target`
# keeps the flags away from build scripts and procedural macros, a folder of its own keeps other builds as they are. Sets
# built.
build() {
    local host target
    host=$(rustc -vV | sed -n 's/^host: //p')
    target=${CARGO_TARGET_DIR:-$root/target}/image
    RUSTFLAGS='-C target-feature=+crt-static' cargo rustc --profile dist --locked \
        --manifest-path "$root/Cargo.toml" --bin anthropic-proxy --target "$host" --target-dir "$target" \
        -- -C link-arg=-Wl,-z,pack-relative-relocs
    built=$target/$host/dist/anthropic-proxy
}

# is_static PROGRAM : no interpreter, no shared library.
is_static() {
    local linked
    if readelf -lW "$1" | grep -q INTERP || readelf -dW "$1" | grep -q NEEDED; then
        fail "$1 is linked dynamically: $(readelf -dW "$1" | grep NEEDED)"
    fi
    linked=$(ldd "$1" 2>&1 || true)
    [[ $linked == *"statically linked"* || $linked == *"not a dynamic executable"* || $linked == *"Not a valid dynamic program"* ]] ||
        fail "ldd says: $linked"
    strip -s -o "$work/stripped" "$1"
    (($(stat -c %s "$work/stripped") <= 19400000)) ||
        fail "$1 has $(stat -c %s "$work/stripped") bytes without symbols; expected at most 19400000"
    # it is loaded where the kernel likes
    readelf -hW "$1" | grep -q 'Type: *DYN' || fail "$1 is not position-independent"
    ok "static, $(stat -c %s "$1" | numfmt --to=iec-i --suffix=B), $(stat -c %s "$work/stripped") bytes without symbols"
}

# lay_out PROGRAM : the image's files, and those that every container engine puts beside them.
lay_out() {
    make_certificates
    install -D -m 0755 "$1" "$image/anthropic-proxy"
    install -D -m 0644 "$work/ca.pem" "$image/etc/ssl/certs/ca-certificates.crt"
    echo '127.0.0.1 upstream.test' >"$image/etc/hosts"
    # nobody answers here: only the hosts file can know the name
    echo 'nameserver 127.0.0.1' >"$image/etc/resolv.conf"
    mkdir "$image/env"
    printf '{"__": "a comment", "x-from-file": "1"}\n' >"$image/env/.env.headers.json"
    find "$image" -type f ! -name anthropic-proxy -exec chmod 0444 {} +
    find "$image" -type d -exec chmod 0555 {} +
    chmod 0711 "$work"
}

# make_certificates : a CA, and a certificate for upstream.test.
make_certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=test CA' \
        -keyout "$work/ca.key" -out "$work/ca.pem" -addext 'basicConstraints=critical,CA:TRUE' 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=upstream.test' \
        -keyout "$work/upstream.key" -out "$work/upstream.csr" 2>/dev/null
    openssl x509 -req -in "$work/upstream.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo 'subjectAltName=DNS:upstream.test') -out "$work/upstream.pem" 2>/dev/null
}

# exchanges : the program answers, proxies to a TLS upstream, checks its own health, drains.
exchanges() {
    local upstream proxy answer
    start_listening "$work/mock.log" '^([0-9]+)$' \
        python3 "$here/clients/mock.py" "$work/captures" --tls "$work/upstream.pem" "$work/upstream.key"
    upstream=$PORT
    start_listening "$work/proxy.log" 'listening on http://[^ ]*:([0-9]+)' in_image serve PORT=0 \
        "API_BASE_URL=https://upstream.test:$upstream" SYSTEM_PROMPT_REPLACEMENT=replaced
    proxy=$PID
    [[ $(awk '/^Uid:/ {print $2}' "/proc/$proxy/status") == "${user%%:*}" ]] || fail "it does not run as $user"

    answer=$(ask "$PORT" /health)
    [[ $answer == *'"status":"healthy"'*200 ]] || fail "/health: $answer"
    ok "/health answers"

    in_image healthcheck "PORT=$PORT" || fail "healthcheck exits $? although the server is healthy"
    ok "healthcheck says so, too"

    answer=$(ask "$PORT" /v1/messages -H 'content-type: application/json' -H 'x-api-key: k' \
        -d '{"model":"m","max_tokens":9,"system":[{"type":"text","text":"old"}],"messages":[{"role":"user","content":"hi"}]}')
    [[ $answer == *'Hello from the mock upstream'*200 ]] || fail "a proxied request: $answer$(tail -n 5 "$work/proxy.log")"
    grep -q '"text":"replaced"' "$work"/captures/*.body || fail "the system prompt was not replaced"
    grep -qi '^x-from-file: 1' "$work"/captures/*.head || fail "env/.env.headers.json was not read"
    ok "proxies over TLS: name from the hosts file, trust from the bundle, fields from env/"

    stop "$proxy" || fail "SIGTERM: exit code $?"
    ok "SIGTERM drains and exits 0"
    ! in_image healthcheck "PORT=$PORT" >/dev/null 2>&1 || fail "healthcheck exits 0 although nobody listens"
    ok "healthcheck fails when nobody listens"
}

# refuses_bad_settings : and says so with exit code 2.
refuses_bad_settings() {
    local code=0
    in_image serve PORT=many >"$work/refused.log" 2>&1 || code=$?
    if [[ $code != 2 ]] || ! grep -q PORT "$work/refused.log"; then
        fail "PORT=many: exit code $code: $(cat "$work/refused.log")"
    fi
    ok "a bad setting is named, exit code 2"
}

# in_image VERB NAME=VALUE… : the program as the image runs it. `env` sets the environment before
# `chroot`, inside there is nothing but the program. In the background the shell becomes the
# program, so that the process id is the program's.
in_image() {
    local verb=$1 become=()
    shift
    ((BASH_SUBSHELL == 0)) || become=(exec)
    "${become[@]}" env -i HOST=0.0.0.0 "$@" "$(command -v chroot)" "--userspec=$user" "$image" /anthropic-proxy "$verb"
}

# ask PORT PATH … : content and status code of an answer.
ask() {
    local port=$1 path=$2
    shift 2
    curl -sS --noproxy '*' --max-time 20 -w ' %{http_code}' "$@" "http://127.0.0.1:$port$path"
}

ok() { echo "  ok $*"; }

fail() {
    echo "image: $*" >&2
    exit 1
}

main "$@"
