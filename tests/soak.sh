#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Long runs of what CI runs briefly: other seeds of the differential suite, of the tests against the
# host's CPU and of the fuzz targets, and repeated boots. For the nights, not for CI.
#
#   tests/soak.sh [MINUTES] [BUILD-DIRECTORY]
#   tests/soak.sh bt [MINUTES] [BUILD-DIRECTORY]: mixed work in a guest with two processors on the
#   translator, compared with the host's results, and the monitor's memory watched
#
# Each round takes new seeds; what fails is printed with the command that repeats it. Exit status: 0
# if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ "${1:-}" = bt ]; then
    build=${3:-build}
    VMM_RUN=$build/examples/vmm-run exec python3 tests/boot/soak_test.py "${2:-60}" --backend bt
fi
end=$((SECONDS + ${1:-60} * 60))
build=${2:-build}
[ -x "$build/tests/diff/diff" ] || { echo "soak.sh: no tests in $build; run tests/run.sh first" >&2; exit 1; }
bad=0

try() {
    "$@" >"$build/soak.log" 2>&1
    case $? in
    0 | 77) ;;
    *)
        tail -n 40 "$build/soak.log"
        echo "FAILED: $*"
        bad=$((bad + 1))
        ;;
    esac
}

round=0
while [ $SECONDS -lt $end ]; do
    seed=$((RANDOM * 32768 * 32768 + RANDOM * 32768 + RANDOM))
    for options in "" "--code32" "--insns 1" "--insns 1 --code32"; do
        # shellcheck disable=SC2086
        try "$build/tests/diff/diff" --seed $seed --count 20000 $options
    done
    for target in "$build"/tests/fuzz/run_fuzz_*; do
        try "$target" --runs 3000 --seed $seed
    done
    for test in vec x87 xsave; do
        try env VMM_TEST_SEED=$seed "$build/tests/test_$test"
    done
    for case in cloud-kvm-full linux32-full linux32-pae-full; do
        try env VMM_RUN="$build/examples/vmm-run" VMM_GUEST_DIR="$build/examples/guest" \
            python3 tests/boot/boot_test.py $case
    done
    try ctest --test-dir "$build" -R 'boot.cloud-smp|boot.guest-smp|unit.(smp|hostile|vcpu|timer)'
    round=$((round + 1))
    echo "round $round (seed $seed): $bad failures so far"
done
exit $((bad > 0))
