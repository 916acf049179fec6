#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The archive's global symbols are exactly src/exports.txt, and these are what the headers declare,
# but for host.h, which is of the freestanding build.
# It calls nothing that a library must not: no output, no end of the process, no signal handlers, no
# processes of its own, no environment.
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
declared=$(find "$3/include/vmm" -name '*.h' ! -name host.h -exec cat {} + | sed 's|/\*.*\*/||' | grep -v '^ *#\|^ *\*' |
    grep -oE '[ *](vmm|vm|vcpu|mmio|pio)_[a-z0-9_]+\(' | tr -d ' *(' | sort -u)
for name in $declared; do
    grep -qx "$name" <<<"$exports" || {
        echo "$name is declared, but not exported" >&2
        status=1
    }
done
banned='printf|fprintf|vprintf|vfprintf|puts|putchar|fputs|fwrite|perror|stdout|stderr|write|syslog'
banned+='|exit|_exit|_Exit|abort|__assert_fail|signal|sigaction|sigprocmask|raise|kill'
banned+='|fork|vfork|execve|system|popen|pthread_atfork|atexit|getenv|setenv|setlocale'
banned+='|socket|connect|rand|srand|strtok|gets|strcpy|strcat|sprintf'
called=$("$1" -u "$2" | awk 'NF == 2 { print $2 }' | sed 's/@.*//' | grep -xE "$banned" | sort -u || true)
if [ -n "$called" ]; then
    echo "the library must not call" $called >&2
    status=1
fi
echo "$(echo "$exports" | wc -l) symbols"
exit $status
