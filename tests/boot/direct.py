# SPDX-License-Identifier: BSD-2-Clause
"""Whether this machine lets a process have what direct execution of user code takes."""
import ctypes
import os
import platform

PR_SET_NO_NEW_PRIVS = 38
SYS_SECCOMP = 317
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_RET_ALLOW = 0x7fff0000
AT_HWCAP2 = 26
HWCAP2_FSGSBASE = 2


class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
                ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Filter))]


def listener_errno():
    """What a child gets that installs a filter with a listener: 0 or an errno."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        program = Program(1, ctypes.pointer(Filter(6, 0, 0, SECCOMP_RET_ALLOW)))
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        result = libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER,
                              SECCOMP_FILTER_FLAG_NEW_LISTENER, ctypes.byref(program))
        os._exit(0 if result >= 0 else ctypes.get_errno())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def why_not():
    """A reason, or None if it can be done."""
    if platform.machine() != "x86_64":
        return "this is no x86-64 machine"
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    if not libc.getauxval(ctypes.c_ulong(AT_HWCAP2)) & HWCAP2_FSGSBASE:
        return "no direct execution: the kernel does not offer FSGSBASE"
    error = listener_errno()
    if error:
        return "no direct execution: seccomp filters with a listener: " + os.strerror(error)
    return None
