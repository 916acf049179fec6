# SPDX-License-Identifier: BSD-2-Clause
"""Where the benchmark's programs run: on the host, in vmm-run, in QEMU. One protocol for all (serve.c)."""
import os
import re
import select
import shutil
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BOOT = os.path.join(ROOT, "tests/boot")
PROGRAMS = os.path.join(HERE, "programs")
GUESTS = os.environ.get("VMM_GUESTS", os.path.join(ROOT, "guests"))
VMM_RUN = os.environ.get("VMM_RUN", os.path.join(ROOT, "build/examples/vmm-run"))
QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
MEMORY = "512M"
UNSUPPORTED = 77


CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A guest or a program that does not do what it should."""


class Missing(Exception):
    """Something that this machine does not have."""


def fetch(*names):
    result = subprocess.run([os.path.join(BOOT, "fetch.sh"), *names], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise Missing(result.stderr.strip())


def compile_programs(directory):
    """Builds the programs that are older than their source; zlib's only where zlib is."""
    header = os.path.join(PROGRAMS, "bench.h")
    for name in sorted(os.listdir(PROGRAMS)):
        source = os.path.join(PROGRAMS, name)
        if name.endswith(".sh"):
            shutil.copy(source, directory)
        if not name.endswith(".c"):
            continue
        program = os.path.join(directory, name[:-2])
        newest = max(os.path.getmtime(source), os.path.getmtime(header))
        if os.path.exists(program) and os.path.getmtime(program) > newest:
            continue
        libraries = ["-lz"] if name == "deflate.c" else ["-lm"]
        result = subprocess.run(["cc", "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-o",
                                 program, source, *libraries],
                                stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            if name != "deflate.c":
                raise Failure("cannot compile %s:\n%s" % (name, result.stderr))
            print("deflate: no static zlib here, left out")


def prepare(directory):
    """Programs and initramfs in the directory; returns the paths of kernel and initramfs."""
    fetch("cloud", "busybox")
    work = os.path.join(directory, "bench")
    os.makedirs(work, exist_ok=True)
    compile_programs(work)
    busybox = os.path.join(GUESTS, "busybox/busybox")
    shutil.copy(busybox, work)
    initrd = os.path.join(directory, "initramfs.cpio")
    subprocess.run([os.path.join(BOOT, "mkinitramfs.sh"), busybox, os.path.join(work, "serve"),
                    initrd], check=True)
    names = ["bench"] + sorted("bench/" + name for name in os.listdir(work))
    programs = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=directory,
                              input="\n".join(names).encode(), stdout=subprocess.PIPE, check=True)
    with open(initrd, "ab") as file:
        file.write(programs.stdout)
    return os.path.join(GUESTS, "cloud/vmlinuz"), initrd


def cpu_clock(pid):
    """The clock of a process with all its threads, dead ones too: clock_getcpuclockid(3)."""
    return (~pid << 3) | 2


