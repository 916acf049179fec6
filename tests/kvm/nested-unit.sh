#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# nested-unit.sh KNOWN PROGRAM...: runs programs of the library's unit tests, in the nested machine
# (nested.sh). What fails and is not in KNOWN (nested-known.txt, as PROGRAM.TEST; the whole PROGRAM
# is not run if that is listed) fails this. Exit status: 0 or 1.
known=$1
shift
tab=$(printf '\t')
bad=0
for program; do
    name=${program##*/}
    if reason=$(grep "^-$name$tab" "$known"); then
        echo "$name: not run: ${reason#*"$tab"}"
        continue
    fi
    CK_TIMEOUT_MULTIPLIER=4 CK_TAP_LOG_FILE_NAME=/tmp/$name.tap timeout 300 "$program" >"/tmp/$name.out" 2>&1
    status=$?
    total=$(sed -n 's/^1\.\.//p' "/tmp/$name.tap" 2>/dev/null)
    if [ -z "$total" ] && [ $status != 77 ]; then
        echo "$name: FAILED: status $status without a result"
        tail -n 5 "/tmp/$name.out"
        bad=1
        continue
    fi
    # not ok N - FILE:CASE:TEST: text
    sed -n 's/^not ok [0-9]* - //p' "/tmp/$name.tap" >"/tmp/$name.failed"
    while read -r line; do
        rest=${line#*:*:}
        if reason=$(grep "^$name\.${rest%%:*}$tab" "$known"); then
            echo "$name.${rest%%:*}: known host defect: ${reason#*"$tab"}"
        else
            echo "$name.${rest%%:*}: FAILED: $line"
            bad=1
        fi
    done <"/tmp/$name.failed"
    grep "^$name\." "$known" | while IFS=$tab read -r test reason; do
        grep -q ":${test#*.}:" "/tmp/$name.failed" ||
            echo "$test: pass: although it is said that $reason"
    done
    echo "$name: ${total:-no} tests, $(wc -l <"/tmp/$name.failed") failed"
done
exit $bad
