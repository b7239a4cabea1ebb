#!/usr/bin/env bash
# Builds static programs from two clones in two folders, with nothing shared but cargo's downloads, and
# compares the bytes:
#
#   eif/twice.sh PACKAGE…     for example: eif/twice.sh casemate-init casemate-runtime
#
# What is committed is what is built. Status 0 only if every program is the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($# >= 1)) || {
    echo "usage: twice.sh PACKAGE..." >&2
    exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# of different lengths, and one beside its target folder, one above it
git clone --quiet . "$folder/one"
git clone --quiet . "$folder/another/with/a/longer/path"
CARGO_TARGET_DIR=$folder/target "$folder/one/eif/static.sh" "$folder/first" "$@"
(
    unset CARGO_TARGET_DIR
    "$folder/another/with/a/longer/path/eif/static.sh" "$folder/second" "$@"
)
count=0
for program in "$folder"/first/*; do
    cmp "$program" "$folder/second/${program##*/}"
    sha256sum "$program" | sed "s|$folder/first/||"
    count=$((count + 1))
done
((count > 0))
echo "$count programs from two clones: the same bytes"
