# SPDX-License-Identifier: BSD-2-Clause
"""Boots a guest in vmm-run and checks what it prints and how it ends.

usage: boot_test.py CASE [VMM-RUN-OPTION...]

Environment: VMM_RUN and VMM_GUEST_DIR (the programs under test, set by ctest), VMM_GUESTS (cache of
downloaded images). Exit status 77: the images cannot be had here; the reason is printed.
"""
import os
import re
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import direct  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))
GUESTS = os.environ.get("VMM_GUESTS", os.path.join(ROOT, "guests"))
BUILT = os.environ.get("VMM_GUEST_DIR", os.path.join(ROOT, "build/examples/guest"))
VMM_RUN = os.environ.get("VMM_RUN", os.path.join(ROOT, "build/examples/vmm-run"))
SKIP = 77

# What a guest prints that works fully, or in short.
WORK = {
    "full": [r"guest: md5 7f614da9329cd3aebf59b91aadc30bf0", r"guest: forked 300\b"],
    "short": [r"guest: md5 b5cfa9d6c8febd618f91ac2843d50a1c", r"guest: forked 40\b"],
}
for printed in WORK.values():
    printed[:0] = [r"guest: 1 of 1 processors"]
    printed += [r"guest: sum 2001000", r"guest: slept", r"guest: pipes work", r"guest: done"]
# What a kernel says when something is wrong with the machine under it.
TROUBLE = [r"Kernel panic", r"BUG:", r"Oops", r"Call Trace", r"soft lockup", r"rcu_\w+ self-detected",
           r"unchecked MSR", r"general protection fault", r"invalid opcode", r"segfault",
           r"APIC error", r"do_IRQ: .* No irq handler", r"timer doesn't work", r"WARNING: CPU",
           r"check: .*: FAILED"]


def linux(name, test, expect, **options):
    case = dict(fetch=[name, "busybox"], kernel=os.path.join(GUESTS, name, "vmlinuz"), init=True,
                append="console=ttyS0 loglevel=6 panic=-1 vmm.test=" + test, timeout=600,
                args=["--no-reboot"], status=0,
                expect=[r"guest: init of Linux version \S+"] + expect)
    case.update(options)
    return case


# A 32-bit kernel and userland: the 32-bit entry, the system calls by INT 80H and SYSENTER.
def linux32(flavour, work, **options):
    return linux("i386", work, WORK[work],
                 fetch=["i386"], kernel=os.path.join(GUESTS, "i386/vmlinuz-" + flavour),
                 busybox="i386/busybox", **options)


# The checks of tests/boot/user, which pass on real hardware.
def user(name, *args, **options):
    options.setdefault("append", "console=ttyS0 loglevel=4 panic=-1 vmm.test=user vsyscall=xonly")
    return linux(name, "user", [r"user: all passed", r"guest: done"], backend="bt", user=True,
                 # What the checks do to themselves, the kernel may say.
                 may=[r"segfault", r"general protection fault", r"invalid opcode"],
                 args=["--no-reboot", *args], **options)


# User code is executed directly: so many entries at least, or the case has shown nothing.
def directly(case, entries):
    return dict(case, args=case["args"] + ["--direct"], backend="bt",
                counts={"direct entries": entries})


def repo_guest(name, cpus=1, args=(), append="auto", **options):
    return dict(kernel=os.path.join(BUILT, name), timeout=200, status=0, append=append, **options,
                args=["--memory", "64M", "--no-reboot", "--cpus", str(cpus), *args],
                expect=[r"libvmm guest: 64-bit mode", r"processors: %d of %d" % (cpus, cpus),
                        r"self check: passed", r"powering off"])


