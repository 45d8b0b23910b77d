#!/bin/sh
# Healthy if Redis answers at its clients' network address, to a user with a password, and its append-only file is
# written without errors. `info` fails while Redis loads its data.
set -eu

password=$(cat "${PASSWORD_FILE:-/run/secrets/health_password}")
info=$(REDISCLI_AUTH=$password redis-cli --user health --no-auth-warning -h "${REDIS_HOST:-redis}" -p 6379 info persistence)

case $info in
    *loading:0*aof_enabled:1*aof_last_write_status:ok*) ;;
    *)
        printf 'redis is not healthy:\n%s\n' "$info" | head -c 500
        exit 1
        ;;
esac
