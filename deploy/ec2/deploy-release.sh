#!/bin/sh
# deploy-release.sh DOCUMENT INSTANCE VERSION [SHA256 [DIGEST]]: deploy a release on the instance by Systems Manager, and wait.
# The exit code is 0 only if the release serves. DOCUMENT and INSTANCE are outputs of the stack (template.yaml). SHA256 is the
# checksum of the release archive, DIGEST (sha256:...) that of the image; without them, whatever the release workflow signed for
# VERSION is deployed.
set -eu

document=${1:?usage: deploy-release.sh DOCUMENT INSTANCE VERSION [SHA256 [DIGEST]]} instance=${2:?} version=${3:?}

case $version in *[!0-9A-Za-z.-]*) echo "deploy-release: $version is not a version" >&2; exit 2 ;; esac # so it cannot add parameters either

id=$(aws ssm send-command --document-name "$document" --instance-ids "$instance" \
    --parameters "version=$version,sha256=${4-},digest=${5-}" --comment "voting $version" \
    --query Command.CommandId --output text)
echo "deploy-release: $id" >&2

ask() { aws ssm get-command-invocation --command-id "$id" --instance-id "$instance" --query "$1" --output text; }

waited=0
while :; do
    state=$(ask Status 2>/dev/null || echo Pending) # the command is not known at first
    case $state in Success | Failed | Cancelled | TimedOut) break ;; esac
    if [ "$waited" -ge 2400 ]; then
        echo "deploy-release: $id is $state after 40 minutes: see Run Command in Systems Manager" >&2
        exit 1
    fi
    sleep 5
    waited=$((waited + 5))
done
ask StandardOutputContent
ask StandardErrorContent >&2
echo "deploy-release: $version on $instance: $state" >&2
[ "$state" = Success ]
