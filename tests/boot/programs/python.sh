#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Python: a script whose output is compared, and modules of Python's own tests.
set -e
python3 /bench/work.py
python3 -m test -q "$@" >tests.log 2>&1 || {
    cat tests.log >&2
    exit 1
}
grep -q 'Tests result: SUCCESS' tests.log
echo "$# modules passed"
