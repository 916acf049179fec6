#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs the Debian packages named as arguments that are missing; says what to do if it cannot.
set -u
missing=()
for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

explain() {
    echo "$*" >&2
    echo "These Debian packages are missing; install them and try again:" >&2
    echo "    apt-get install ${missing[*]}" >&2
    exit 1
}

command -v apt-get >/dev/null || explain "There is no apt-get here."
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || explain "Installing packages needs root, and there is no sudo."
    as_root=(sudo)
fi
echo "Installing: ${missing[*]}" >&2
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
    -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}")
"${install[@]}" >&2 && exit 0
# No package lists yet, or old ones that name files which are gone.
"${as_root[@]}" apt-get -q update >&2 || explain "apt-get update failed."
"${install[@]}" >&2 || explain "apt-get install failed."
