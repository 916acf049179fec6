#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every public header compiles alone, as C11 and as C++17, with each compiler that is there.
#   headers.sh INCLUDE-DIRECTORY
set -u
checked=0
status=0
warnings=(-Wall -Wextra -Wshadow -Wpedantic -Wundef -Werror -fsyntax-only)

check() { # COMPILER LANGUAGE STANDARD HEADER
    checked=$((checked + 1))
    echo "#include <vmm/$4>" | "$1" -x "$2" "-std=$3" "${warnings[@]}" -I"$include" - || {
        echo "vmm/$4 does not compile with $1 -std=$3" >&2
        status=1
    }
}

include=$1
for header in "$include"/vmm/*.h; do
    for compilers in "gcc g++" "clang-14 clang++-14"; do
        read -r c cxx <<<"$compilers"
        ! command -v "$c" >/dev/null || check "$c" c c11 "$(basename "$header")"
        ! command -v "$cxx" >/dev/null || check "$cxx" c++ c++17 "$(basename "$header")"
    done
done
echo "$checked compilations"
[ $checked -gt 0 ] && exit $status
exit 1
