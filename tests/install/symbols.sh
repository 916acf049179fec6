#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The archive's global symbols are exactly src/exports.txt, and each of them stands in a header.
#   symbols.sh NM ARCHIVE ROOT
set -eu
export LC_ALL=C
visible=$("$1" -g --defined-only "$2" | awk 'NF == 3 { print $3 }' | sort)
exports=$(sort "$3/src/exports.txt")
[ -n "$exports" ]
diff <(echo "$exports") <(echo "$visible") >&2 || {
    echo "'<' is in src/exports.txt only, '>' in the archive only" >&2
    exit 1
}
status=0
for name in $exports; do
    cat "$3"/include/vmm/*.h | grep -qE "[ *]$name\(" || {
        echo "$name is exported, but no public header declares it" >&2
        status=1
    }
done
echo "$(echo "$exports" | wc -l) symbols"
exit $status
