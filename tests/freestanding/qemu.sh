#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# qemu.sh TYPE1.BIN: examples/type1 is loaded by Multiboot, in QEMU, whose software CPU has no VMX:
# it must say so and end by itself. 77: there is no QEMU.
set -u
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64"; exit 77; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
timeout 90 qemu-system-x86_64 -machine pc,accel=tcg -cpu max -m 512 -smp 2 -display none -no-reboot \
    -serial file:"$log" -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$1" -append vmx
status=$?
cat "$log"
# What it writes to the port is doubled, and 1 more.
[ $status = 33 ] || { echo "status $status"; exit 1; }
grep -q 'the CPU has no VMX' "$log" && grep -q 'done, 0 failed' "$log"
