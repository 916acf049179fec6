# SPDX-License-Identifier: BSD-2-Clause
"""Runs programs of Debian packages in a guest, and on the host: both must print the same.

usage: programs_test.py [--backend bt] [--cpus N] [--long] [--only NAME,...] [--no-native]

gcc compiles and its programs run; Python computes and tests itself; OpenSSL's code paths for each
processor agree; what LuaJIT compiles does what it interprets; stress-ng checks its own work. The scripts are in tests/boot/programs. Natively they
run in a chroot of the same files, where that is allowed; otherwise they only check themselves.

Environment: VMM_RUN, VMM_GUESTS as for boot_test.py. Exit status 77: not possible here.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "programs")
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))
sys.dont_write_bytecode = True
import engines  # noqa: E402

# Quick arguments, and those of --long.
CASES = {
    "gcc": ("lz sha", "sort hash lz vm tree text json sha regex crc bigint edit"),
    "python": ("test_struct test_sort",
               " ".join("test_" + name for name in (
                   "grammar long int float complex math cmath fractions decimal struct re json "
                   "hashlib zlib bz2 string unicode bytes sort bisect heapq dict set list tuple "
                   "deque array generators exceptions random statistics itertools functools "
                   "textwrap base64 binascii csv pickle").split())),
    "openssl": ("100 none :0 0x7ffafbff:0",
                "2000 none :~0xd8230000 :0 ~0x1000000000000000:0 0x7ffafbff:0"),
    "luajit": ("5", "200"),
    "stress": ("1", "50"),
}


def command(name, arguments):
    return "/bin/sh /bench/check.sh /bench/%s.sh %s" % (name, arguments)


def build_tree(directory):
    """What the packages hold, with the scripts and the programs' sources beside them."""
    engines.fetch("cloud", "busybox", "programs")
    os.makedirs(os.path.join(directory, "bench"))
    for folder in (SCRIPTS, engines.PROGRAMS):
        for name in os.listdir(folder):
            if name.endswith((".c", ".h", ".sh", ".py", ".lua")):
                shutil.copy(os.path.join(folder, name), os.path.join(directory, "bench"))
    serve = os.path.join(directory, "bench/serve")
    subprocess.run(["cc", "-std=gnu11", "-O2", "-static", "-o", serve, serve + ".c"], check=True)
    busybox = os.path.join(engines.GUESTS, "busybox/busybox")
    base, scripts = (os.path.join(directory, name) for name in ("base.cpio", "scripts.cpio"))
    subprocess.run([os.path.join(HERE, "mkinitramfs.sh"), busybox, serve, base], check=True)
    names = ["bench"] + sorted("bench/" + n for n in os.listdir(os.path.join(directory, "bench")))
    with open(scripts, "wb") as out:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=directory,
                       input="\n".join(names).encode(), stdout=out, check=True)
    return [base, scripts, os.path.join(engines.GUESTS, "programs/root.cpio")]


def start_native(directory, archives):
    """The same files in a chroot; without the rights for it, in a user namespace."""
    tree = os.path.join(directory, "tree")
    os.makedirs(tree)
    for archive in archives:
        with open(archive, "rb") as file:
            subprocess.run(["cpio", "-idmu", "--quiet"], cwd=tree, stdin=file, check=True)
    script = ("mount --rbind /dev dev && mount --rbind /proc proc && mount --rbind /sys sys && "
              "exec chroot . /bench/serve")
    user = [] if os.geteuid() == 0 else ["-r"]
    return engines.Session("native", ["unshare", "-m", *user, "sh", "-c", script], cwd=tree)


def compare(name, line, guest, native, timeout, wrong):
    result = guest.run(line, timeout)
    text = "%s: %.2f s in the guest, %.2f s of CPU time, hash %s" % (
        name, result["time"], result["cpu"], result["hash"])
    if native is not None:
        expected = native.run(line, timeout)
        text += "; %.2f s on the host" % expected["time"]
        if result["hash"] != expected["hash"]:
            wrong.append("%s prints other things than on the host:\n%s---\n%s"
                         % (name, guest.seen, native.seen))
    print(text, flush=True)


def run(args, directory):
    wrong = []
    archives = build_tree(directory)
    native = None
    if not args.no_native:
        try:
            native = start_native(directory, archives)
        except (OSError, engines.Failure) as failure:
            print("no comparison with the host: %s" % str(failure).strip().splitlines()[-1])
    engines.MEMORY = "1G"
    guest = engines.start(args.backend, directory, os.path.join(engines.GUESTS, "cloud/vmlinuz"),
                          ",".join(archives), args.cpus)
    print("init after %.2f s" % guest.ready["wall"], flush=True)
    for name, (quick, long) in CASES.items():
        if args.only and name not in args.only:
            continue
        try:
            compare(name, command(name, long if args.long else quick), guest, native,
                    3000 if args.long else 300, wrong)
        except engines.Failure as failure:
            wrong.append(str(failure))
            if guest.process.poll() is not None:
                break
    guest.close()
    if native is not None:
        native.close()
    return wrong


def main():
    parser = argparse.ArgumentParser(description="programs of Debian in a guest and on the host")
    parser.add_argument("--backend", default="bt")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="minutes instead of seconds")
    parser.add_argument("--only", default="", help="of " + ", ".join(CASES))
    parser.add_argument("--no-native", action="store_true")
    args = parser.parse_args()
    args.only = [name for name in args.only.split(",") if name]
    reason = engines.available(args.backend)
    if reason:
        print("skipped: " + reason)
        return 77
    with tempfile.TemporaryDirectory(prefix="vmm-programs-") as directory:
        try:
            wrong = run(args, directory)
        except engines.Missing as missing:
            print("skipped: %s" % missing)
            return 77
        except engines.Failure as failure:
            wrong = [str(failure)]
    for line in wrong:
        print("FAILED: " + line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
