#!/bin/sh
# release-notes.sh VERSION: print the section of CHANGELOG.md on a version. Fail if it is missing or empty, or if pyproject.toml differs.
set -eu
root=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd -P)
version=${1:?usage: release-notes.sh VERSION}

fail() { echo "release-notes: $*" >&2; exit 1; }

ours=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
[ "$ours" = "$version" ] || fail "pyproject.toml has version $ours, not $version"
notes=$(awk -v version="$version" '
    /^## / { within = $2 == version || $2 == "[" version "]"; next }
    within { print }
' "$root/CHANGELOG.md")
[ -n "$notes" ] || fail "CHANGELOG.md has no section '## $version', or it is empty"
printf '%s\n' "$notes" | sed '/./,$!d'
