#!/bin/sh
# Builds the understudy image.
#
#   docker/build.sh [IMAGE]                        compiles in the image BUILD_IMAGE
#   docker/build.sh --binary FILE [IMAGE]          takes a binary that was built already
#
# IMAGE defaults to understudy:local. BASE_IMAGE and BUILD_IMAGE are taken from the environment; see
# docker/Dockerfile for their defaults and docker/base/make.sh for a base without a registry.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
binary=
if [ "${1:-}" = "--binary" ]; then
    binary=${2:?docker/build.sh --binary FILE [IMAGE]}
    shift 2
fi
image=${1:-understudy:local}

set -- -t "$image"
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
cp "$root/docker/Dockerfile" "$root/docker/entrypoint.sh" "$context/docker/"
install -m 0755 "$binary" "$context/understudy"
docker build "$@" --target prebuilt -f "$context/docker/Dockerfile" "$context"
