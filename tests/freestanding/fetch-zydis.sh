#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fetches the source of Zydis for the freestanding build into guests/zydis (or $VMM_GUESTS/zydis),
# once. Exit status 75: it cannot be downloaded here (the reason is printed).
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${VMM_GUESTS:-$root/guests}/zydis
url=http://deb.debian.org/debian/pool/main/z/zydis/zydis_4.0.0.orig.tar.gz
sum=e990107f80c62afc1deb51de230023a1098db801b8ea6bf483e296d45459e234

unavailable() {
    echo "fetch-zydis.sh: $*" >&2
    exit 75
}

[ -f "$dir/src/Decoder.c" ] && exit 0
file=$(mktemp) || exit 1
trap 'rm -f "$file"' EXIT
python3 - "$url" "$file" <<'PYTHON' || unavailable "cannot download $url"
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], 'wb') as out:
    out.write(answer.read())
PYTHON
echo "$sum  $file" | sha256sum -c --quiet || unavailable "$url is not what it was"
mkdir -p "$dir" && tar -xzf "$file" -C "$dir" --strip-components=1
