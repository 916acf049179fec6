#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# LuaJIT: machine code that is written, executed, patched and thrown away. luajit.sh ROUNDS
set -e
luajit /bench/work.lua "$1"