CASES = {
    "guest-pvh": repo_guest("guest.elf", backend="interp"),
    "guest-multiboot": repo_guest("guest-multiboot.elf"),
    "guest-smp": repo_guest("guest.elf", cpus=4, backend="interp"),
    # The same command line on another engine prints the same.
    "guest-kvm": repo_guest("guest.elf", append="auto brief", backend="kvm",
                            compare="interp"),
    "guest-kvm-multiboot": repo_guest("guest-multiboot.elf", append="auto brief", backend="kvm",
                            compare="interp"),
    "guest-kvm-smp": repo_guest("guest.elf", cpus=2, append="auto brief", backend="kvm",
                            compare="interp"),
    "guest-bt": repo_guest("guest.elf", append="auto brief", backend="bt", compare="interp"),
    # In lock step with the software CPU.
    "guest-bt-check": repo_guest("guest.elf", append="auto brief", args=["--check"], backend="bt"),
    "guest-bt-check-smp": repo_guest("guest.elf", cpus=2, args=["--check"], backend="bt"),
    "guest-bt-smp": repo_guest("guest.elf", cpus=4, backend="bt"),
    # Prints, computes, forks, sleeps and powers off.
    "cloud": linux("cloud", "full", WORK["full"], backend="interp"),
    "cloud-kvm": linux("cloud", "short", WORK["short"], backend="kvm"),
    "cloud-kvm-full": linux("cloud", "full", WORK["full"], backend="kvm"),
    "cloud-bt": linux("cloud", "full", WORK["full"], backend="bt"),
    "cloud-bt-check": linux("cloud", "boot", [r"guest: done"], backend="bt",
                            args=["--no-reboot", "--check", "--code-cache", "1M"]),
    "cloud-bt-smp": linux("cloud", "smp",
                          [r"guest: 2 of 2 processors", r"guest: counted 2000 and 2000",
                           r"guest: done"],
                          args=["--no-reboot", "--cpus", "2"], backend="bt"),
    "user-bt": user("cloud", "--no-direct"),
    "user-bt-smp": user("cloud", "--no-direct", "--cpus", "2"),
    "user-direct": directly(user("cloud"), 1000),
    "user-direct-smp": directly(user("cloud", "--cpus", "2"), 1000),
    # All of it, at once.
    "user-direct-hot": directly(user("cloud", "--hot", "--cpus", "2"), 20000),
    "cloud-smp": linux("cloud", "smp",
                       [r"guest: 2 of 2 processors", r"guest: counted 2000 and 2000",
                        r"guest: done"],
                       args=["--no-reboot", "--cpus", "2"], backend="interp"),
    "cloud-kvm-smp": linux("cloud", "smp",
                           [r"guest: 2 of 2 processors", r"guest: counted 2000 and 2000",
                            r"guest: done"],
                           args=["--no-reboot", "--cpus", "2"], backend="kvm"),
    "cloud-reboot": linux("cloud", "reboot", [r"guest: rebooting"], message="guest reset"),
    "cloud-big": linux("cloud", "boot", [r"guest: done"],
                       args=["--no-reboot", "--memory", "5G"]),
    "cloud-input": linux("cloud", "input", [r"guest: type", r"guest: read <Hello, guest!>",
                                            r"guest: done"],
                         answer=(r"guest: type", b"Hello, guest!\n")),
    "generic": linux("generic", "boot", [r"guest: done"]),
    "rt": linux("rt", "boot", [r"guest: done"]),
    # Page tables of two levels, and of three.
    "linux32": linux32("686", "short", backend="interp"),
    "linux32-full": linux32("686", "full", backend="interp"),
    "linux32-pae": linux32("686-pae", "short", backend="interp"),
    "linux32-pae-full": linux32("686-pae", "full", backend="interp"),
    "linux32-bt": linux32("686-pae", "full", backend="bt"),
    # Starts itself, then rejects the file that should be the kernel of domain 0 and reboots.
    "xen": dict(fetch=["xen", "memtest"], kernel=os.path.join(GUESTS, "xen/xen"),
                append="console=com1 com1=115200,8n1 loglvl=all",
                args=["--no-reboot", "--memory", "256M", "--cpus", "2", "--initrd",
                      os.path.join(GUESTS, "memtest/memtest32.bin")],
                timeout=200, status=0, message="guest reset",
                expect=[r"\(XEN\) Xen version", r"\(XEN\) Brought up 2 CPUs",
                        r"Could not construct domain 0"]),
    # Finds no disk and waits: ended when it says so. Without graphics (says fw_cfg) it prints on the
    # serial port.
    "seabios": dict(fetch=["seabios"], kernel=os.path.join(GUESTS, "seabios/bios-256k.bin"),
                    args=["--format", "firmware", "--memory", "32M"], timeout=100, status=1,
                    expect=[r"SeaBIOS \(version", r"No bootable device"], stop=True),
    "seabios-kvm": dict(fetch=["seabios"], kernel=os.path.join(GUESTS, "seabios/bios-256k.bin"),
                        args=["--format", "firmware", "--memory", "32M"], timeout=300, status=1,
                        expect=[r"SeaBIOS \(version", r"No bootable device"], stop=True,
                        backend="kvm"),
    # Ends in its shell, where somebody types the command to reset.
    "ovmf": dict(fetch=["ovmf"], kernel=os.path.join(GUESTS, "ovmf/OVMF.fd"),
                 args=["--format", "firmware", "--no-reboot"], timeout=300, status=0,
                 expect=[r"UEFI Interactive Shell", r"Shell>"],
                 answer=(r"Shell>", b"reset\r"), message="guest reset"),
    # Runs for ever: ended when its first tests are under way.
    "memtest64": dict(fetch=["memtest"], kernel=os.path.join(GUESTS, "memtest/memtest64.bin"),
                      append="console=ttyS0,115200", args=["--memory", "32M"], timeout=300, status=1,
                      # The first tests may be over before their names are drawn.
                      expect=[r"Memtest86\+ v\d", r"Testing", r"Moving inversions"],
                      stop=True),
}
CASES["guest-direct"] = directly(CASES["guest-bt"], 0)
CASES["guest-direct-smp"] = directly(CASES["guest-bt-smp"], 0)
CASES["cloud-direct"] = directly(CASES["cloud-bt"], 100)
CASES["cloud-direct-smp"] = directly(CASES["cloud-bt-smp"], 10)
CASES["cloud-direct-hot"] = directly(CASES["cloud-bt"], 10000)
CASES["cloud-direct-hot"]["args"] += ["--hot"]
CASES["linux32-direct"] = directly(CASES["linux32-bt"], 0)
CASES["memtest32"] = dict(CASES["memtest64"],
                          kernel=os.path.join(GUESTS, "memtest/memtest32.bin"))


