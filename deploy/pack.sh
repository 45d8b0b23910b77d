#!/bin/sh
# pack.sh VERSION: makes voting-VERSION.tar.gz of what is committed, without tests, and its .sha256; the same commit gives the same bytes.
set -eu
version=${1:?usage: pack.sh VERSION}
name=voting-$version.tar.gz
here=$(pwd)
cd "$(dirname "$0")/.."
git archive --format=tar --prefix="voting-$version/" HEAD -- . ':!tests' ':!docs/images' ':!.github' ':!.ci' | gzip -9n >"$here/$name"
cd "$here"
sha256sum "$name" >"$name.sha256"
