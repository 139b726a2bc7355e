#!/usr/bin/env bash
# Packages of a program that is built: wheel, npm, deb, archive. The program is static on Linux, so that one serves
# glibc and musl alike.
#
#     static/packages/build.sh PROGRAM TARGET FOLDER [wheel|npm|deb|archive…]
#     static/packages/build.sh main FOLDER            the npm package that chooses the program of a machine
#     static/packages/build.sh formula FOLDER         the Homebrew formula of the archives in FOLDER
#
#     TARGET   Rust's name: x86_64-unknown-linux-musl, aarch64-unknown-linux-musl, x86_64-apple-darwin, aarch64-apple-darwin
#     NATIVE   a program of this machine, which writes the manual pages (default: PROGRAM)
#     RELEASES URL of the releases, in the formula (default: that of GITHUB_REPOSITORY)
#
# Needs maturin for the wheel, npm for npm, dpkg-deb for deb. All are as old as SOURCE_DATE_EPOCH (default: the commit),
# so that two builds of one program are alike.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
    if [[ ${1:-} == main || ${1:-} == formula ]]; then
        mkdir -p "$2"
        folder=$(realpath "$2")
        "make_$1"
        return
    fi
    (($# >= 3)) || { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
    program=$(realpath "$1") target=$2
    mkdir -p "$3"
    folder=$(realpath "$3")
    shift 3
    (($#)) || set -- wheel npm deb archive
    names
    local kind
    for kind in "$@"; do
        if [[ $target == *-gnu && $kind != archive ]]; then
            echo "$kind takes a static program: $target is for the archive alone" >&2
            exit 2
        fi
        "make_$kind"
    done
}

# names : of the target, as npm and Debian have them.
names() {
    case $target in
        x86_64-*) cpu=x64 debian=amd64 ;;
        aarch64-*) cpu=arm64 debian=arm64 ;;
        *) echo "$target: no package has a name for this processor" >&2; exit 2 ;;
    esac
    case $target in
        *-linux-musl | *-linux-gnu) system=linux ;;
        *-apple-darwin) system=darwin ;;
        *) echo "$target: expected …-linux-musl (a static program), …-linux-gnu (for the archive) or …-apple-darwin" >&2; exit 2 ;;
    esac
}

# make_wheel : by maturin, which takes the program from ready-cargo.sh.
make_wheel() {
    local tags=()
    # maturin takes the name from the file
    install -D -m 0755 "$program" "$work/ready/anthropic-proxy"
    [[ $system != linux ]] || tags=(--compatibility manylinux2014 musllinux_1_2)
    CARGO=$here/ready-cargo.sh READY=$work/ready/anthropic-proxy maturin build --quiet --manifest-path "$root/Cargo.toml" \
        --target "$target" --out "$folder" "${tags[@]}"
}

# make_npm : the package of one system and processor. npm installs it where they are right.
make_npm() {
    local package=$work/npm
    mkdir -p "$package/bin"
    install -m 0755 "$program" "$package/bin/anthropic-proxy"
    install -m 0644 "$root/LICENSE" "$package/"
    cat >"$package/package.json" <<JSON
{
  "name": "anthropic-proxy-$system-$cpu",
  "version": "$version",
  "description": "The program of anthropic-proxy for $system on $cpu",
  "license": "MIT",
  "os": ["$system"],
  "cpu": ["$cpu"],
  "files": ["bin", "LICENSE"],
  "preferUnplugged": true
}
JSON
    npm pack --silent --pack-destination "$folder" "$package" >/dev/null
    rm -rf "$package"
}

# make_main : what people install.
make_main() {
    local package=$work/npm
    mkdir -p "$package"
    install -m 0755 "$here/npm/launcher.cjs" "$package/"
    install -m 0644 "$root/LICENSE" "$root/README.md" "$package/"
    sed "s/@VERSION@/$version/g" "$here/npm/package.json" >"$package/package.json"
    npm pack --silent --pack-destination "$folder" "$package" >/dev/null
}

