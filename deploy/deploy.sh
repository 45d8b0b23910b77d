#!/bin/sh
# deploy.sh CURRENT [DIGEST]: takes the release that this file belongs to into service. CURRENT is the link by which the
# installation is known; it leads to the release that serves now. The release's settings are in its .env.
#
# The image is pulled if .env names VOTING_IMAGE (exactly that of DIGEST, or of the file `digest` that a packed release has; they
# have to agree), or else built. Then the schema is brought
# up to date, and worker, result and vote are replaced one after another, each when the one before is healthy. If anything
# fails, or all is not well within DEPLOY_PATIENCE seconds (120), the release before goes on and the exit code is 1. Dead letters
# from before the deployment do not count against it. Votes wait on the stream meanwhile. A release's migration has to leave the schema usable for the release before it.
set -eu

new=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd -P)
current=${1:?usage: deploy.sh CURRENT [DIGEST]}
packed=$(cat "$new/deploy/digest" 2>/dev/null || true)
digest=${2:-$packed}
patience=${DEPLOY_PATIENCE-120}
began=$(date +%s)
services='worker result vote'
counts=''
unset VOTING_IMAGE VOTING_VERSION # .env decides; Compose would let the environment win

say() { echo "deploy: $*" >&2; }
fail() { say "$@"; exit 1; }

[ -z "$packed" ] || [ "$digest" = "$packed" ] || fail "this release has the image $packed, and not $digest"
[ -f "$new/.env" ] || fail "$new/.env is missing: copy .env.example, and set VOTING_VERSION"
[ -L "$current" ] || [ ! -e "$current" ] || fail "$current is not a link"
old=$(readlink -f "$current" || true)
[ -f "$old/compose.yaml" ] || old=''
exec 9>"$current.lock"
flock -n 9 || fail 'another deployment is at it'

setting() { sed -n "s/^$1=//p" "$new/.env" | tr -d "\"'"; }

# By way of the link: what is mounted from the release keeps its name over releases, so the stores are not made anew for it.
compose() { (cd -- "$current" && docker compose "$@"); }

lead_to() {
    ln -sfn "$1" "$current.new"
    mv -T "$current.new" "$current"
}

running() { # how many of a service run; one at least
    number=$(compose ps -q "$1" | grep -c .) || true
    echo "$((number > 0 ? number : 1))"
}

get_image() {
    name=$(setting VOTING_IMAGE)
    version=$(setting VOTING_VERSION)
    if [ -z "$name" ]; then
        (cd -- "$new" && docker compose build --quiet)
    elif [ -n "$digest" ]; then
        docker pull --quiet "$name@$digest" >/dev/null && docker tag "$name@$digest" "$name:$version"
    elif ! docker image inspect "$name:$version" >/dev/null 2>&1; then
        docker pull --quiet "$name:$version" >/dev/null
    fi
}

start() { # what is unhealthy for now may become healthy; what ends by itself does not
    deadline=$(($(date +%s) + patience))
    while ! compose up -d --quiet-pull --no-build --wait --wait-timeout "$patience" "$@"; do
        if crashed || [ "$(date +%s)" -ge "$deadline" ]; then
            return 1
        fi
        sleep 2
    done
}

crashed() { compose ps -a --format '{{.State}} {{.ExitCode}}' | grep -Eq '^(restarting|(exited|dead) [1-9])'; }

replace() { # the new release takes over; every step may fail

    for service in $services; do
        counts="$counts --scale $service=$(running "$service")"
    done
    if [ -n "$old" ]; then
        compose run --rm -T --no-deps migrate || return
        for service in $services; do
            say "replacing $service"
            start --no-deps --scale "$service=$(running "$service")" "$service" || return
        done
    fi
    # shellcheck disable=SC2086 # words
    start --remove-orphans $counts || return
    all_is_well
}

all_is_well() {
    deadline=$(($(date +%s) + patience))
    while ! said=$(compose exec -T worker voting status --dead-letters-within "$(($(date +%s) - began))" 2>&1); do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "$said"
            return 1
        fi
        sleep 1
    done
}

roll_back() {
    trap - HUP INT TERM
    compose ps -a || true
    compose logs --no-color --tail 20 || true
    [ -n "$old" ] || fail "$new does not become healthy, and there is no release before it"
    say "$new does not become healthy: going back to $old"
    lead_to "$old"
    patience=$((patience * 3))
    # shellcheck disable=SC2086 # words
    start --remove-orphans $counts || fail "$old does not become healthy either: see docker compose ps"
    fail "$old serves again"
}

get_image || fail "the image of $new cannot be had: see above; $current is as it was"
(cd -- "$new" && docker compose config --quiet) || fail "the settings in $new/.env are wrong: see above; $current is as it was"

trap roll_back HUP INT TERM
lead_to "$new"
replace || roll_back
trap - HUP INT TERM
say "$new serves"

# Kept for the way back: the release before. Older ones go, with their images.
if [ "$(basename "$(dirname "$new")")" = releases ]; then
    name=$(setting VOTING_IMAGE)
    for release in "$(dirname "$new")"/*/; do
        release=${release%/}
        if [ "$release" != "$new" ] && [ "$release" != "$old" ]; then
            docker image rm "${name:-voting}:$(basename "$release")" >/dev/null 2>&1 || true
            rm -rf "$release"
        fi
    done
fi
