#!/bin/sh
# Prometheus with the password for the engine's metrics. Arguments are Prometheus's own.
set -eu

umask 077
printf '%s' "$PREFECT_ADMIN_PASSWORD" > /run/secrets/prefect_admin_password
unset PREFECT_ADMIN_PASSWORD
exec /bin/prometheus "$@"
