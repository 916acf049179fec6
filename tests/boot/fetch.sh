#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fetches guest images from the machine's Debian archive into guests/ (or $VMM_GUESTS), once.
#
#   fetch.sh NAME...    NAME: cloud generic rt memtest busybox seabios, or all
#
# Each NAME ends up as one or more files, whose paths are printed:
#   cloud, generic, rt  NAME/vmlinuz and NAME/version
#   memtest             memtest/memtest64.bin, memtest/memtest32.bin
#   busybox             busybox/busybox (static)
#   seabios             seabios/bios.bin, seabios/bios-256k.bin
# Exit status: 0 all there, 75 something cannot be downloaded here (the reason is printed), 1 misuse.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
guests=${VMM_GUESTS:-$root/guests}

unavailable() {
    echo "fetch.sh: $*" >&2
    exit 75
}

# Only where the package lists are missing, and then only with the rights to fetch them.
need_lists() {
    [ -n "$(apt-cache policy busybox-static 2>/dev/null | grep -E '^ +(\*\*\*|[0-9])')" ] && return
    if [ "$(id -u)" = 0 ]; then
        apt-get -q update >&2 || unavailable "apt-get update failed"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo apt-get -q update >&2 || unavailable "apt-get update failed"
    else
        unavailable "no package lists; run 'apt-get update' as root"
    fi
}

# The package that a meta package of the kernel stands for today.
kernel_package() {
    apt-cache depends --important "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

# download PACKAGE: prints the path of its .deb, in the current directory.
download() {
    apt-get -q download "$1" >download.log 2>&1 || {
        # The archive keeps only the newest version: old lists name files that are gone.
        [ "$(id -u)" = 0 ] && apt-get -q update >>download.log 2>&1 &&
            apt-get -q download "$1" >>download.log 2>&1
    } || unavailable "cannot download $1: $(grep -m1 '^E:' download.log || tail -n 1 download.log)"
    ls ./"$1"_*.deb
}

# extract DEB PATTERN FILE: the one member of the package whose name matches, into FILE.
extract() {
    dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards -f - "$2" >"$3.part" 2>/dev/null &&
        [ -s "$3.part" ] && mv "$3.part" "$3" || unavailable "no $2 in $1"
}

fetch_kernel() { # NAME META-PACKAGE
    local package deb
    package=$(kernel_package "$2")
    [ -n "$package" ] || unavailable "the archive has no $2"
    deb=$(download "$package") || exit 75
    extract "$deb" './boot/vmlinuz-*' vmlinuz
    echo "${package#linux-image-}" >version
    cp vmlinuz version "$guests/$1/"
}

fetch_one() {
    local deb
    case $1 in
    cloud) fetch_kernel cloud linux-image-cloud-amd64 ;;
    generic) fetch_kernel generic linux-image-amd64 ;;
    rt) fetch_kernel rt linux-image-rt-amd64 ;;
    memtest)
        deb=$(download memtest86+) || exit 75
        extract "$deb" './boot/*x64.bin' memtest64.bin
        extract "$deb" './boot/*ia32.bin' memtest32.bin
        cp memtest64.bin memtest32.bin "$guests/memtest/"
        ;;
    busybox)
        deb=$(download busybox-static) || exit 75
        extract "$deb" './bin/busybox' busybox
        chmod 755 busybox
        cp busybox "$guests/busybox/"
        ;;
    seabios)
        deb=$(download seabios) || exit 75
        extract "$deb" './usr/share/seabios/bios.bin' bios.bin
        extract "$deb" './usr/share/seabios/bios-256k.bin' bios-256k.bin
        cp bios.bin bios-256k.bin "$guests/seabios/"
        ;;
    esac
}

[ $# -gt 0 ] || { sed -n '3,13s/^# \{0,1\}//p' "$0" >&2; exit 1; }
[ "$*" = all ] && set -- cloud generic rt memtest busybox seabios
for name; do
    case $name in
    cloud | generic | rt) last=version ;;
    memtest) last=memtest32.bin ;;
    busybox) last=busybox ;;
    seabios) last=bios-256k.bin ;;
    *) echo "fetch.sh: unknown guest '$name'" >&2; exit 1 ;;
    esac
    mkdir -p "$guests/$name" || exit 1
    # Tests run side by side: one fetches, the others wait for it.
    exec 9>"$guests/.lock"
    flock 9
    if [ ! -s "$guests/$name/$last" ]; then
        for tool in apt-get apt-cache dpkg-deb; do
            command -v $tool >/dev/null || unavailable "needs $tool (a Debian machine)"
        done
        need_lists
        work=$(mktemp -d)
        chmod 755 "$work"
        (cd "$work" && fetch_one "$name")
        status=$?
        rm -rf "$work"
        [ $status = 0 ] || exit $status
    fi
    exec 9>&-
    find "$guests/$name" -type f | sort
done
