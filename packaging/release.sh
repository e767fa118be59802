#!/bin/sh
# Makes a release: a static binary for x86-64 and one for 64-bit ARM Linux, each with everything that belongs to it, and checksums.
#
#   packaging/release.sh [--target TRIPLE]... [DIR]        DIR defaults to target/dist
#
# Without --target: what this machine can build of x86_64-unknown-linux-musl and aarch64-unknown-linux-musl. A line says what it cannot, and
# what is missing:
#
#   rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
#   apt-get install musl-tools gcc-aarch64-linux-gnu        for the C in it
#
# Where there is no musl for x86-64, glibc is linked statically: it looks up names in /etc/hosts and DNS as glibc 2.34 and later does without
# its plugins. Only committed files are released.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
targets=
while [ $# -gt 0 ]; do
    case $1 in
    --target)
        [ $# -gt 1 ] || {
            echo "release.sh: --target wants a triple, such as aarch64-unknown-linux-musl" >&2
            exit 2
        }
        targets="$targets $2"
        shift 2
        ;;
    -*)
        echo "release.sh: $1 is unknown; usage: packaging/release.sh [--target TRIPLE]... [DIR]" >&2
        exit 2
        ;;
    *) break ;;
    esac
done
dist=${1:-$root/target/dist}
mkdir -p "$dist"
dist=$(cd "$dist" && pwd)
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    echo "release.sh: commit first, or the release would not be what its commit says" >&2
    exit 1
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
if ! grep -q "^## \[.*$version" CHANGELOG.md; then
    echo "release.sh: CHANGELOG.md says nothing of $version" >&2
    exit 1
fi
UNDERSTUDY_COMMIT=$(git rev-parse --short=12 HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export UNDERSTUDY_COMMIT SOURCE_DATE_EPOCH

has_std() {
    [ -d "$(rustc --print target-libdir --target "$1")" ]
}

host=$(uname -m)
# Nothing for this machine's own processor; the other one needs a compiler that makes code for it.
c_of() {
    case $1 in
    "$host"-*) ;;
    aarch64-*) echo aarch64-linux-gnu ;;
    x86_64-*) echo x86_64-linux-gnu ;;
    esac
}

if [ -z "$targets" ]; then
    for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
        prefix=$(c_of "$target")
        if ! has_std "$target" && [ "$target" = "$host-unknown-linux-musl" ]; then
            target=$host-unknown-linux-gnu
        fi
        if ! has_std "$target"; then
            echo "$target is left out: rustup target add $target"
        elif [ -n "$prefix" ] && ! command -v "$prefix-gcc" >/dev/null; then
            echo "$target is left out: apt-get install gcc-$(echo "$prefix" | tr _ -)"
        else
            targets="$targets $target"
        fi
    done
fi

names=
for target in $targets; do
    echo "building $version ($UNDERSTUDY_COMMIT) for $target"
    prefix=$(c_of "$target")
    if [ -n "$prefix" ]; then
        lower=$(echo "$target" | tr - _)
        upper=$(echo "$lower" | tr "[:lower:]" "[:upper:]")
        export "CC_$lower=$prefix-gcc" "AR_$lower=$prefix-ar" "CARGO_TARGET_${upper}_LINKER=$prefix-gcc"
        # Its headers are glibc's, whose checked functions musl does not have.
        export "CFLAGS_$lower=-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0"
    fi
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package understudy --target "$target"
    binary=${CARGO_TARGET_DIR:-target}/$target/release/understudy
    if readelf --program-headers "$binary" | grep -q INTERP || readelf --dynamic "$binary" | grep -q NEEDED; then
        echo "release.sh: $binary is not static" >&2
        exit 1
    fi
    name=understudy-$version-${target%%-*}-linux
    stage=$dist/$name
    rm -rf "$stage"
    mkdir -p "$stage"
    install -m 0755 "$binary" "$stage/understudy"
    "${prefix:+$prefix-}strip" --strip-debug "$stage/understudy"
    # Another processor's binary runs here where there is an emulator for it (qemu-user-static).
    if [ -z "$prefix" ]; then
        "$stage/understudy" --version
    elif command -v "qemu-${target%%-*}-static" >/dev/null; then
        "qemu-${target%%-*}-static" "$stage/understudy" --version
    else
        echo "$name was not run: apt-get install qemu-user-static"
    fi
    install -m 0644 README.md CHANGELOG.md LICENSE LICENSE-APACHE LICENSE-MIT configs/shake.toml packaging/understudy.service "$stage/"
    cargo xtask sbom --commit "$UNDERSTUDY_COMMIT" --output "$stage/sbom.spdx.json"
    # The same bytes for the same commit.
    tar -C "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -n >"$dist/$name.tar.gz"
    names="$names $name.tar.gz $name/understudy"
done
if [ -z "$names" ]; then
    echo "release.sh: nothing can be built here" >&2
    exit 1
fi
# shellcheck disable=SC2086 # they are words
(cd "$dist" && sha256sum $names >SHA256SUMS && cat SHA256SUMS)
