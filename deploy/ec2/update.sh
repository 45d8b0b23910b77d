#!/bin/sh
# update.sh [DIGEST]: deploy the release that this file belongs to, on an instance created by template.yaml.
set -eu
# shellcheck source=/dev/null
. /etc/voting/installation
release=$(CDPATH='' cd -- "$(dirname "$0")/../.." && pwd -P)

"$release/deploy/ec2/settings.py" "$release"
case $IMAGE in
    *.dkr.ecr.*)
        aws ecr get-login-password --region "$AWS_REGION" |
            docker login --username AWS --password-stdin "${IMAGE%%/*}" >/dev/null
        ;;
esac
case $(sed -n 's/^COMPOSE_FILE=//p' "$release/.env") in
    *cloudwatch*) "$release/deploy/cloudwatch/log-group.sh" "$AWS_REGION" ;;
esac
exec "$release/deploy/deploy.sh" /opt/voting/current "${1-}"
