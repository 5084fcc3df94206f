#!/bin/sh
# Alertmanager with the channels of .env: a channel that is not set must not keep it from starting.
# Arguments are Alertmanager's own.
set -eu

folder=${0%/*}
export SECRETS="${SECRETS:-/run/secrets}"
config=${CONFIG:-/alertmanager/alertmanager.yml}

# Each channel prints its part of the receiver, or nothing. It is sourced into this shell, so that it
# can move its secret from the environment to a file: Alertmanager reads secrets from files only.
umask 077
{
    cat "$folder/alertmanager.yml"
    for channel in "$folder"/channel_*.sh; do
        if [ -e "$channel" ]; then
            # shellcheck source=/dev/null
            . "$channel"
        fi
    done
} > "$config"
exec "${ALERTMANAGER:-/bin/alertmanager}" --config.file="$config" "$@"
