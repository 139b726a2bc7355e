#!/usr/bin/env bash
# The packages, each made of one program, installed into an empty environment and run there: it tells its version, checks
# settings, serves, and is found healthy.
#  - wheel     pip, into a virtual environment
#  - npm       both packages, from a registry that is a folder; npm exec as npx does it
#  - deb       dpkg, into an empty root with a shell alone
#  - archive   unpacked; the formula for Homebrew names it
# Needs Linux on x86-64 or ARM, root (for the deb), python3 with venv, maturin, node, npm, dpkg, busybox, curl: .ci/run
# brings them.
#
#     PROXY      the program, static (default: that of the image, target/image/…)
#     PACKAGES   a folder to keep the packages in (default: none is kept)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=tests/clients/process.sh
source "$here/clients/process.sh"

main() {
    local host cpu
    host=$(rustc -vV | sed -n 's/^host: //p')
    cpu=${host%%-*}
    work=$(mktemp -d)
    trap 'stop_all; rm -rf "$work"' EXIT
    program=${PROXY:-${CARGO_TARGET_DIR:-$root/target}/image/$host/dist/anthropic-proxy}
    [[ -x $program ]] || fail "$program is missing: run .ci/run image, or set PROXY to a static program"
    packages=${PACKAGES:-$work/packages}
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
    # what a package has
    strip --strip-all -o "$work/program" "$program"
    "$root/static/packages/build.sh" "$work/program" "$cpu-unknown-linux-musl" "$packages"
    "$root/static/packages/build.sh" main "$packages"
    archive "$cpu"
    wheel
    npm_packages
    deb
    echo "packages: all passed"
}

# runs NAME COMMAND… : the command is a program that works, with an empty environment but for PATH.
runs() {
    local name=$1 proxy
    shift
    [[ $(clean "$@" --version) == "anthropic-proxy $version" ]] || fail "$name: --version: $(clean "$@" --version)"
    mkdir -p "$work/empty"
    (cd "$work/empty" && clean API_BASE_URL=https://upstream.test "$@" check) >"$work/check.log" ||
        fail "$name: check: $(cat "$work/check.log")"
    grep -q '^API_BASE_URL *https://upstream.test *environment' "$work/check.log" ||
        fail "$name: check: $(cat "$work/check.log")"
    start_listening "$work/$name.log" 'listening on http://[^ ]*:([0-9]+)' \
        env -i "PATH=$PATH" PORT=0 API_BASE_URL=https://upstream.test "$@" serve
    proxy=$PID
    clean "PORT=$PORT" "$@" healthcheck >/dev/null || fail "$name: healthcheck: exit code $?"
    curl -fsS --noproxy '*' --max-time 20 "http://127.0.0.1:$PORT/health" | grep -q "\"version\":\"$version\"" ||
        fail "$name: /health"
    stop "$proxy" || fail "$name: SIGTERM: exit code $?"
    ! clean "PORT=$PORT" "$@" healthcheck >/dev/null 2>&1 || fail "$name: healthcheck without a server: exit code 0"
    ok "$name: version, check, serve, healthcheck, SIGTERM"
}

clean() { env -i "PATH=$PATH" "$@"; }

archive() {
    local name=anthropic-proxy-$version-$1-unknown-linux-musl target
    mkdir "$work/archive"
    tar --extract --gzip -C "$work/archive" -f "$packages/$name.tar.gz"
    runs archive "$work/archive/$name/anthropic-proxy"
    [[ -s $work/archive/$name/man/anthropic-proxy-keys-create.1 ]] || fail "the archive has no manual pages"
    # archives of other systems are made where there is a program for them
    mkdir "$work/formula"
    for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl x86_64-apple-darwin aarch64-apple-darwin; do
        cp "$packages/$name.tar.gz" "$work/formula/anthropic-proxy-$version-$target.tar.gz"
    done
    GITHUB_REPOSITORY=owner/name "$root/static/packages/build.sh" formula "$work/formula"
    local formula=$work/formula/anthropic-proxy.rb
    ! grep -n '@' "$formula" || fail "the formula has what was not filled in"
    [[ $(grep -c "sha256 \"$(sha256sum "$packages/$name.tar.gz" | cut -d ' ' -f 1)\"" "$formula") == 4 ]] ||
        fail "the formula has other digests"
    grep -q "https://github.com/owner/name/releases/download/v$version/$name.tar.gz" "$formula" || fail "$(cat "$formula")"
    ! command -v ruby >/dev/null || ruby -c "$formula" >/dev/null
    rm "$work/formula/anthropic-proxy-$version-aarch64-apple-darwin.tar.gz"
    ! "$root/static/packages/build.sh" formula "$work/formula" 2>/dev/null || fail "a formula without an archive is made"
    ok "formula: names four archives by their digests"
}

wheel() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --no-index --find-links "$packages" anthropic-proxy
    runs wheel "$work/venv/bin/anthropic-proxy"
    "$work/venv/bin/pip" uninstall --quiet --yes anthropic-proxy
    [[ ! -e $work/venv/bin/anthropic-proxy ]] || fail "wheel: the program stays behind"
}

