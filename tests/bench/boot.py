# SPDX-License-Identifier: BSD-2-Clause
"""Boots Debian's cloud kernel in vmm-run and reports time and instructions.

usage: boot.py [--runs N] [--kernel cloud|generic|rt] [--work boot|full] [VMM-RUN-OPTION...]

Times are wall clock, from the start of vmm-run; instruction counts and rates are those of --stats
(per second of wall time, waiting included). Environment: VMM_RUN (default build/examples/vmm-run),
VMM_GUESTS (cache of downloaded images).
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BOOT = os.path.join(ROOT, "tests/boot")
GUESTS = os.environ.get("VMM_GUESTS", os.path.join(ROOT, "guests"))
VMM_RUN = os.environ.get("VMM_RUN", os.path.join(ROOT, "build/examples/vmm-run"))


def boot(kernel, initrd, work, options):
    """Returns (seconds to init, seconds in all, instructions)."""
    command = [VMM_RUN, "--kernel", kernel, "--initrd", initrd, "--no-reboot", "--stats",
               "--append", "console=ttyS0 quiet panic=-1 vmm.test=" + work, *options]
    start = time.monotonic()
    to_init = None
    with tempfile.TemporaryFile(mode="w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=errors, text=True, errors="replace")
        for line in process.stdout:
            if to_init is None and "guest: init of" in line:
                to_init = time.monotonic() - start
        status = process.wait()
        seconds = time.monotonic() - start
        errors.seek(0)
        text = errors.read()
    if status != 0 or to_init is None:
        sys.exit("the guest did not boot (status %d):\n%s" % (status, text))
    match = re.search(r"instructions\s+(\d+)", text)
    if not match:
        sys.exit("no instruction count in:\n" + text)
    return to_init, seconds, int(match.group(1))


def main():
    parser = argparse.ArgumentParser(description="boots Debian's kernel and reports time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kernel", default="cloud", choices=["cloud", "generic", "rt"])
    parser.add_argument("--work", default="boot", choices=["boot", "full"])
    args, options = parser.parse_known_args()
    subprocess.run([os.path.join(BOOT, "fetch.sh"), args.kernel, "busybox"], check=True,
                   stdout=subprocess.DEVNULL)
    with tempfile.NamedTemporaryFile(suffix=".cpio") as initrd:
        subprocess.run([os.path.join(BOOT, "mkinitramfs.sh"),
                        os.path.join(GUESTS, "busybox/busybox"), os.path.join(BOOT, "init-test"),
                        initrd.name], check=True)
        for run in range(args.runs):
            to_init, seconds, insns = boot(os.path.join(GUESTS, args.kernel, "vmlinuz"),
                                           initrd.name, args.work, options)
            print("run %d: init after %.1f s, %.1f s in all, %.0f M instructions, %.1f M/s"
                  % (run + 1, to_init, seconds, insns / 1e6, insns / 1e6 / seconds), flush=True)


if __name__ == "__main__":
    main()
