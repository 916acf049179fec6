#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds an initramfs: busybox with a link for each of its commands, and an /init script.
#
#   mkinitramfs.sh BUSYBOX INIT OUT [PROGRAM...]
#
# The programs are in /bin, too.
# /dev/console is in the kernel's own initramfs already, so that no device node and no root is needed.
set -eu
[ $# -ge 3 ] || { echo "usage: mkinitramfs.sh BUSYBOX INIT OUT [PROGRAM...]" >&2; exit 1; }
command -v cpio >/dev/null || { echo "mkinitramfs.sh: needs cpio" >&2; exit 1; }
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree"/{bin,dev,etc,proc,sys,tmp,root}
cp "$1" "$tree/bin/busybox"
cp "$2" "$tree/init"
chmod 755 "$tree/bin/busybox" "$tree/init"
for program in "${@:4}"; do
    cp "$program" "$tree/bin"
done
for command in $("$1" --list); do
    [ "$command" = busybox ] || ln -s busybox "$tree/bin/$command"
done
(cd "$tree" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$3.part"
mv "$3.part" "$3"