def stat_fields(pid):
    """/proc/PID/stat behind the name: the state is number 0."""
    with open("/proc/%s/stat" % pid, encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def descendants(pid):
    """The children of a process, and theirs, as long as nobody has waited for them."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            children.setdefault(int(stat_fields(name)[1]), []).append(int(name))
        except OSError:
            pass  # ended meanwhile
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def waited_for(pid):
    """CPU time of the children that the process has waited for, theirs included."""
    fields = stat_fields(pid)
    return (int(fields[13]) + int(fields[14])) * CLOCK_TICK


def tree_cpu_time(pid):
    """Of a process and all that it has started."""
    while True:
        gone = waited_for(pid)
        total = time.clock_gettime(cpu_clock(pid)) + gone
        try:
            for child in descendants(pid):
                total += time.clock_gettime(cpu_clock(child)) + waited_for(child)
        except OSError:
            continue  # one has ended: its time is elsewhere now
        if waited_for(pid) == gone:
            return total


class Session:
    """A running engine that takes commands."""

    def __init__(self, engine, command, cwd=None, cpus=None, timeout=300):
        self.engine = engine
        self.text = ""
        self.seen = ""  # what came before the last answer
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.start = time.monotonic()
        pin = None if cpus is None else (lambda: os.sched_setaffinity(0, cpus))
        self.process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, preexec_fn=pin)
        try:
            self.wait_for(r"@ready cpus=(\d+)", timeout)
            self.ready = dict(wall=time.monotonic() - self.start, cpu=self.cpu_time())
        except Failure:
            self.close()
            raise

    def cpu_time(self):
        return tree_cpu_time(self.process.pid)

    def wait_for(self, pattern, timeout):
        end = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.text)
            if match:
                before = self.seen = self.text[:match.start()]
                self.text = self.text[match.end():]
                panic = re.search(r"(Kernel panic|BUG:|Oops|segfault|WARNING: CPU).*", before)
                if panic:
                    raise Failure("%s: %s" % (self.engine, panic.group(0)))
                return match
            left = end - time.monotonic()
            output = self.process.stdout.fileno()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                raise Failure("%s: no answer in %d s\n%s" % (self.engine, timeout, self.tail()))
            data = os.read(output, 65536)
            if not data:
                raise Failure("%s: ended with status %s\n%s"
                              % (self.engine, self.process.wait(), self.tail()))
            self.text += data.decode("utf-8", "replace").replace("\r", "")

    def tail(self):
        self.errors.seek(0)
        return self.text[-2000:] + self.errors.read()[-2000:]

    def run(self, command, timeout):
        """One program: times in seconds, hash; None if the processor lacks something."""
        cpu, wall = self.cpu_time(), time.monotonic()
        self.process.stdin.write((command + "\n").encode())
        self.process.stdin.flush()
        match = self.wait_for(r"@end \S+ status=(\d+) ns=(\d+) cpu_ns=(\d+) bytes=(\d+) "
                              r"hash=(\w+)\n", timeout)
        wall, cpu = time.monotonic() - wall, self.cpu_time() - cpu
        status, ns, cpu_ns, size = (int(match.group(i)) for i in range(1, 5))
        if status == UNSUPPORTED:
            return None
        if status != 0 or size == 0:
            raise Failure("%s: %s: exit status %d\n%s"
                          % (self.engine, command, status, self.seen[-3000:] + self.tail()))
        return dict(time=ns / 1e9, wall=wall, hash=match.group(5),
                    cpu=cpu_ns / 1e9 if self.engine == "native" else cpu)

    def close(self):
        try:
            self.process.stdin.write(b"quit\n")
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def available(engine):
    """Why the engine cannot be measured here, or None."""
    if engine == "native":
        return None
    if engine == "tcg":
        return None if shutil.which(QEMU) else QEMU + " is not installed"
    lines = subprocess.run([VMM_RUN, "--list-backends"], stdout=subprocess.PIPE, text=True,
                           check=False).stdout.splitlines()
    for line in lines:
        name, state, reason = (line.split(None, 2) + ["", ""])[:3]
        if name == engine.partition("-")[0]:
            return None if state in ("available", "degraded") else state + ": " + reason
    return "this build has no backend " + engine


def start(engine, directory, kernel, initrd, cpus=None):
    """A guest with one processor, or `cpus`; natively all processors, or that many. What follows a
    backend's name is an option of vmm-run: bt-no-direct is bt with --no-direct."""
    append = "console=ttyS0 quiet panic=-1"
    if engine == "native":
        mine = sorted(os.sched_getaffinity(0))
        return Session(engine, [os.path.join(directory, "bench/serve")],
                       cwd=os.path.join(directory, "bench"), cpus=cpus and mine[:cpus])
    if engine == "tcg":
        return Session(engine, [QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY,
                                "-smp", str(cpus or 1), "-nic", "none", "-display", "none", "-monitor",
                                "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
                                "-initrd", initrd, "-append", append])
    backend, _, option = engine.partition("-")
    return Session(engine, [VMM_RUN, "--backend", backend, *(["--" + option] if option else []),
                            "--memory", MEMORY, "--cpus", str(cpus or 1),
                            "--no-reboot", "--kernel", kernel, "--initrd", initrd, "--append",
                            append])