def skip(reason):
    print("skipped: " + reason)
    sys.exit(SKIP)


def fetch(names):
    result = subprocess.run([os.path.join(HERE, "fetch.sh"), *names], stderr=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, text=True)
    if result.returncode == 75:
        skip(result.stderr.strip())
    if result.returncode != 0:
        sys.exit("fetch.sh failed: " + result.stderr)


def need_backend(case):
    """Skips unless the engine of the case can run here."""
    if "backend" not in case:
        return
    lines = subprocess.run([VMM_RUN, "--list-backends"], stdout=subprocess.PIPE, text=True,
                           check=False).stdout.splitlines()
    for line in lines:
        name, state, reason = (line.split(None, 2) + ["", ""])[:3]
        if name != case["backend"]:
            continue
        if state in ("available", "degraded"):
            return
        skip("%s is %s: %s" % (name, state, reason))
    skip("this build has no backend " + case["backend"])


def build_user(directory):
    program = os.path.join(directory, "user")
    sources = [os.path.join("user", name) for name in sorted(os.listdir(os.path.join(HERE, "user")))
               if name.endswith(".c")]
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-fno-pie", "-no-pie",
                    "-mno-red-zone", "-pthread", "-o", program, *sources], cwd=HERE, check=True)
    return program


def build_initramfs(case):
    file = tempfile.NamedTemporaryFile(prefix="vmm-initramfs-", suffix=".cpio")
    with tempfile.TemporaryDirectory(prefix="vmm-user-") as directory:
        programs = [build_user(directory)] if case.get("user") else []
        subprocess.run([os.path.join(HERE, "mkinitramfs.sh"),
                        os.path.join(GUESTS, case.get("busybox", "busybox/busybox")),
                        os.path.join(HERE, "init-test"), file.name, *programs], check=True)
    return file


