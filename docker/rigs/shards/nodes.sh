#!/bin/sh
# Six nodes of a cluster in one container: three with all slots between them, and a replica of each.
set -eu

if [ "${1:-}" = health ]; then
    case $(redis-cli -p 7000 cluster info) in *cluster_state:ok*) ;; *) exit 1 ;; esac
    for port in 7003 7004 7005; do
        case $(redis-cli -p "$port" info replication) in *master_link_status:up*) ;; *) exit 1 ;; esac
    done
    exit 0
fi
# The address by which others reach this container.
ip=
while read -r address name _; do
    if [ "$name" = "$HOSTNAME" ]; then ip=$address; fi
done </etc/hosts

nodes=
for port in 7000 7001 7002 7003 7004 7005; do
    redis-server --bind 0.0.0.0 --protected-mode no --port "$port" --save "" --dir /data --cluster-enabled yes \
        --cluster-config-file "nodes-$port.conf" --cluster-announce-ip "$ip" --cluster-node-timeout 2000 \
        --cluster-replica-validity-factor 0 --repl-diskless-sync-delay 0 --repl-backlog-size 64mb \
        --maxmemory-policy noeviction &
    nodes="$nodes $ip:$port"
done
for port in 7000 7001 7002 7003 7004 7005; do
    until redis-cli -p "$port" ping >/dev/null 2>&1; do :; done
done
# shellcheck disable=SC2086
redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
wait
