#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs a script; what it prints can be seen on the console too. check.sh SCRIPT ARGUMENT...
set -o pipefail
export PATH=/usr/bin:/bin TMPDIR=/tmp HOME=/tmp LC_ALL=C PYTHONDONTWRITEBYTECODE=1
cd /tmp || exit 1
sh "$@" | tee -a /proc/self/fd/2
