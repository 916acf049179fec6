#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The program in README.md is examples/minimal.c (which is compiled and run by other tests).
#   readme.sh ROOT
set -eu
program=$(awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' "$1/README.md")
[ -n "$program" ] || { echo "README.md shows no program" >&2; exit 1; }
diff <(echo "$program") "$1/examples/minimal.c" >&2 || {
    echo "the program in README.md differs from examples/minimal.c" >&2
    exit 1
}
