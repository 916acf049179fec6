#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs a program, which must succeed and print exactly what is in a file.
#   check-output.sh EXPECTED PROGRAM [ARGUMENT...]
set -u
expected=$1
shift
output=$("$@")
status=$?
echo "$output"
[ $status = 0 ] || { echo "exit status $status" >&2; exit 1; }
diff "$expected" <(echo "$output") >&2 || { echo "unexpected output" >&2; exit 1; }
