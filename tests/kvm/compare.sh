#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# compare.sh KVM-DEFECTS KVM-PROBE: both find the same of the host's KVM.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

"$1" >"$dir/seen"
status=$?
cat "$dir/seen"
[ $status = 0 ] || exit $status
"$2" >"$dir/said"
status=$?
[ $status = 0 ] || { cat "$dir/said"; echo "the probe finds no usable KVM"; exit 1; }
tail -n 1 "$dir/said"

cut -d ' ' -f 1,2 "$dir/seen" >"$dir/want"
grep -v '^#' "$dir/said" | diff "$dir/want" - && echo "the probe says the same"
