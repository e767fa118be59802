#!/bin/sh
# The nodes of a cluster in one container: PRIMARIES with all slots between them, and REPLICAS of each.
set -eu

count=$((PRIMARIES * (1 + REPLICAS)))
last=$((6999 + count))
if [ "${1:-}" = health ]; then
    port=7000
    replicas=0
    while [ "$port" -le "$last" ]; do
        case $(redis-cli -p "$port" cluster info) in *cluster_state:ok*) ;; *) exit 1 ;; esac
        case $(redis-cli -p "$port" info replication) in *master_link_status:up*) replicas=$((replicas + 1)) ;; *) ;; esac
        port=$((port + 1))
    done
    [ "$replicas" -eq $((PRIMARIES * REPLICAS)) ]
    exit
fi
# The address by which others reach this container.
ip=
while read -r address name _; do
    if [ "$name" = "$HOSTNAME" ]; then ip=$address; fi
done </etc/hosts

nodes=
port=7000
while [ "$port" -le "$last" ]; do
    redis-server --bind 0.0.0.0 --protected-mode no --port "$port" --save "" --dir /data --cluster-enabled yes \
        --cluster-config-file "nodes-$port.conf" --cluster-announce-ip "$ip" --cluster-node-timeout 2000 \
        --cluster-replica-validity-factor 0 --repl-diskless-sync-delay 0 --repl-backlog-size 64mb \
        --maxmemory-policy noeviction &
    nodes="$nodes $ip:$port"
    port=$((port + 1))
done
port=7000
while [ "$port" -le "$last" ]; do
    until redis-cli -p "$port" ping >/dev/null 2>&1; do :; done
    port=$((port + 1))
done
# shellcheck disable=SC2086
redis-cli --cluster create $nodes --cluster-replicas "$REPLICAS" --cluster-yes
wait
