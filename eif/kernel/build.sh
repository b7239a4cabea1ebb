#!/usr/bin/env bash
# Builds the enclave's kernel from Debian's kernel source:
#
#   eif/kernel/build.sh OUT           writes OUT/bzImage and OUT/bzImage.config
#   eif/kernel/build.sh --configure   fetches, unpacks and configures, and says what the kernel made of it
#
# The same source, configuration and compiler give the same bytes: time, user, machine and number of the
# build are fixed. What is fetched and built is kept in $XDG_CACHE_HOME/casemate-kernel under a hash
# of everything that goes in, and is never committed.
#
# Needs curl, dpkg-deb, tar, xz, make, gcc, binutils, flex, bison, bc, perl, and the headers of
# libelf (libelf-dev); about 2 GB of disk, and some minutes.
set -euo pipefail

readonly SERIES=6.12
readonly VERSION=6.12.117-1
readonly PACKAGE=linux-source-${SERIES}_${VERSION}_all.deb
readonly URL=http://deb.debian.org/debian-security/pool/updates/main/l/linux/$PACKAGE
readonly SHA256=9141325315c7f1eca682113d185a8c77c82814aa6e32f7e127e61d6106403835

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() {
    echo "usage: build.sh OUT | build.sh --configure" >&2
    exit 2
}
fail() {
    echo "error: $*" >&2
    exit 1
}
(($# == 1)) || usage
for tool in curl dpkg-deb tar xz make gcc ld flex bison bc perl; do
    command -v "$tool" >/dev/null || fail "\`$tool\` is needed and not there"
done

echo '#include <gelf.h>' | gcc -E - >/dev/null 2>&1 || fail "the headers of libelf are needed and not there (libelf-dev)"

export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=0
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=casemate KBUILD_BUILD_HOST=casemate
unset CFLAGS KCFLAGS KCPPFLAGS LDFLAGS MAKEFLAGS ARCH CROSS_COMPILE

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/casemate-kernel
key=$({
    cat "$here/config" "${BASH_SOURCE[0]}"
    gcc --version | head -n 1
    ld --version | head -n 1
} | sha256sum | cut -c1-32)
done=$cache/$key
mkdir -p "$cache"

fetch() {
    if ! echo "$SHA256  $cache/$PACKAGE" | sha256sum --check --status 2>/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$cache/$PACKAGE.part" "$URL"
        echo "$SHA256  $cache/$PACKAGE.part" | sha256sum --check --status ||
            fail "$PACKAGE is not the one whose hash stands here"
        mv "$cache/$PACKAGE.part" "$cache/$PACKAGE"
    fi
}

# Every line of the configuration is in the kernel's own, as it stands; what is not set may be absent.
check_config() {
    local line name missing=0
    while read -r line; do
        case $line in
        CONFIG_*=*) grep -qxF "$line" "$1" && continue ;;
        '# CONFIG_'*' is not set')
            name=${line#\# }
            name=${name% is not set}
            grep -q "^$name=" "$1" || continue
            ;;
        *) continue ;;
        esac
        echo "the kernel does not take: $line" >&2
        missing=$((missing + 1))
    done <"$here/config"
    ((missing == 0)) || fail "$missing lines of the configuration have no effect"
    if grep -q '=m$' "$1"; then
        fail "something is a module"
    fi
}

if [[ $1 != --configure && -f $done/bzImage ]]; then
    mkdir -p "$1"
    cp "$done/bzImage" "$done/bzImage.config" "$1/"
    exit 0
fi

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
fetch
# from the package to the source's own archive, without a copy in between
dpkg-deb --fsys-tarfile "$cache/$PACKAGE" |
    tar -xO "./usr/src/linux-source-$SERIES.tar.xz" |
    tar -xJ -C "$work"
source=$work/linux-source-$SERIES
cp "$here/config" "$work/casemate.config"
make -s -C "$source" ARCH=x86_64 KCONFIG_ALLCONFIG="$work/casemate.config" allnoconfig
check_config "$source/.config"
if [[ $1 == --configure ]]; then
    grep '^CONFIG_' "$source/.config"
    exit 0
fi
make -s -C "$source" ARCH=x86_64 -j"$(nproc)" bzImage
mkdir "$work/done"
cp "$source/arch/x86/boot/bzImage" "$work/done/bzImage"
cp "$source/.config" "$work/done/bzImage.config"
# two at once make the same: the first stays
mv -T "$work/done" "$done" 2>/dev/null || [[ -f $done/bzImage ]]
mkdir -p "$1"
cp "$done/bzImage" "$done/bzImage.config" "$1/"
