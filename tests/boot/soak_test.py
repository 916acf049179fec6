# SPDX-License-Identifier: BSD-2-Clause
"""Mixed work in a guest with two processors for minutes or hours; its results must be the host's, and
the monitor's memory must not grow.

usage: soak_test.py MINUTES [VMM-RUN-OPTION...]

Environment as boot_test.py. The guest's kernel is "cloud". Exit status: 0, 1, or 77 if the images
cannot be had here.
"""
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time

from boot_test import GUESTS, HERE, TROUBLE, VMM_RUN, fetch

MEMORY = 192  # MiB of the guest
ROOM = 24     # MiB that the monitor may grow by after the warm-up
BUSYBOX = os.path.join(GUESTS, "busybox/busybox")


def host_result(work):
    """What the work prints on the host."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([BUSYBOX, "sh", work], cwd=folder, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=True,
                                env=dict(os.environ, BB=BUSYBOX))
    return result.stdout


def build(work, md5, seconds, initramfs):
    with open(os.path.join(HERE, "soak-init")) as file:
        init = file.read()
    with open(work) as file:
        init = init.replace("@WORK@", file.read())
    init = init.replace("@MD5@", md5).replace("@SECONDS@", str(seconds))
    with tempfile.NamedTemporaryFile("w", prefix="vmm-soak-") as file:
        file.write(init)
        file.flush()
        subprocess.run([os.path.join(HERE, "mkinitramfs.sh"), BUSYBOX, file.name, initramfs],
                       check=True)


def resident(pid):
    """Resident memory of a process in MiB."""
    with open("/proc/%d/status" % pid) as file:
        match = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    return int(match.group(1)) / 1024 if match else 0


def watch(process, output, seconds):
    """Follows the run: (all output, resident memory after the warm-up, the most after it)."""
    text, shown = "", 0
    begin, warm, most = time.monotonic(), None, 0
    warm_up = min(seconds / 3, 600)
    while process.poll() is None:
        time.sleep(2)
        with open(output) as file:
            text = file.read()
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        passed = time.monotonic() - begin
        try:
            now = resident(process.pid)
        except OSError:
            break
        if now and passed > warm_up:
            warm = warm or now
            most = max(most, now)
        if passed > seconds * 3 + 300:
            process.kill()
            text += "\nsoak: WRONG: the guest does not end\n"
            break
    process.wait()
    with open(output) as file:
        text = file.read() + text[shown:]
    return text, warm or 0, most


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    seconds = int(float(sys.argv[1]) * 60)
    work = os.path.join(HERE, "soak-work")
    fetch(["cloud", "busybox"])
    md5 = hashlib.md5(host_result(work)).hexdigest()
    with tempfile.TemporaryDirectory(prefix="vmm-soak-") as folder:
        initramfs = os.path.join(folder, "initramfs")
        output = os.path.join(folder, "output")
        build(work, md5, seconds, initramfs)
        with open(output, "w") as file:
            process = subprocess.Popen(
                [VMM_RUN, "--kernel", os.path.join(GUESTS, "cloud/vmlinuz"), "--initrd", initramfs,
                 "--append", "console=ttyS0 loglevel=5 panic=-1", "--memory", "%dM" % MEMORY,
                 "--cpus", "2", "--no-reboot", "--stats", *sys.argv[2:]],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
            text, warm, most = watch(process, output, seconds)
    wrong = ["exit status %d" % process.returncode] if process.returncode else []
    if not re.search(r"soak: [1-9]\d* rounds, 0 wrong", text):
        wrong.append("the guest's results are wrong or missing")
    if most > warm + ROOM:
        wrong.append("resident memory grew from %.1f to %.1f MiB" % (warm, most))
    wrong += ["trouble: " + m.group(0) for m in (re.search(p + ".*", text) for p in TROUBLE) if m]
    print("\nresident memory: %.1f MiB after the warm-up, at most %.1f later" % (warm, most))
    for line in wrong:
        print("FAILED: " + line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
