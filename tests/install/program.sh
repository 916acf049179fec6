#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs into a temporary prefix, builds a program with pkg-config's flags alone, and runs it.
#   program.sh CMAKE BUILD-DIRECTORY COMPILER SOURCE
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
"$1" --install "$2" --prefix "$prefix" >/dev/null
find "$prefix" -type f | sort | sed "s|^$prefix/||"
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name vmm.pc)")
export PKG_CONFIG_PATH
[ "$(pkg-config --modversion vmm)" = "$(sed -n 's/^project(libvmm VERSION \([0-9.]*\).*/\1/p' \
    "$here/../../CMakeLists.txt")" ]
# Away from the source tree, so that nothing but the installed files can be found.
cp "$4" "$prefix/program.c"
cd "$prefix"
flags=$(pkg-config --cflags --libs --static vmm)
echo "flags: $flags"
# shellcheck disable=SC2086 # one word per flag
"$3" -std=c11 -Wall -Wextra -Werror -o program program.c $flags
output=$(./program)
echo "$output"
[ "$output" = "$(cat "$here/../examples/minimal.out")" ]
