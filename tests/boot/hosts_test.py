# SPDX-License-Identifier: BSD-2-Clause
"""Direct execution of user code on hosts that forbid what it takes: the guest works the same.

usage: hosts_test.py [CASE...]

In each case vmm-run --direct boots a Linux guest that checks itself (tests/boot/user). What is
refused is what the case is about; afterwards no process may be left. Environment: as for boot_test.py.
"""
import ctypes
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import boot_test  # noqa: E402
import direct  # noqa: E402

EPERM, ENOSYS = 1, 38
NUMBERS = dict(poll=7, getpid=39, clone=56, wait4=61, kill=62, fcntl=72, getppid=110,
               sigaltstack=131, prctl=157, tgkill=234, waitid=247, ppoll=271,
               prlimit64=302, seccomp=317, getrandom=318, memfd_create=319, rseq=334,
               pidfd_open=434)
LIMIT = 60  # seconds; some are enough
CROWD = 8  # processes and threads of the user; vmm-run has some
CHECKS = ["jumped", "counted", "copied"]
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def forbid(names, error):
    """A filter by which these system calls fail."""
    numbers = [NUMBERS[name] for name in names]
    code = [(0x20, 0, 0, 0)]  # A = the number
    for position, number in enumerate(numbers):
        code.append((0x15, len(numbers) - position, 0, number))
    code += [(6, 0, 0, direct.SECCOMP_RET_ALLOW), (6, 0, 0, 0x50000 | error)]
    array = (direct.Filter * len(code))(*code)
    program = direct.Program(len(code), ctypes.cast(array, ctypes.POINTER(direct.Filter)))
    libc.prctl(direct.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(direct.SYS_SECCOMP, direct.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)):
        os._exit(99)


def refused(name, used, error=EPERM):
    return dict(before=lambda: forbid(name.split("+"), error), used=used)


def limited(what, soft, used=None):
    return dict(before=lambda: resource.setrlimit(what, (soft, soft)), used=used)


def nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def crowded():
    nobody()
    resource.setrlimit(resource.RLIMIT_NPROC, (CROWD, CROWD))


# used: whether code is executed directly all the same; None: either.
CASES = {
    "free": dict(used=True),
    "clone": refused("clone", False),
    "seccomp": refused("seccomp", False),
    "seccomp-unknown": refused("seccomp", False, ENOSYS),
    "memfd_create": refused("memfd_create", False),
    "prctl": refused("prctl", False),
    "getpid": refused("getpid", False),
    "getppid": refused("getppid", False),
    "kill": refused("kill", None),
    "tgkill": refused("tgkill", None),
    "poll": refused("poll+ppoll", None),
    "wait": refused("wait4+waitid", None),
    "sigaltstack": refused("sigaltstack", None),
    "rseq": refused("rseq", None),
    "pidfd": refused("pidfd_open", None),
    "prlimit64": refused("prlimit64", None),
    "getrandom": refused("getrandom", None),
    "descriptors": limited(resource.RLIMIT_NOFILE, 24),
    "few-descriptors": limited(resource.RLIMIT_NOFILE, 16),
    "nobody": dict(before=nobody, used=True, root=True),
    "crowded": dict(before=crowded, used=None, root=True),
    "new-namespaces": dict(prefix=["unshare", "-Urpf"], used=None),
    "cpu-time": limited(resource.RLIMIT_CPU, 1000, False),
    "no-children-kept": dict(before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), used=True),
    "parent-death": dict(before=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), used=True),
}


def tree(session):
    """Processes of the session, dead ones too."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(name))
    return found


def none_left(session):
    end = time.monotonic() + 10
    while tree(session) and time.monotonic() < end:
        time.sleep(0.01)
    return not tree(session)


def command(initrd, checks, rounds=20):
    append = "console=ttyS0 loglevel=4 panic=-1 vmm.test=user vmm.rounds=%d " % rounds + " ".join(
        "vmm.only=" + name for name in checks)
    return [boot_test.VMM_RUN, "--backend", "bt", "--direct", "--no-reboot", "--stats", "--cpus", "2",
            "--timeout", str(LIMIT), "--kernel", os.path.join(boot_test.GUESTS, "cloud/vmlinuz"),
            "--initrd", initrd.name, "--append", append]


def run(name, initrd):
    """What was wrong."""
    case = CASES[name]
    begin = time.monotonic()
    process = subprocess.Popen(case.get("prefix", []) + command(initrd, CHECKS), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               errors="replace", preexec_fn=case.get("before"), start_new_session=True)
    output, errors = process.communicate()
    wrong = []
    if process.returncode != 0:
        wrong.append("exit status %d\n%s" % (process.returncode, errors[-500:]))
    if "user: all passed" not in output:
        wrong.append("not passed: " + output[-1000:])
    if not none_left(process.pid):
        wrong.append("processes are left")
    match = re.search(r"direct entries +(\d+)", errors)
    entries = int(match.group(1)) if match else 0
    if case["used"] is not None and case["used"] != (entries > 0):
        wrong.append("entered %d times" % entries)
    print("%s: %.1f s, entered %d times%s" % (name, time.monotonic() - begin, entries,
                                           "".join("\nFAILED: " + line for line in wrong)), flush=True)
    return wrong


def killed(initrd, sig):
    """Ended in the middle, from outside."""
    process = subprocess.Popen(command(initrd, ["jumped"], 100000), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    end = time.monotonic() + LIMIT
    while len(tree(process.pid)) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    started = len(tree(process.pid)) - 1
    process.send_signal(sig)
    process.wait()
    wrong = [] if started >= 2 else ["no stub has been started"]
    if not none_left(process.pid):
        wrong.append("processes are left")
    print("ended by signal %d: %d processes had been started%s" % (
        sig, started, "".join("\nFAILED: " + line for line in wrong)), flush=True)
    return wrong


def ended(initrd):
    wrong = []
    for sig in signal.SIGKILL, signal.SIGTERM, signal.SIGINT:
        wrong += killed(initrd, sig)
    return wrong


def main():
    case = boot_test.CASES["user-direct"]
    boot_test.need_backend(case)
    reason = direct.why_not()
    if reason:
        boot_test.skip(reason)
    boot_test.fetch(case["fetch"])
    initrd = boot_test.build_initramfs(case)
    os.chmod(initrd.name, 0o644)
    wrong = []
    for name in sys.argv[1:] or [*CASES, "ended"]:
        if name == "ended":
            wrong += ended(initrd)
            continue
        if CASES[name].get("root") and os.geteuid() != 0:
            print("%s: only as root" % name)
            continue
        wrong += run(name, initrd)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
