#!/bin/sh
# Runs understudy in a container.
#
# With arguments (the image's default is `sync /etc/understudy/shake.toml`) they go to understudy as they
# are. If the file that `sync` names is not there, but SHAKE_SRC_ADDRESS and SHAKE_DST_ADDRESS are set, as
# with RedisShake's image, a file is written that takes everything from the environment. Passwords stay in
# the environment: the file only names the variables, and understudy expands them.
#
# `health` asks the status port of the running one, as the image's HEALTHCHECK does; UNDERSTUDY_STATUS=host:port says where
# that is when other files than these are used.
set -eu

file=/etc/understudy/shake.toml
if [ "$*" = health ]; then
    if [ ! -e "$file" ]; then file=/var/lib/understudy/shake.toml; fi
    exec understudy status --health "${UNDERSTUDY_STATUS:-$file}"
fi
if [ "$*" = "sync $file" ] && [ ! -e "$file" ]; then
    if [ -z "${SHAKE_SRC_ADDRESS:-}" ] || [ -z "${SHAKE_DST_ADDRESS:-}" ]; then
        echo "entrypoint: mount a shake.toml at $file, or set SHAKE_SRC_ADDRESS and SHAKE_DST_ADDRESS" >&2
        exit 2
    fi
    file=/var/lib/understudy/shake.toml
    # No program but the shell: the base image has no other.
    while IFS= read -r line; do printf '%s\n' "$line"; done >"$file" <<'TOML'
[sync_reader]
address = "${SHAKE_SRC_ADDRESS}"
username = "${SHAKE_SRC_USERNAME}"
password = "${SHAKE_SRC_PASSWORD}"

[redis_writer]
address = "${SHAKE_DST_ADDRESS}"
username = "${SHAKE_DST_USERNAME}"
password = "${SHAKE_DST_PASSWORD}"

[advanced]
dir = "/var/lib/understudy"
log_file = ""
status_port = 8080
status_address = "0.0.0.0"
TOML
    set -- sync "$file"
fi
exec understudy "$@"
