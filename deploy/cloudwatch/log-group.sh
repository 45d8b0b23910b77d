#!/bin/sh
# log-group.sh REGION: makes the log group that the CloudWatch agent writes to, unless it exists, and limits it to 30 days.
# It is not in deploy/ec2/template.yaml, since all stacks of an account share it: the name is in agent.json.
set -eu
region=${1:?usage: log-group.sh REGION}
name=voting-metrics

if ! said=$(aws logs create-log-group --region "$region" --log-group-name "$name" 2>&1); then
    case $said in
        *ResourceAlreadyExistsException*) ;;
        *) echo "$said" >&2; exit 1 ;;
    esac
fi
aws logs put-retention-policy --region "$region" --log-group-name "$name" --retention-in-days 30
