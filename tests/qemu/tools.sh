#!/usr/bin/env bash
# Builds what boots an enclave image on a machine that is no AWS instance:
#
#   tests/qemu/tools.sh OUT
#
# Into OUT come links to `qemu-system-x86_64`, which has the machine `nitro-enclave`, and to
# `vhost-device-vsock`, its vsock. QEMU is Debian's source of it, with nitro-enclave.patch and nothing of
# it that is not needed; the packages of Debian are built without that machine. Both are kept in
# $XDG_CACHE_HOME/casemate-qemu under a hash of everything that goes in, and never in the tree.
#
# What is not there and must come from Debian's packages is installed if this runs as root, and named if it
# does not. Status 3: the tools cannot be had here; the last line says why.
set -euo pipefail

readonly QEMU_VERSION=10.0.13
readonly QEMU_FILE=qemu_$QEMU_VERSION+ds.orig.tar.xz
readonly QEMU_URL=http://deb.debian.org/debian/pool/main/q/qemu/$QEMU_FILE
readonly QEMU_SHA256=6a0888e806c2ffc0c5f0733e974f9aea55491950d3c47c98669c8b236dde59ae
readonly VSOCK_VERSION=0.3.0
# the one that its build is tried with, and what it wants beside it
readonly PYTHON_PACKAGES="meson==1.5.0 pycotap==1.3.1"
readonly PACKAGES="libcbor-dev libgnutls28-dev libglib2.0-dev libfdt-dev libpixman-1-dev pkg-config
    ninja-build flex bison python3-venv qemu-system-data seabios"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cannot() {
    echo "cannot be had here: $*" >&2
    exit 3
}
(($# == 1)) || {
    echo "usage: tools.sh OUT" >&2
    exit 2
}
mkdir -p "$1"
out=$(cd "$1" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/casemate-qemu
mkdir -p "$cache"

install_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || cannot "the packages' names are Debian's, and this is no Debian"
    for package in $PACKAGES; do
        dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null |
            grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return
    [[ $(id -u) == 0 ]] || cannot "these packages are not installed: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } \
        >"$cache/packages.log" 2>&1 ||
        cannot "these packages do not install: ${missing[*]}: $(tail -n 1 "$cache/packages.log")"
}

build_qemu() {
    local work source archive=$cache/$QEMU_FILE
    if ! echo "$QEMU_SHA256  $archive" | sha256sum --check --status 2>/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$archive.part" "$QEMU_URL" ||
            cannot "$QEMU_URL"
        echo "$QEMU_SHA256  $archive.part" | sha256sum --check --status ||
            cannot "$QEMU_FILE is not the one whose hash stands here"
        mv "$archive.part" "$archive"
    fi
    work=$(mktemp -d "$cache/build.XXXXXX")
    # the folder goes with this subshell
    (
        trap 'rm -rf "$work"' EXIT
        tar -xJ -C "$work" -f "$archive"
        source=$work/qemu-$QEMU_VERSION
        cd "$source"
        patch --quiet -p1 <"$here/nitro-enclave.patch"
        # the firmware that this unpacks is not in Debian's archive, and not needed
        sed -i 's/unpack_edk2_blobs = bzip2.found()/unpack_edk2_blobs = false/' meson.build
        echo 'CONFIG_NITRO_ENCLAVE=y' >configs/devices/x86_64-softmmu/nitro.mak
        python3 -m venv "$work/python"
        # shellcheck disable=SC2086 # two words
        "$work/python/bin/pip" install --quiet --disable-pip-version-check $PYTHON_PACKAGES
        mkdir build
        cd build
        export PATH=$work/python/bin:$PATH
        ../configure --target-list=x86_64-softmmu --without-default-features --without-default-devices \
            --with-devices-x86_64=nitro --enable-tcg --enable-libcbor --enable-gnutls --enable-fdt=system \
            --enable-vhost-user --enable-system --disable-docs --disable-tools --disable-guest-agent \
            --disable-werror --disable-install-blobs -Doptimization=2 -Ddebug=false
        ninja qemu-system-x86_64
        strip qemu-system-x86_64
        mkdir "$work/done"
        cp qemu-system-x86_64 "$work/done/"
        # two at once make the same: the first stays
        mv -T "$work/done" "$1" 2>/dev/null || [[ -x $1/qemu-system-x86_64 ]]
    ) >"$cache/build.log" 2>&1 </dev/null || {
        tail -n 20 "$cache/build.log" >&2
        cannot "QEMU does not build: $cache/build.log"
    }
}

install_packages
key=$({
    cat "$here/nitro-enclave.patch" "${BASH_SOURCE[0]}"
    gcc --version | head -n 1
    pkg-config --modversion gnutls libcbor glib-2.0
} | sha256sum | cut -c1-32)
[[ -x $cache/$key/qemu-system-x86_64 ]] || build_qemu "$cache/$key"
ln -sfT "$cache/$key/qemu-system-x86_64" "$out/qemu-system-x86_64"

vsock=$cache/vhost-device-vsock-$VSOCK_VERSION
if [[ ! -x $vsock/bin/vhost-device-vsock ]]; then
    CARGO_TARGET_DIR=$cache/target cargo install --quiet --locked --root "$vsock" \
        "vhost-device-vsock@$VSOCK_VERSION" >"$cache/vsock.log" 2>&1 ||
        cannot "vhost-device-vsock does not build: $(tail -n 1 "$cache/vsock.log")"
    rm -rf "$cache/target"
fi
ln -sfT "$vsock/bin/vhost-device-vsock" "$out/vhost-device-vsock"
