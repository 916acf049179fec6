#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""mkdisk.py DISK FILE...: a disk whose files rom.S loads as Multiboot modules."""
import os
import struct
import sys

files = [open(name, "rb").read() for name in sys.argv[2:]]
assert 0 < len(files) < 15
head, body = struct.pack("<4sI", b"vmmD", len(files)), b""
for name, data in zip(sys.argv[2:], files):
    head += struct.pack("<II24s", 1 + len(body) // 512, len(data), os.path.basename(name).encode()[:23])
    body += data + bytes(-len(data) % 512)
image = head.ljust(512, b"\0") + body
with open(sys.argv[1], "wb") as f:
    f.write(image + bytes(-len(image) % 516096))  # whole cylinders of 16 heads and 63 sectors
