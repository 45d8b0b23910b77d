#!/bin/sh
# Healthy if PostgreSQL answers a query at its clients' network address, with a password, and accepts writes.
# During the first start the image runs a temporary server on the local socket only; that is not healthy.
set -eu

PGPASSWORD=$(cat "${PASSWORD_FILE:-/run/secrets/password}")
export PGPASSWORD PGCONNECT_TIMEOUT=3
answer=$(psql -h "${POSTGRES_HOST:-db}" -U "${POSTGRES_USER:-voting}" -d "${POSTGRES_DB:-voting}" -AtXc 'SELECT pg_is_in_recovery()')
[ "$answer" = f ] || {
    echo "postgres does not accept writes: pg_is_in_recovery() is '$answer'"
    exit 1
}
