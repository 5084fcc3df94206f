#!/bin/sh
# Alertmanager with the channels of .env: a channel that is not set must not keep it from starting.
# Arguments are Alertmanager's own.
set -eu

folder=${0%/*}
export SECRETS="${SECRETS:-/run/secrets}"
config=${CONFIG:-/alertmanager/alertmanager.yml}

# Alertmanager reads them from files only.
umask 077
[ -z "${SLACK_WEBHOOK_URL:-}" ] || printf '%s' "$SLACK_WEBHOOK_URL" > "$SECRETS/slack_webhook_url"
[ -z "${SMTP_PASSWORD:-}" ] || printf '%s' "$SMTP_PASSWORD" > "$SECRETS/smtp_password"
unset SLACK_WEBHOOK_URL SMTP_PASSWORD

# Each channel prints its part of the receiver, or nothing.
{
    cat "$folder/alertmanager.yml"
    for channel in "$folder"/channel_*.sh; do
        if [ -e "$channel" ]; then
            sh "$channel"
        fi
    done
} > "$config"
exec "${ALERTMANAGER:-/bin/alertmanager}" --config.file="$config" "$@"
