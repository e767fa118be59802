#!/bin/sh
# Builds the understudy image.
#
#   docker/build.sh [IMAGE]                              compiles in the image BUILD_IMAGE
#   docker/build.sh --binary FILE [--sbom FILE] [IMAGE]  takes a binary that was built already
#
# IMAGE defaults to understudy:local. BASE_IMAGE and BUILD_IMAGE are taken from the environment; see docker/Dockerfile for
# their defaults and docker/base/make.sh for a base without a registry. The image carries what it is made of
# (/usr/share/understudy/sbom.spdx.json); with a binary and no --sbom, `cargo xtask sbom` is asked for it.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
binary=
sbom=
while [ $# -gt 0 ]; do
    case $1 in
        --binary) binary=${2:?--binary FILE}; shift 2 ;;
        --sbom) sbom=${2:?--sbom FILE}; shift 2 ;;
        -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
        *) break ;;
    esac
done
image=${1:-understudy:local}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
commit=${UNDERSTUDY_COMMIT:-$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
set -- -t "$image" --build-arg "VERSION=$version" --build-arg "COMMIT=$commit"
if [ -n "${BASE_IMAGE:-}" ]; then set -- "$@" --build-arg "BASE_IMAGE=$BASE_IMAGE"; fi
if [ -n "${BUILD_IMAGE:-}" ]; then set -- "$@" --build-arg "BUILD_IMAGE=$BUILD_IMAGE"; fi

if [ -z "$binary" ]; then
    # Committed files only: no target folder, no data, nothing that lies about.
    git -C "$root" archive HEAD | docker build "$@" -f docker/Dockerfile -
    exit
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT INT TERM
mkdir "$context/docker"
install -m 0644 "$root/docker/Dockerfile" "$context/docker/"
install -m 0755 "$root/docker/entrypoint.sh" "$context/docker/"
install -m 0755 "$binary" "$context/understudy"
# Symbols stay, for what a panic prints; the tables of lines are three times the program.
if command -v strip >/dev/null; then strip --strip-debug "$context/understudy"; fi
if [ -n "$sbom" ]; then
    install -m 0644 "$sbom" "$context/sbom.spdx.json"
else
    (cd "$root" && cargo xtask sbom --output "$context/sbom.spdx.json")
fi
docker build "$@" --target prebuilt -f "$context/docker/Dockerfile" "$context"
