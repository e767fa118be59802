#!/bin/sh
# Makes a release: one static binary for x86-64 Linux with everything that belongs to it, and checksums.
#
#   packaging/release.sh [DIR]        DIR defaults to target/dist
#
# The target is x86_64-unknown-linux-musl where this toolchain has it (rustup target add x86_64-unknown-linux-musl, and musl-tools for
# the C in it); else glibc, linked statically: it looks up names in /etc/hosts and DNS as glibc 2.34 and later does without its plugins.
# Only committed files are released.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
dist=${1:-$root/target/dist}
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

target=x86_64-unknown-linux-musl
if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
    target=x86_64-unknown-linux-gnu
fi
echo "building $version ($UNDERSTUDY_COMMIT) for $target"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package understudy --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$target/release/understudy
if readelf --program-headers "$binary" | grep -q INTERP || readelf --dynamic "$binary" | grep -q NEEDED; then
    echo "release.sh: $binary is not static" >&2
    exit 1
fi
"$binary" --version

name=understudy-$version-x86_64-linux
stage=$dist/$name
rm -rf "$stage"
mkdir -p "$stage"
install -m 0755 "$binary" "$stage/understudy"
strip --strip-debug "$stage/understudy"
install -m 0644 README.md CHANGELOG.md LICENSE LICENSE-APACHE LICENSE-MIT configs/shake.toml packaging/understudy.service "$stage/"
cargo xtask sbom --commit "$UNDERSTUDY_COMMIT" --output "$stage/sbom.spdx.json"
# The same bytes for the same commit.
tar -C "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -n >"$dist/$name.tar.gz"
(cd "$dist" && sha256sum "$name.tar.gz" "$name/understudy" >SHA256SUMS && cat SHA256SUMS)
