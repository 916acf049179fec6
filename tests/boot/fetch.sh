#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fetches guest images from the machine's Debian archive into guests/ (or $VMM_GUESTS), once.
#
#   fetch.sh NAME...    NAME: cloud generic rt i386 memtest busybox seabios ovmf xen kvm
#                       programs, or all
#
# Each NAME ends up as one or more files, whose paths are printed:
#   cloud, generic, rt  NAME/vmlinuz and NAME/version
#   i386                i386/vmlinuz-686, i386/vmlinuz-686-pae, i386/busybox: 32-bit guests
#   memtest             memtest/memtest64.bin, memtest/memtest32.bin
#   busybox             busybox/busybox (static)
#   seabios             seabios/bios.bin, seabios/bios-256k.bin
#   ovmf                ovmf/OVMF.fd
#   xen                 xen/xen (an ELF image)
#   kvm                 kvm/vmlinuz, kvm/version and the kernel's modules of KVM
#   programs            programs/root.cpio: gcc, python3, openssl, luajit, stress-ng and what they need
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

# Another architecture's packages are known only here, in the current directory: the machine's own
# package lists stay as they are.
apt=()
use_architecture() {
    mkdir -p state/lists/partial cache/archives/partial
    apt=(-o APT::Architecture="$1" -o APT::Architectures="$1" -o Dir::State="$PWD/state"
        -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User="$(id -un)"
        -o Acquire::Languages=none)
    # One of several archives may fail: what counts is whether the packages are there.
    apt-get "${apt[@]}" -q update >update.log 2>&1 || true
}

# The versioned package with the prefix $2 that the meta package $1 stands for today.
package_of() {
    apt-cache "${apt[@]}" depends --important "$1" 2>/dev/null |
        sed -n "s/^ *Depends: <\{0,1\}\($2[0-9][^ <>]*\)>\{0,1\}\$/\1/p" | head -n 1
}

