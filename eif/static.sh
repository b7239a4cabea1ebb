#!/usr/bin/env bash
# Builds programs for an enclave image: static, for x86-64, the same bytes from any folder and any home.
#
#   eif/static.sh OUT PACKAGE…     for example: eif/static.sh out casemate-init
#
# The compiler writes paths of the source and of cargo's registry into what may panic. Both are given
# fixed names here; so is the folder of what is built, for C code in a package.
set -euo pipefail

readonly TARGET=x86_64-unknown-linux-musl
(($# >= 2)) || {
    echo "usage: static.sh OUT PACKAGE..." >&2
    exit 2
}
out=$1
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd)
home=${CARGO_HOME:-${HOME:?}/.cargo}
target=${CARGO_TARGET_DIR:-$root/target}

separator=$'\x1f'
flags="--remap-path-prefix=$target=/target${separator}--remap-path-prefix=$root=/casemate"
flags+="${separator}--remap-path-prefix=$home=/cargo${separator}-Ctarget-feature=+crt-static"
export CARGO_ENCODED_RUSTFLAGS=$flags CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH=0 LC_ALL=C TZ=UTC
export CFLAGS_x86_64_unknown_linux_musl="-ffile-prefix-map=$target=/target -ffile-prefix-map=$home=/cargo"
unset RUSTFLAGS

for package in "$@"; do
    cargo build --release --locked --target "$TARGET" -p "$package" \
        --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' |
        while read -r program; do
            if LC_ALL=C readelf --program-headers --wide "$program" | grep -q INTERP; then
                echo "error: \`$program\` is not static" >&2
                exit 1
            fi
            install -m 755 "$program" "$out/"
        done
done
