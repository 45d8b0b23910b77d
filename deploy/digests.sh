#!/bin/sh
# digests.sh: print each third-party image that a release uses, and the digest of its tag at present, for pack.sh.
set -eu
cd "$(dirname "$0")/.."
awk '($1 == "image:" || $1 == "FROM") && $2 !~ /\$/ { print $2 }' \
    compose.yaml deploy/cloudwatch/compose.yaml Dockerfile seed-data/Dockerfile | sort -u |
    while read -r image; do
        digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
        echo "$image $digest"
    done
