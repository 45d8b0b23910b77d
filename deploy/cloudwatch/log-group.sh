#!/bin/sh
# log-group.sh REGION: create the log group of the CloudWatch agent, unless it exists, and keep its entries for 30 days.
# It is not in deploy/ec2/template.yaml because all stacks of an account share it: agent.json has its name.
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
