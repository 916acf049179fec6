#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds libvmm and boots a guest in vmm-run, the reference VMM; missing packages are installed first.
#
#   examples/run.sh [--debian] [VMM-RUN-OPTION...]
#
# Without --debian: the small guest of examples/guest, which needs no network. At a terminal it ends
# in its shell (type help; poweroff or Ctrl-A x ends it); otherwise it checks itself and powers off.
# With --debian: Debian's current cloud kernel, unmodified, and an initramfs with busybox, both fetched
# from the Debian archive into guests/ once; ends in a shell (with </dev/null: in a power-off).
# Other options go to vmm-run, for example --cpus 2, --memory 1G, --backend interp, --stats.
# Exit status: vmm-run's (0: the guest powered off), 1 if it could not be started.
set -eu
cd "$(dirname "$0")/.."
debian=no
options=()
for option; do
    case $option in
    --debian) debian=yes ;;
    --help | -h) sed -n '3,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) options+=("$option") ;;
    esac
done

packages=(cmake ninja-build gcc g++ pkg-config libzydis-dev libelf-dev libuv1-dev binutils)
[ $debian = no ] || packages+=(cpio)
tests/need-packages.sh "${packages[@]}"

mkdir -p build-run
if ! { cmake -S . -B build-run -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DVMM_BUILD_TESTS=OFF &&
    ninja -C build-run; } >build-run/log 2>&1; then
    tail -n 40 build-run/log >&2
    echo "examples/run.sh: the build failed" >&2
    exit 1
fi

command=(build-run/examples/vmm-run)
if [ $debian = yes ]; then
    guests=${VMM_GUESTS:-$PWD/guests}
    tests/boot/fetch.sh cloud busybox >/dev/null || exit 1
    tests/boot/mkinitramfs.sh "$guests/busybox/busybox" examples/init-shell build-run/shell.cpio
    append="console=ttyS0 quiet panic=-1"
    # Nobody can type at /dev/null: show that it boots and power off. A pipe may bring commands.
    if [ ! -t 0 ] && [ ! -p /dev/stdin ] && [ ! -S /dev/stdin ] && [ ! -f /dev/stdin ]; then
        append+=" vmm.auto"
    fi
    command+=(--kernel "$guests/cloud/vmlinuz" --initrd build-run/shell.cpio --append "$append"
        --no-reboot)
else
    command+=(--kernel build-run/examples/guest/guest.elf)
    if [ ! -t 0 ]; then
        command+=(--append auto --timeout 600 --no-reboot)
    fi
fi
exec "${command[@]}" ${options[@]+"${options[@]}"}
