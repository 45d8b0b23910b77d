#!/bin/sh
# pack.sh VERSION DIGESTS: make voting-VERSION.tar.gz from the commit, without tests, and its .sha256. The same commit and DIGESTS give
# the same bytes. DIGESTS is a file with lines `IMAGE sha256:…`: the release's own image under the name `voting`, and each third-party
# image in compose files and Dockerfiles (digests.sh). The packed files name these images by digest.
set -eu
version=${1:?usage: pack.sh VERSION DIGESTS}
digests=$(readlink -f "${2:?usage: pack.sh VERSION DIGESTS}")
name=voting-$version.tar.gz
here=$(pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/voting-$version

git archive --format=tar --prefix="voting-$version/" HEAD -- . ':!tests' ':!docs/images' ':!.github' ':!.ci' >"$work/tar"
tar -xpf "$work/tar" -C "$work"

digest_of() { awk -v image="$1" '$1 == image && $2 ~ /^sha256:[0-9a-f]+$/ && length($2) == 71 { print $2; found = 1; exit } END { exit !found }' "$digests"; }

for file in compose.yaml deploy/cloudwatch/compose.yaml Dockerfile seed-data/Dockerfile; do
    awk '($1 == "image:" || $1 == "FROM") && $2 !~ /\$/ { print $2 }' "$tree/$file" | sort -u >"$work/images"
    while read -r image; do
        digest=$(digest_of "$image") || { echo "pack: $digests has no digest of $image" >&2; exit 1; }
        awk -v image="$image" -v digest="$digest" '
            ($1 == "image:" || $1 == "FROM") && $2 == image {
                end = index($0, image) + length(image)
                $0 = substr($0, 1, end - 1) "@" digest substr($0, end)
            }
            { print }' "$tree/$file" >"$work/pinned"
        cat "$work/pinned" >"$tree/$file" # keeps the file's mode
    done <"$work/images"
done
digest_of voting >"$tree/deploy/digest" || { echo "pack: $digests has no digest of voting" >&2; exit 1; }
chmod 644 "$tree/deploy/digest"

tar -c --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner -C "$work" "voting-$version" |
    gzip -9n >"$here/$name"
cd "$here"
sha256sum "$name" >"$name.sha256"