class Boot:
    """One run of vmm-run: its output is printed as it comes, and searched."""

    def __init__(self, case, initrd, extra):
        command = [VMM_RUN, "--kernel", case["kernel"], "--stats", *case["args"], *extra]
        if "backend" in case:
            command += ["--backend", case["backend"]]
            if case["backend"] == "bt" and "--direct" not in case["args"]:
                command += ["--no-direct"] # what is translated is to be tested
        if "append" in case:
            command += ["--append", case["append"]]
        if initrd is not None:
            command += ["--initrd", initrd.name]
        print("+ " + " ".join(command), flush=True)
        self.case = case
        self.output = ""
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors)
        self.timed_out = False

    def on_timeout(self):
        self.timed_out = True
        self.process.kill()

    def on_output(self):
        answer = self.case.get("answer")
        if answer and re.search(answer[0], self.output):
            self.process.stdin.write(answer[1])
            self.process.stdin.flush()
            self.case = dict(self.case, answer=None)
        if self.case.get("stop") and not self.missing():
            self.process.terminate()  # once: at its end it does not handle signals any more
            self.case = dict(self.case, stop=False)

    def missing(self):
        """Expected texts that are not there in this order."""
        at = 0
        for position, pattern in enumerate(self.case["expect"]):
            match = re.compile(pattern).search(self.output, at)
            if not match:
                return self.case["expect"][position:]
            at = match.end()
        return []

    def run(self):
        """Returns what was wrong, an empty list if nothing."""
        timer = threading.Timer(self.case["timeout"], self.on_timeout)
        timer.start()
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                break
            text = data.decode("utf-8", "replace").replace("\r", "")
            sys.stdout.write(text)
            sys.stdout.flush()
            self.output += text
            self.on_output()
        status = self.process.wait()
        timer.cancel()
        self.errors.seek(0)
        errors = self.errors.read()
        print("\n" + errors)
        return self.judge(status, errors)

    def judge(self, status, errors):
        wrong = ["not seen: " + pattern for pattern in self.missing()]
        for pattern in TROUBLE:
            if pattern in self.case.get("may", []):
                continue
            match = re.search(pattern + ".*", self.output)
            if match:
                wrong.append("trouble: " + match.group(0))
        if self.timed_out:
            wrong.append("still running after %d s" % self.case["timeout"])
        elif status != self.case["status"]:
            wrong.append("exit status %d, not %d" % (status, self.case["status"]))
        if self.case.get("message", "") not in errors:
            wrong.append("no message '%s'" % self.case["message"])
        for name, least in self.case.get("counts", {}).items():
            match = re.search("^" + name + r" +(\d+)$", errors, re.MULTILINE)
            if not match or int(match.group(1)) < least:
                wrong.append("%s: %s, not %d" % (name, match and match.group(1), least))
        return wrong


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in CASES:
        sys.exit("usage: boot_test.py CASE [VMM-RUN-OPTION...]\ncases: " + " ".join(CASES))
    case = CASES[sys.argv[1]]
    need_backend(case)
    if "--direct" in case["args"] and direct.why_not():
        skip(direct.why_not())
    if "fetch" in case:
        fetch(case["fetch"])
    initrd = build_initramfs(case) if case.get("init") else None
    boot = Boot(case, initrd, sys.argv[2:])
    wrong = boot.run()
    if "compare" in case:
        other = Boot(dict(case, backend=case["compare"]), initrd, sys.argv[2:])
        wrong += other.run()
        if boot.output != other.output:
            wrong.append("%s and %s print different things" % (case["backend"], case["compare"]))
    for line in wrong:
        print("FAILED: " + line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