# npm_packages : without the package of this system the launcher says so; with it, it runs. npm would ask the registry for
# those of other systems, so they are left out of the folder's description.
npm_packages() {
    local cpu folder=$work/npm
    case $(uname -m) in x86_64) cpu=x64 ;; *) cpu=arm64 ;; esac
    mkdir "$folder"
    local install=(npm install --silent --no-audit --no-fund --offline --prefix "$folder")
    "${install[@]}" --omit=optional "$packages/anthropic-proxy-$version.tgz"
    if "$folder/node_modules/.bin/anthropic-proxy" --version 2>"$work/npm.err"; then
        fail "npm: it runs without a program"
    fi
    grep -q "the package anthropic-proxy-linux-$cpu is not installed" "$work/npm.err" || fail "npm: $(cat "$work/npm.err")"
    "${install[@]}" --omit=optional "$packages/anthropic-proxy-$version.tgz" \
        "$packages/anthropic-proxy-linux-$cpu-$version.tgz"
    runs npm "$folder/node_modules/.bin/anthropic-proxy"
    [[ $(cd "$folder" && npm exec --offline -- anthropic-proxy --version) == "anthropic-proxy $version" ]] || fail "npm exec"
    # the launcher passes on what becomes of the program
    local code=0
    "$folder/node_modules/.bin/anthropic-proxy" serve --port many >/dev/null 2>&1 || code=$?
    [[ $code == 2 ]] || fail "npm: exit code $code of a bad setting"
    ok "npm: exit codes, and a clear text without the program"
}

# deb : unpacked, configured and removed by dpkg in a root that has a shell and stand-ins for what creates a user.
deb() {
    local at=$work/root package tool
    package=$(echo "$packages"/anthropic-proxy_*.deb)
    mkdir -p "$at"/{bin,usr/bin,etc,tmp,dev,proc,var/lib/dpkg/{info,updates,triggers}}
    : >"$at/var/lib/dpkg/status"
    : >"$at/var/lib/dpkg/available"
    cp "$(command -v busybox)" "$at/bin/busybox"
    for tool in sh cat grep chgrp chmod rm; do
        ln -s busybox "$at/bin/$tool"
    done
    echo 'root:x:0:0::/:/bin/sh' >"$at/etc/passwd"
    echo 'root:x:0:' >"$at/etc/group"
    # shellcheck disable=SC2016 # the argument of the stand-in
    printf '#!/bin/sh\ngrep "^$2:" /etc/passwd\n' >"$at/usr/bin/getent"
    printf '#!/bin/sh\necho "anthropic-proxy:x:990:990::/:/bin/false" >>/etc/passwd\necho "anthropic-proxy:x:990:" >>/etc/group\n' \
        >"$at/usr/bin/adduser"
    chmod +x "$at"/usr/bin/*
    local dpkg=(dpkg "--root=$at" --force-depends --force-not-root --log=/dev/null)
    "${dpkg[@]}" --install "$package" >"$work/dpkg.log" 2>&1 || fail "dpkg: $(cat "$work/dpkg.log")"
    [[ $("${dpkg[@]}" --status anthropic-proxy | sed -n 's/^Status: //p') == 'install ok installed' ]] ||
        fail "dpkg: $("${dpkg[@]}" --status anthropic-proxy)"
    [[ $(stat -c '%a %g' "$at/etc/anthropic-proxy/.env") == '640 990' ]] ||
        fail "deb: settings: $(stat -c '%a %u %g' "$at/etc/anthropic-proxy/.env")"
    runs deb chroot "$at" /usr/bin/anthropic-proxy
    deb_contents "$at"
    # settings of the operator outlive an update and a removal, and not a purge
    echo 'MAX_IN_FLIGHT=7' >>"$at/etc/anthropic-proxy/.env"
    "${dpkg[@]}" --install "$package" >"$work/dpkg.log" 2>&1 || fail "dpkg: $(cat "$work/dpkg.log")"
    grep -q MAX_IN_FLIGHT=7 "$at/etc/anthropic-proxy/.env" || fail "deb: an update replaces settings"
    clean chroot "$at" /usr/bin/anthropic-proxy check --env-file /etc/anthropic-proxy/.env | grep -q '^MAX_IN_FLIGHT *7 ' ||
        fail "deb: settings are not read"
    mkdir -p "$at/var/lib/anthropic-proxy"
    "${dpkg[@]}" --remove anthropic-proxy >/dev/null 2>&1
    [[ -e $at/etc/anthropic-proxy/.env && -e $at/var/lib/anthropic-proxy && ! -e $at/usr/bin/anthropic-proxy ]] ||
        fail "deb: a removal takes settings or data, or leaves the program"
    "${dpkg[@]}" --purge anthropic-proxy >/dev/null 2>&1
    [[ ! -e $at/etc/anthropic-proxy && ! -e $at/var/lib/anthropic-proxy ]] || fail "deb: a purge leaves settings or data"
    ok "deb: user, settings, update, removal, purge"
    if command -v lintian >/dev/null; then
        lintian --fail-on error,warning --suppress-tags no-manual-page "$package" || fail "lintian"
        ok "deb: lintian"
    fi
}

# deb_contents ROOT
deb_contents() {
    local file
    for file in usr/lib/systemd/system/anthropic-proxy.{service,socket} \
        usr/share/man/man1/anthropic-proxy{,-keys-create}.1.gz usr/share/zsh/vendor-completions/_anthropic-proxy \
        usr/share/bash-completion/completions/anthropic-proxy usr/share/fish/vendor_completions.d/anthropic-proxy.fish \
        usr/share/doc/anthropic-proxy/{copyright,changelog.gz,examples/alerts.yaml}; do
        [[ -s $1/$file ]] || fail "deb: $file is missing"
    done
    local unit=$1/usr/lib/systemd/system/anthropic-proxy.service
    grep -q '^ExecStart=/usr/bin/anthropic-proxy --env-file /etc/anthropic-proxy/.env$' "$unit" || fail "deb: $(cat "$unit")"
    ! grep -q '/usr/local\|useradd' "$unit" || fail "deb: $(cat "$unit")"
    (cd "$1" && md5sum --check --quiet var/lib/dpkg/info/anthropic-proxy.md5sums) || fail "deb: digests"
}

ok() { echo "  ok $*"; }

fail() {
    echo "packages: $*" >&2
    exit 1
}

main "$@"
