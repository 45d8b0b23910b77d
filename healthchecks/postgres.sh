#!/bin/sh
# Healthy when PostgreSQL answers a query over the network address that its clients use, with a password, and takes writes.
# During the first start the image runs a temporary server on the local socket alone, which is not healthy yet.
set -eu

PGPASSWORD=$(cat "${PASSWORD_FILE:-/run/secrets/password}")
export PGPASSWORD PGCONNECT_TIMEOUT=3
answer=$(psql -h "${POSTGRES_HOST:-db}" -U "${POSTGRES_USER:-voting}" -d "${POSTGRES_DB:-voting}" -AtXc 'SELECT pg_is_in_recovery()')
[ "$answer" = f ] || {
    echo "postgres does not take writes: in recovery is '$answer'"
    exit 1
}
