#!/bin/sh
# Makes a small base image out of Debian packages, for a machine that reaches a Debian mirror but no image registry.
#
#   docker/base/make.sh IMAGE [PACKAGE...]
#   docker/base/make.sh understudy-base:local
#   docker/base/make.sh understudy-rig:local redis-server redis-tools prometheus
#
# Packages are unpacked, not installed: their libraries come along, their maintainer scripts and what only those need do
# not. A program whose library is missing ends this script. Beside the packages the image has a shell (dash), the CA roots, the user 10001
# and /var/lib/understudy. What is in it stands in /var/lib/dpkg/status.d, where scanners look for it.
#
# Needs root (for the files' owners) and a running docker; apt says which packages there are (MIRROR is apt's own).
set -eu

if [ $# -lt 1 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 2
fi
image=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
root=$work/root
mkdir -p "$work/debs/partial" "$root/var/lib/dpkg/status.d" "$root/tmp" "$root/etc/ssl/certs" "$root/var/lib/understudy"

# What dpkg, debconf and the maintainer scripts need, and nothing else does.
skip='^(adduser|apt|base-passwd|bsdutils|cdebconf|coreutils|debconf|debianutils|dpkg|gcc-[0-9]*-base|init-system-helpers|install-info|libacl1|libattr1|libaudit.*|libbz2-1.0|libcap-ng0|libcrypt1|libdb5.3|libdebconf.*|libgmp10|libgdbm.*|libjs-.*|libmd0|libpam.*|libpcre2-8-0|libperl.*|libselinux1|libsemanage.*|libsepol2|libssl-dev|login|lsb-base|openssl|passwd|perl.*|sed|sysvinit-utils|tar|tzdata|usr-is-merged|usrmerge|procps|libproc2-0|libncursesw6|libtinfo6|fonts-.*|daemon|prometheus-node-exporter.*)$'

# An empty list of installed packages: everything that is needed is named.
: >"$work/status"
names=$(apt-get install --simulate --no-install-recommends -o Dir::State::status="$work/status" -o Debug::NoLocking=true \
    libc6 libgcc-s1 dash ca-certificates "$@" | awk '$1 == "Inst" { print $2 }' | grep -vE "$skip" | sort -u)
if [ -z "$names" ]; then
    echo "make.sh: apt knows no packages; run apt-get update" >&2
    exit 1
fi
# shellcheck disable=SC2086 # One word a name.
(cd "$work/debs" && apt-get download -qq -o APT::Sandbox::User=root $names)
for package in "$work"/debs/*.deb; do
    dpkg-deb -x "$package" "$root"
    dpkg-deb -f "$package" >"$root/var/lib/dpkg/status.d/$(dpkg-deb -f "$package" Package)"
done

# Manuals, translations, encodings, services and cron jobs.
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/bash-completion \
    "$root"/usr/lib/*/gconv "$root"/usr/lib/locale "$root"/etc/init.d "$root"/etc/cron* "$root"/lib/systemd "$root"/usr/share/i18n
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/bin/false\nunderstudy:x:10001:10001::/var/lib/understudy:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nunderstudy:x:10001:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
# A volume begins as the image has its folder.
mkdir -p "$root/data"
chown 10001:10001 "$root/var/lib/understudy" "$root/data"

for name in dash "$@"; do
    for program in $(dpkg-deb -c "$work"/debs/"${name}"_*.deb | awk '$6 ~ /^\.\/(usr\/)?s?bin\/./ && $1 ~ /^-/ { print substr($6, 2) }'); do
        missing=$(chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "$program" 2>/dev/null | grep 'not found' || true)
        if [ -n "$missing" ]; then
            echo "make.sh: $program lacks $missing" >&2
            exit 1
        fi
    done
done

tar -C "$root" --one-file-system -c . |
    docker import --change 'CMD ["/bin/sh"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
echo "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.0f MB", $1 / 1e6 }'), $(echo "$names" | wc -l) packages"
