#!/bin/sh
# deploy.sh CURRENT [DIGEST]: deploy the release that this file belongs to. CURRENT is a symbolic link to the release that serves
# now, and the path by which the installation is addressed. The release's settings are in its .env.
#
# 1. Pull the image if .env has VOTING_IMAGE, otherwise build it. A pulled image has the digest DIGEST, or that in the file `digest`
#    of a packed release; if both are given, they must be equal.
# 2. Generate secrets that are new in this release, and restart Redis if its rights or image have changed.
# 3. Migrate the schema. A release's migration must leave the schema usable for the previous release.
# 4. Replace worker, result, admin and vote one after another, each when the one before is healthy. Votes wait on the stream meanwhile.
#
# If anything fails, or `voting status` finds a problem for longer than DEPLOY_PATIENCE seconds (120), the previous release is started
# again and the exit code is 1. Dead letters from before the deployment do not count as a problem.
set -eu

new=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd -P)
current=${1:?usage: deploy.sh CURRENT [DIGEST]}
packed=$(cat "$new/deploy/digest" 2>/dev/null || true)
digest=${2:-$packed}
patience=${DEPLOY_PATIENCE-120}
began=$(date +%s)
services='worker result admin vote'
counts=''
unset VOTING_IMAGE VOTING_VERSION # .env decides; in Compose the environment would take precedence

say() { echo "deploy: $*" >&2; }
fail() { say "$@"; exit 1; }

[ -z "$packed" ] || [ "$digest" = "$packed" ] || fail "this release has the image $packed, not $digest"
[ -f "$new/.env" ] || fail "$new/.env is missing: copy .env.example and set VOTING_VERSION"
[ -L "$current" ] || [ ! -e "$current" ] || fail "$current is not a link"
old=$(readlink -f "$current" || true)
[ -f "$old/compose.yaml" ] || old=''
exec 9>"$current.lock"
flock -n 9 || fail 'another deployment is running'

setting() { sed -n "s/^$1=//p" "$new/.env" | tr -d "\"'"; }

# Run Compose below the link: paths mounted from a release then stay the same, so the stores are not recreated for a new release.
compose() { (cd -- "$current" && docker compose "$@"); }

link_to() {
    ln -sfn "$1" "$current.new"
    mv -T "$current.new" "$current"
}

running() { # print how many replicas of a service run, but at least 1
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

start() { # retry while services are unhealthy, which may pass; not if one crashed
    deadline=$(($(date +%s) + patience))
    while ! compose up -d --quiet-pull --no-build --wait --wait-timeout "$patience" "$@"; do
        if crashed || [ "$(date +%s)" -ge "$deadline" ]; then
            return 1
        fi
        sleep 2
    done
}

crashed() { compose ps -a --format '{{.State}} {{.ExitCode}}' | grep -Eq '^(restarting|(exited|dead) [1-9])'; }

replace() { # with the new release; any step may fail
    for service in $services; do
        counts="$counts --scale $service=$(running "$service")"
    done
    if [ -n "$old" ]; then
        compose run --rm -T --no-deps secrets || return
        start --no-deps redis || return
        compose run --rm -T --no-deps migrate || return
        for service in $services; do
            say "replacing $service"
            start --no-deps --scale "$service=$(running "$service")" "$service" || return
        done
    fi
    # shellcheck disable=SC2086 # words
    start --remove-orphans $counts || return
    status_is_good
}

status_is_good() { # wait until `voting status` finds no problem
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
    [ -n "$old" ] || fail "$new does not become healthy, and there is no previous release"
    say "$new does not become healthy: going back to $old"
    link_to "$old"
    patience=$((patience * 3))
    # shellcheck disable=SC2086 # words
    start --remove-orphans $counts || fail "$old does not become healthy either: see docker compose ps"
    fail "$old serves again"
}

get_image || fail "cannot get the image of $new: see above; $current is unchanged"
(cd -- "$new" && docker compose config --quiet) || fail "the settings in $new/.env are wrong: see above; $current is unchanged"

trap roll_back HUP INT TERM
link_to "$new"
replace || roll_back
trap - HUP INT TERM
say "$new serves"

# Keep the previous release, to go back to it. Delete older ones with their images.
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