# make_deb : for Debian and Ubuntu, with a service that is not started before it has settings.
make_deb() {
    [[ $system == linux ]] || return 0
    local tree=$work/deb file name=anthropic-proxy
    install -D -m 0755 "$program" "$tree/usr/bin/$name"
    strip --strip-all "$tree/usr/bin/$name" 2>/dev/null || true # not of another processor
    for file in service socket; do
        install -D -m 0644 "$root/static/systemd/$name.$file" "$tree/usr/lib/systemd/system/$name.$file"
    done
    # without the lines on how to install it by hand
    sed -i -e '1,/^$/d' -e 's|/usr/local/bin/|/usr/bin/|' -e '/^\[Unit\]/a Documentation=man:anthropic-proxy(1)' \
        "$tree/usr/lib/systemd/system/$name.service"
    install -D -m 0640 "$root/.env.example" "$tree/etc/$name/.env"
    manuals "$tree/usr/share/man/man1"
    gzip -9n "$tree"/usr/share/man/man1/*
    completions "$tree/usr/share"
    install -D -m 0644 "$here/debian/lintian-overrides" "$tree/usr/share/lintian/overrides/$name"
    local doc=$tree/usr/share/doc/$name
    install -D -m 0644 "$here/debian/copyright" "$doc/copyright"
    gzip -9nc "$root/CHANGELOG.md" >"$doc/changelog.gz"
    printf 'anthropic-proxy (%s-1) stable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' "$version" \
        "$(sed -n 's/^Maintainer: //p' "$here/debian/control")" "$(LC_ALL=C date -R -u --date="@$SOURCE_DATE_EPOCH")" |
        gzip -9nc >"$doc/changelog.Debian.gz"
    install -m 0644 "$root/README.md" "$root/README.zh-CN.md" "$doc/"
    install -D -m 0644 "$root/static/prometheus/alerts.yaml" "$doc/examples/alerts.yaml"
    install -D -m 0644 "$root/static/grafana/anthropic-proxy.json" "$doc/examples/grafana.json"

    mkdir -p "$tree/DEBIAN"
    for file in postinst prerm postrm; do
        install -m 0755 "$here/debian/$file" "$tree/DEBIAN/$file"
    done
    echo "/etc/$name/.env" >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find usr -type f -printf '%P\n' | sort | sed 's|^|usr/|' | xargs md5sum) >"$tree/DEBIAN/md5sums"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$debian/" \
        -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f 1)/" \
        "$here/debian/control" >"$tree/DEBIAN/control"
    find "$tree" -type d -exec chmod 0755 {} +
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --build --root-owner-group -Zxz "$tree" "$folder/${name}_$version-1_$debian.deb" >/dev/null
    rm -rf "$tree"
}

# make_archive : the program, its manual pages and completions, for Homebrew and for people.
make_archive() {
    local name=anthropic-proxy-$version-$target
    local tree=$work/$name
    install -D -m 0755 "$program" "$tree/anthropic-proxy"
    install -m 0644 "$root/LICENSE" "$root/README.md" "$root/.env.example" "$tree/"
    manuals "$tree/man"
    completions "$tree"
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" "$name" |
        gzip -9n >"$folder/$name.tar.gz"
    rm -rf "$tree"
}

# make_formula : of the archives that are there.
make_formula() {
    local releases=${RELEASES:-https://github.com/${GITHUB_REPOSITORY:-OWNER/anthropic-proxy}/releases/download}
    local target archive
    local edits=(-e "s|@RELEASES@|$releases|g" -e "s|@HOMEPAGE@|${releases%/releases/*}|" -e "s/@VERSION@/$version/g")
    for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl x86_64-apple-darwin aarch64-apple-darwin; do
        archive=$folder/anthropic-proxy-$version-$target.tar.gz
        [[ -f $archive ]] || { echo "$archive is missing: the formula names it" >&2; exit 1; }
        edits+=(-e "s/@$target@/$(sha256sum "$archive" | cut -d ' ' -f 1)/")
    done
    sed "${edits[@]}" "$here/homebrew/anthropic-proxy.rb" >"$folder/anthropic-proxy.rb"
}

# manuals FOLDER
manuals() {
    mkdir -p "$1"
    "${NATIVE:-$program}" man --output "$1"
}

# completions FOLDER : where bash, zsh and fish look below a share.
completions() {
    local native=${NATIVE:-$program} name=anthropic-proxy
    mkdir -p "$1/bash-completion/completions" "$1/zsh/vendor-completions" "$1/fish/vendor_completions.d"
    "$native" completions bash >"$1/bash-completion/completions/$name"
    "$native" completions zsh >"$1/zsh/vendor-completions/_$name"
    "$native" completions fish >"$1/fish/vendor_completions.d/$name.fish"
}

main "$@"
