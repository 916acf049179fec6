#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Compiles and runs programs; executables and their output are the same on every machine.
set -e
for name in "$@"; do
    gcc -O2 -march=x86-64 -o "$name" "/bench/$name.c"
    sha256sum "$name"
    "./$name" 3000
done
# The whole of the tool chain piece by piece, without optimization and with debugging information.
gcc -O0 -g -S -o first.s /bench/json.c
gcc -c -o first.o first.s
x86_64-linux-gnu-ar rcsD libfirst.a first.o
gcc -static -o first libfirst.a
./first 300
objdump -d first.o | sha256sum
