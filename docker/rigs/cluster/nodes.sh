#!/bin/sh
# Three nodes of a cluster in one container, with all slots between them.
set -eu

if [ "${1:-}" = health ]; then
    case $(redis-cli -p 7000 cluster info) in *cluster_state:ok*) exit 0 ;; *) exit 1 ;; esac
fi
# The address by which others reach this container.
ip=
while read -r address name _; do
    if [ "$name" = "$HOSTNAME" ]; then ip=$address; fi
done </etc/hosts

for port in 7000 7001 7002; do
    redis-server --bind 0.0.0.0 --protected-mode no --port "$port" --save "" --dir /data --cluster-enabled yes \
        --cluster-config-file "nodes-$port.conf" --cluster-announce-ip "$ip" --repl-diskless-sync-delay 0 \
        --repl-backlog-size 32mb --maxmemory-policy noeviction &
done
for port in 7000 7001 7002; do
    until redis-cli -p "$port" ping >/dev/null 2>&1; do :; done
done
redis-cli --cluster create "$ip:7000" "$ip:7001" "$ip:7002" --cluster-yes
wait
