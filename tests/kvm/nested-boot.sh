#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# nested-boot.sh VMM-RUN GUEST: boots the repository's guest, and then Debian's cloud kernel as it
# comes, with --backend kvm in the nested machine (nested.sh). Exit status: 0, 1, or 77.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export VMM_GUESTS=${VMM_GUESTS:-$(cd "$here/../.." && pwd)/guests}
"$here/../boot/fetch.sh" busybox cloud >/dev/null || {
    echo "skipped: the guest cannot be fetched"
    exit 77
}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"$here/../boot/mkinitramfs.sh" "$VMM_GUESTS/busybox/busybox" "$here/../boot/init-test" \
    "$work/initramfs" || exit 1
cp "$VMM_GUESTS/cloud/vmlinuz" "$work/cloud" || exit 1

cat >"$work/boot" <<'END'
# What a guest prints, and whether all of it came.
boot() {
    pattern=$1
    shift
    ./vmm-run --backend kvm --no-reboot --stats "$@" </dev/null >out 2>&1
    status=$?
    grep -E "$pattern|^(wall seconds|hardware exits|repairs) " out
    [ $status = 0 ] && return
    tail -n 20 out
    echo "FAILED: exit status $status"
    exit 1
}
# Whether `out` has each of these.
has() {
    for line; do
        grep -q "$line" out || { tail -n 20 out; echo "FAILED: no $line"; exit 1; }
    done
}
boot '^(check|self check):' --memory 64M --append "auto brief" --kernel guest.elf
has 'self check: passed' 'powering off'
boot '^guest:' --append "console=ttyS0 loglevel=4 panic=-1 vmm.test=short" \
    --kernel cloud --initrd initramfs
has 'guest: init of Linux' 'guest: md5 b5cfa9d6c8febd618f91ac2843d50a1c' 'guest: forked 40' \
    'guest: sum 2001000' 'guest: slept' 'guest: pipes work' 'guest: done'
END
"$here/nested.sh" "$1" "$2" "$work"/{cloud,initramfs,boot} -- "sh ./boot"
