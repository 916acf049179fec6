# SPDX-License-Identifier: BSD-2-Clause
"""What is measured: the programs of the benchmark with their sizes, and the limits for the results."""
from collections import namedtuple

# A command of tests/bench/programs; SIZE is its last argument (0.1 s to 0.5 s on a host of 2023).
Item = namedtuple("Item", "name group command size")

GROUPS = {
    "integer": "integer user code",
    "vector": "SIMD, cryptography, floating point",
    "shell": "shell and processes",
    "kernel": "system calls, faults, switches",
    "code": "changing code",
    "parallel": "parallel job",
}


def _item(group, command, size, name=None):
    return Item(name or command.replace("./", "").replace(" ", "-"), group, command, size)


ITEMS = [
    _item("integer", "./sort", 1000000),
    _item("integer", "./hash", 700000),
    _item("integer", "./lz", 6000),
    _item("integer", "./deflate", 3000),
    _item("integer", "./vm", 2500000),
    _item("integer", "./tree", 200000),
    _item("integer", "./text", 200),
    _item("integer", "./json", 25000),
    _item("integer", "./sha", 20000),
    _item("integer", "./regex", 4000),
    _item("integer", "./crc", 120000),
    _item("integer", "./bigint", 30000),
    _item("integer", "./edit", 8000),
    _item("vector", "./matmul sse2", 300),
    _item("vector", "./matmul avx2", 200),
    _item("vector", "./matmul avx512", 200),
    _item("vector", "./crypto sha", 250000),
    _item("vector", "./crypto aes", 500000),
    _item("vector", "./crypto clmul", 2500000),
    _item("vector", "./float nbody", 2000000),
    _item("vector", "./float mandelbrot", 1500),
    _item("vector", "./float spectral", 4000),
    _item("vector", "./float x87", 10000000),
    _item("vector", "./memory copy", 1000000),
    _item("vector", "./memory set", 1000000),
    _item("vector", "./memory length", 2000000),
    _item("vector", "./memory compare", 2000000),
    _item("vector", "./memory vector", 160000),
    _item("shell", "./busybox sh ./add.sh", 200000, "shell-add"),
    _item("shell", "./busybox sh ./fork.sh", 300, "shell-fork-exec"),
    _item("shell", "./kernel spawn", 300, "fork-exec"),
    _item("shell", "./kernel fork", 1000, "fork"),
    _item("kernel", "./kernel syscall", 2000000, "null-syscall"),
    _item("kernel", "./kernel fault", 50000, "page-fault"),
    _item("kernel", "./kernel switch", 40000, "context-switch"),
    _item("kernel", "./kernel signal", 80000, "signal-on-fault"),
    _item("kernel", "./kernel raise", 80000, "signal"),
    _item("kernel", "./kernel map", 40000, "mmap-munmap"),
    _item("kernel", "./kernel file", 200000, "file-4k"),
    _item("code", "./code patch", 200000, "patch-and-call"),
    _item("code", "./code jit", 40000, "jit"),
    _item("parallel", "./parallel", 24000, "parallel"),
]

# What is promised: text, items (a group's name stands for all of it), against which engine, least
# and goal. Against native smaller is better, against TCG larger.
Limit = namedtuple("Limit", "text items against least goal")
LIMITS = [
    Limit("integer user code, geometric mean", ["integer"], "native", 2.5, 1.8),
    Limit("SIMD, cryptography, floating point, geometric mean", ["vector"], "native", 1.5, 1.15),
    Limit("shell loop of 200,000 additions", ["shell-add"], "native", 3, 1.8),
    Limit("300 fork and exec", ["fork-exec"], "native", 3, 2),
    Limit("300 fork and exec of a shell", ["shell-fork-exec"], "native", 3, 2),
    Limit("cloud kernel to init", ["boot"], "tcg", 2, 4),
    Limit("null system call", ["null-syscall"], "tcg", 2, 5),
    Limit("page fault", ["page-fault"], "tcg", 2, 5),
    Limit("context switch", ["context-switch"], "tcg", 2, 5),
]
