#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# stress-ng checks its own results: stress.sh SCALE.
set -e
n=$(nproc)
stress() {
    stress-ng --verify --oomable --temp-path /tmp "$@" >stress.log 2>&1 || {
        cat stress.log >&2
        exit 1
    }
    if grep -E 'fail:|error:' stress.log >&2; then
        exit 1
    fi
    echo "${1#--} works"
}
stress --cpu "$n" --cpu-ops $((70 * $1))
stress --vm "$n" --vm-bytes 4M --vm-ops $((3000 * $1))
stress --fork "$n" --fork-ops $((100 * $1))
stress --switch "$n" --switch-ops $((2000 * $1))
stress --matrix "$n" --matrix-ops $((20 * $1))
stress --qsort "$n" --qsort-ops "$1" --qsort-size 20000
stress --atomic "$n" --atomic-ops $((10 * $1))
stress --str "$n" --str-ops $((100 * $1))
stress --memcpy "$n" --memcpy-ops "$1"
stress --sigsegv "$n" --sigsegv-ops $((500 * $1))
stress --pipe "$n" --pipe-ops $((2000 * $1))
stress --futex "$n" --futex-ops $((1000 * $1))
stress --mmap "$n" --mmap-ops $((2 * $1)) --mmap-bytes 1M
stress --longjmp "$n" --longjmp-ops $((100 * $1))
stress --fp "$n" --fp-ops $((10 * $1))
stress --vecmath "$n" --vecmath-ops $((20 * $1))
stress --crypt "$n" --crypt-ops $((5 * $1))
stress --hash "$n" --hash-ops $((2 * $1))
stress --tree "$n" --tree-ops "$1" --tree-size 5000
