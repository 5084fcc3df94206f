#!/usr/bin/env bash
# What the entrypoint of the official image of PostgreSQL does, as far as our compose files use it.
set -euo pipefail

if [[ $1 == -* ]]; then
    set -- postgres "$@"
fi
if [[ $1 != postgres ]]; then
    exec "$@"
fi
if [[ $(id --user) == 0 ]]; then
    install --directory --owner=postgres --group=postgres --mode=700 "$PGDATA" /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    password=${POSTGRES_PASSWORD:?the official image refuses to start without it}
    initdb --username="$user" --pwfile=<(echo "$password") --auth-local=trust \
        --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    # On its socket only, until the databases are there.
    pg_ctl --wait --options="-c listen_addresses=''" start
    if [[ $database != postgres ]]; then
        createdb --username="$user" "$database"
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) bash "$file" ;;
            *.sql) psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$user" --dbname="$database" --file="$file" ;;
        esac
    done
    pg_ctl --wait --mode=fast stop
fi
exec "$@"
