#!/bin/sh
# Starts a rig: servers, understudy between them, and what watches it, each a container on this machine.
#
#   docker/rig.sh NAME [up|down|logs]
#
#   plain        standalone to standalone, with Prometheus (docker/compose.yml)
#   elasticache  standalone to what ElastiCache is like: TLS, an ACL user, commands that are gone; with Prometheus
#   cluster      a cluster of three to one server
#   clusters     a cluster of six to a cluster of four
#   shards       a cluster of six, shared by three processes, to one server
#   failover     networks to cut and servers to kill
#   scan         a small hosted server without PSYNC to what ElastiCache is like (docs/first-migration.md)
#
# Images that are missing are made from Debian packages (docker/base/make.sh), understudy's from UNDERSTUDY_BINARY, else
# target/release/understudy. Ports: SOURCE_PORT 6390, TARGET_PORT 6391, STATUS_PORT 8080, PROMETHEUS_PORT 9090.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=${1:-}
case $name in
    plain) file=$root/docker/compose.yml ;;
    *) file=$root/docker/rigs/$name.yml ;;
esac
if [ -z "$name" ] || [ ! -e "$file" ]; then
    sed -n '2,16s/^# \{0,1\}//p' "$0"
    exit 2
fi
export RIG_CERTS="${RIG_CERTS:-$root/target/rigs/certs}"
if [ "$name" = scan ]; then
    # Its source is of another version than Debian's. Docker follows no link out of what it mounts.
    RIG_ENGINE=$(readlink -f "${RIG_ENGINE:-$root/target/engines/redis-6.2}")
    if [ ! -x "$RIG_ENGINE/bin/redis-server" ]; then
        echo "rig.sh: no server in $RIG_ENGINE; cargo xtask engines redis-6.2 makes it" >&2
        exit 1
    fi
    export RIG_ENGINE
fi
compose() { docker-compose -p "understudy-$name" -f "$file" "$@"; }

case ${2:-up} in
    down) compose down --volumes --timeout 1; exit ;;
    logs) compose logs; exit ;;
    up) ;;
    *) echo "rig.sh: up, down or logs" >&2; exit 2 ;;
esac

missing() { ! docker image inspect "$1" >/dev/null 2>&1; }
if missing "${REDIS_IMAGE:-understudy-rig:local}"; then
    "$root/docker/base/make.sh" understudy-rig:local redis-server redis-tools prometheus
fi
if missing "${UNDERSTUDY_IMAGE:-understudy:local}"; then
    if missing "${BASE_IMAGE:-understudy-base:local}"; then "$root/docker/base/make.sh" understudy-base:local; fi
    BASE_IMAGE=${BASE_IMAGE:-understudy-base:local} \
        "$root/docker/build.sh" --binary "${UNDERSTUDY_BINARY:-$root/target/release/understudy}"
fi
if [ ! -e "$RIG_CERTS/server.crt" ]; then "$root/docker/rigs/certs.sh" "$RIG_CERTS"; fi

compose up -d
echo "the page: http://127.0.0.1:${STATUS_PORT:-8080}/"
