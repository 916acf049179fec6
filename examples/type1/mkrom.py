#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""mkrom.py IMAGE STUB ROM: a ROM for the reset vector: the image, padding, the stub of 4 KiB."""
import struct
import sys

image = open(sys.argv[1], "rb").read()
stub = bytearray(open(sys.argv[2], "rb").read())
assert len(stub) == 4096
size = 65536
while size < len(image) + len(stub) or size in (0x20000, 0x40000):  # those are flash chips in Bochs
    size += 65536
assert size <= 2 << 20, "Bochs has room for 2 MiB"
struct.pack_into("<II", stub, 0xFE0, (1 << 32) - size, len(image))
open(sys.argv[3], "wb").write(image.ljust(size - len(stub), b"\xff") + stub)
