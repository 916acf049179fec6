#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The freestanding archive needs four functions and nothing else, and shows what the headers declare.
#   link.sh NM ARCHIVE EXPORTS...
set -eu
export LC_ALL=C
# _GLOBAL_OFFSET_TABLE_ is the linker's own.
needed=$("$1" -u "$2" | awk 'NF == 2 && $2 != "_GLOBAL_OFFSET_TABLE_" { print $2 }' | sort -u | tr '\n' ' ')
if [ "$needed" != "memcmp memcpy memmove memset " ]; then
    echo "it needs: $needed" >&2
    exit 1
fi
# What reads files is not part of it.
visible=$("$1" -g --defined-only "$2" | awk 'NF == 3 { print $3 }' | sort)
exports=$(cat "${@:3}" | sort)
missing=$(comm -23 <(echo "$exports") <(echo "$visible"))
more=$(comm -13 <(echo "$exports") <(echo "$visible"))
loaders=$(grep -vE '^vmm_image_(load|free)$' <<<"$missing" || true)
if [ -n "$loaders$more" ]; then
    echo "missing: $loaders" >&2
    echo "more: $more" >&2
    exit 1
fi
echo "$(echo "$visible" | wc -l) symbols"
