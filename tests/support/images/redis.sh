#!/bin/sh
# What the entrypoint of the official image of Redis does.
set -eu

case $1 in
    -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ] && [ "$(id --user)" = 0 ]; then
    chown --recursive redis .
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
exec "$@"
