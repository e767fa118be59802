#!/bin/sh
# Makes an authority and a server's certificate for a rig: docker/rigs/certs.sh DIR. They are worth nothing outside of it.
set -eu

dir=${1:?docker/rigs/certs.sh DIR}
mkdir -p "$dir"
cd "$dir"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=rig authority" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=target" -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:target,DNS:localhost,IP:127.0.0.1\n' >names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.crt 2>/dev/null
# The server in its container is nobody that this machine knows.
chmod 0644 server.key ca.crt server.crt
rm -f server.csr names ca.srl
