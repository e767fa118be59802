#!/bin/sh
# Makes a base image out of Debian packages, for a machine that reaches a Debian mirror but no image
# registry.
#
#   docker/base/make.sh IMAGE [PACKAGE...]
#   docker/base/make.sh understudy-base:local ca-certificates
#
# Needs root and a running docker. The mirror is the one that apt uses on this machine (MIRROR=url
# overrides it), the suite is SUITE (default bookworm). debootstrap is taken from the PATH, or unpacked
# from its package into a temporary folder: nothing is installed.
set -eu

if [ $# -lt 1 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
fi
image=$1
shift
suite=${SUITE:-bookworm}
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }')}
if [ -z "$mirror" ]; then
    echo "make.sh: apt knows no mirror; run apt-get update, or set MIRROR=url" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

if ! command -v debootstrap >/dev/null; then
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root debootstrap)
    dpkg-deb -x "$work"/debootstrap_*.deb "$work/tool"
    export DEBOOTSTRAP_DIR="$work/tool/usr/share/debootstrap"
    PATH="$work/tool/usr/sbin:$PATH"
fi

include=$(echo "ca-certificates $*" | tr -s ' ' ',')
debootstrap --variant=minbase --include="$include" "$suite" "$work/root" "$mirror"

# What an image does not need: package lists and archives, manuals, logs of the installation.
rm -rf "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/*.bin \
    "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/cache/debconf/*-old \
    "$work"/root/usr/share/doc/* "$work"/root/usr/share/man/* "$work"/root/var/log/*.log

tar -C "$work/root" --one-file-system -c . |
    docker import --change 'CMD ["/bin/sh"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image"
