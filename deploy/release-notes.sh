#!/bin/sh
# release-notes.sh VERSION: prints what CHANGELOG.md says of a version; fails if it says nothing, or if pyproject.toml has another.
set -eu
root=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd -P)
version=${1:?usage: release-notes.sh VERSION}

fail() { echo "release-notes: $*" >&2; exit 1; }

ours=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
[ "$ours" = "$version" ] || fail "pyproject.toml has version $ours, and not $version"
notes=$(awk -v version="$version" '
    /^## / { within = $2 == version || $2 == "[" version "]"; next }
    within { print }
' "$root/CHANGELOG.md")
[ -n "$notes" ] || fail "CHANGELOG.md has no section '## $version', or nothing in it"
printf '%s\n' "$notes" | sed '/./,$!d'
