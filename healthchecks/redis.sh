#!/bin/sh
# Healthy when Redis answers over the network address that its clients use, to a user with a password, and its
# append-only file is in order. `info` also fails while the data is still being loaded.
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