# download PACKAGE: prints the path of its .deb, in the current directory.
download() {
    apt-get "${apt[@]}" -q download "$1" >download.log 2>&1 || {
        # The archive keeps only the newest version: old lists name files that are gone.
        [ ${#apt[@]} = 0 ] && [ "$(id -u)" = 0 ] && apt-get -q update >>download.log 2>&1 &&
            apt-get -q download "$1" >>download.log 2>&1
    } || unavailable "cannot download $1: $(grep -m1 '^E:' download.log || tail -n 1 download.log)"
    ls ./"$1"_*.deb
}

# extract DEB PATTERN FILE: the one member of the package whose name matches, into FILE.
extract() {
    dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards -f - "$2" >"$3.part" 2>/dev/null &&
        [ -s "$3.part" ] && mv "$3.part" "$3" || unavailable "no $2 in $1"
}

get_kernel() { # META-PACKAGE FILE
    local package deb
    package=$(package_of "$1" linux-image-)
    [ -n "$package" ] || unavailable "the archive has no $1"
    deb=$(download "$package") || exit 75
    extract "$deb" './boot/vmlinuz-*' "$2"
    echo "${package#linux-image-}" >version
}

fetch_kernel() { # NAME META-PACKAGE
    get_kernel "$2" vmlinuz
    cp vmlinuz version "$guests/$1/"
}

# The packages with all that they depend on, but for what serves only other uses of them.
PROGRAMS="gcc libc6-dev python3 openssl luajit stress-ng"
NOT_NEEDED='perl.*|libperl.*|mime-support|mailcap|media-types|install-info|tar|dpkg|rpcsvc-proto|.*debconf.*|\
lib(asan8|tsan2|ubsan1|lsan0|itm1|quadmath0|gprofng0)|.*-mesa0|libdb5.3|libgdbm.*|\
readline-common|linux-libc-dev-.*'
# Modules of Python's own tests that compute and need nothing but memory.
PYTHON_TESTS="grammar long int float complex math cmath fractions decimal struct re json hashlib zlib bz2
    string unicode bytes sort bisect heapq dict set list tuple deque array generators
    exceptions random statistics itertools functools textwrap base64 binascii csv pickle"

list_programs() {
    # shellcheck disable=SC2086
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances $PROGRAMS |
        grep '^[a-z0-9]' | sort -u | grep -vxE "$(tr -d '\\\n' <<<"$NOT_NEEDED")"
}

fetch_programs() {
    local deb name packages
    mapfile -t packages < <(list_programs)
    [ ${#packages[@]} -gt 20 ] || unavailable "the archive lacks one of $PROGRAMS"
    apt-get -q download "${packages[@]}" libpython3.11-testsuite >download.log 2>&1 ||
        unavailable "cannot download programs: $(grep -m1 '^E:' download.log)"
    mkdir root tests
    dpkg-deb -x libpython3.11-testsuite_*.deb tests
    rm libpython3.11-testsuite_*.deb
    for deb in ./*.deb; do
        dpkg-deb -x "$deb" root || unavailable "cannot unpack $deb"
    done
    # The modules that hold no tests are what tests share.
    for name in $PYTHON_TESTS; do
        mv tests/usr/lib/python3.11/test/test_"$name"{,.py} root/usr/lib/python3.11/test/ 2>/dev/null
    done
    rm -rf tests/usr/lib/python3.11/test/test_*
    cp -rn tests/usr/lib/python3.11/test root/usr/lib/python3.11/
    (
        cd root || exit 1
        rm -rf usr/share/{doc,man,info,locale,lintian,bug,perl*,X11,python3,gcc} var etc/init.d \
            usr/bin/*-{lto-dump-12,ld.gold,dwp,gp-*} usr/lib/x86_64-linux-gnu/gconv \
            usr/lib/gcc/x86_64-linux-gnu/12/{lto1,lto-wrapper,g++-mapper-server,plugin,lib?san*} \
            usr/lib/python3/dist-packages usr/lib/python3.11/{ensurepip,idlelib,lib2to3,pydoc_data}
        find usr -name '*.a' -size +256k ! -name 'libc.a' ! -name 'libgcc*' ! -name 'libm-*' ! -name 'libmvec*' -delete
    )
    (cd root && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >root.cpio ||
        unavailable "no cpio"
    ls ./*.deb >version
    cp root.cpio version "$guests/programs/"
}

fetch_one() {
    local deb package
    case $1 in
    cloud) fetch_kernel cloud linux-image-cloud-amd64 ;;
    generic) fetch_kernel generic linux-image-amd64 ;;
    rt) fetch_kernel rt linux-image-rt-amd64 ;;
    i386)
        use_architecture i386
        get_kernel linux-image-686 vmlinuz-686
        get_kernel linux-image-686-pae vmlinuz-686-pae
        deb=$(download busybox-static) || exit 75
        extract "$deb" './bin/busybox' busybox
        chmod 755 busybox
        cp vmlinuz-686 vmlinuz-686-pae version busybox "$guests/i386/"
        ;;
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
    ovmf)
        deb=$(download ovmf) || exit 75
        extract "$deb" './usr/share/ovmf/OVMF.fd' OVMF.fd
        cp OVMF.fd "$guests/ovmf/"
        ;;
    xen)
        package=$(package_of xen-system-amd64 xen-hypervisor-)
        [ -n "$package" ] || unavailable "the archive has no xen-system-amd64"
        deb=$(download "$package") || exit 75
        extract "$deb" './boot/xen-*-amd64.gz' xen.gz
        gunzip xen.gz || unavailable "no gzip file in $deb"
        cp xen "$guests/xen/"
        ;;
    programs) fetch_programs ;;
    kvm)
        get_kernel linux-image-cloud-amd64 vmlinuz
        deb=$(ls ./linux-image-*.deb)
        for package in irqbypass kvm kvm-amd kvm-intel; do
            extract "$deb" "*/$package.ko" $package.ko
        done
        cp vmlinuz ./*.ko version "$guests/kvm/"
        ;;
    esac
}

[ $# -gt 0 ] || { sed -n '3,19s/^# \{0,1\}//p' "$0" >&2; exit 1; }
[ "$*" = all ] && set -- cloud generic rt i386 memtest busybox seabios ovmf xen kvm programs
for name; do
    case $name in
    cloud | generic | rt | kvm | programs) last=version ;;
    memtest) last=memtest32.bin ;;
    busybox | i386) last=busybox ;;
    seabios) last=bios-256k.bin ;;
    ovmf) last=OVMF.fd ;;
    xen) last=xen ;;
    *) echo "fetch.sh: unknown guest '$name'" >&2; exit 1 ;;
    esac
    mkdir -p "$guests/$name" || exit 1
    # Tests run side by side: one fetches, the others wait for it.
    exec 9>"$guests/.lock"
    flock 9
    # What was fetched before LuaJIT belonged to it.
    [ "$name" != programs ] || grep -q /luajit_ "$guests/programs/version" 2>/dev/null ||
        rm -f "$guests/programs/version"
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
