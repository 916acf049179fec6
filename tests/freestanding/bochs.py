#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bochs.py [options] ROM MODEL EXPECT [ARGUMENT...]: runs a ROM in Bochs with a CPU model.

The ROM's output is TAP. EXPECT is `vmx` (all of it passes, or is not offered), or the reason why the
backend cannot run there. ARGUMENTs are those of the test program in the ROM. When the machine stops
in a case, that case has failed, and another machine goes on behind it.
Exit status 77: Bochs is not here."""
import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

CONFIG = """config_interface: textconfig
display_library: term
cpu: model={model}, count={cpus}, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={memory}
romimage: file={rom}
vgaromimage: file={vga}
vga: extension=none, update_freq=1, realtime=0
clock: sync=none, time0=946681200
{disk}
ata1: enabled=0
com1: enabled=1, mode=file, dev={dir}/serial
port_e9_hack: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
log: {dir}/log
panic: action=fatal
error: action={errors}
info: action=ignore
debug: action=ignore
"""
NOTHING = "1..0 # SKIP the CPU has none of what is hidden"
COMMAND, COMMAND_END = 0xE00, 0xFE0  # in the last 4 KiB of a ROM


def find_vga():
    return next((f for f in ("/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/vgabios/vgabios.bin")
                 if os.path.exists(f)), None)


def missing():
    """Why Bochs cannot run here, or None."""
    plugin = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so"
    if shutil.which("bochs-bin") and find_vga() and os.path.exists(plugin):
        return None
    return "bochs, bochs-term or a VGA BIOS is not installed"


def read(path):
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as f:
        return f.read()


def with_command(rom, command, path):
    """A copy of the ROM with a command line in it."""
    with open(rom, "rb") as f:
        image = bytearray(f.read())
    text = command.encode() + b"\0"
    assert len(text) <= COMMAND_END - COMMAND, "the command line is too long"
    at = len(image) - 4096 + COMMAND
    image[at:at + len(text)] = text
    with open(path, "wb") as f:
        f.write(image)


class Machine:
    """One run of Bochs: status (None: it had to be killed), serial, log."""

    def __init__(self, rom, options, command=None, watch=None):
        with tempfile.TemporaryDirectory() as directory:
            self.run(directory, rom, options, command, watch)

    def run(self, directory, rom, o, command, watch):
        if command is not None:
            with_command(rom, command, f"{directory}/rom")
            rom = f"{directory}/rom"
        disk = "ata0: enabled=0"
        if o.disk:
            disk = ("ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n"
                    f"ata0-master: type=disk, path={o.disk}, mode=flat, translation=none")
        config = CONFIG.format(model=o.model, cpus=o.cpus, memory=o.memory, rom=rom, vga=find_vga(),
                               dir=directory, disk=disk, errors="ignore" if o.quiet else "report")
        for name, text in (("rc", config), ("commands", f"sba {o.ticks}\nc\nr\nq\n")):
            with open(f"{directory}/{name}", "w") as f:
                f.write(text)
        with open(f"{directory}/out", "wb") as out:
            bochs = subprocess.Popen(
                ["bochs-bin", "-q", "-f", f"{directory}/rc", "-rc", f"{directory}/commands"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(os.environ, TERM="xterm"))
            begin = moved = time.monotonic()
            size = 0
            while bochs.poll() is None and time.monotonic() < min(begin + o.timeout, moved + o.stall):
                time.sleep(0.05)
                now = os.path.getsize(f"{directory}/serial") if os.path.exists(f"{directory}/serial") else 0
                if now != size:
                    size, moved = now, time.monotonic()
                    if watch and watch(read(f"{directory}/serial")):
                        break
            self.status = bochs.poll()
            if self.status is None:
                bochs.kill()  # it ignores SIGTERM
                bochs.wait()
        self.serial = read(f"{directory}/serial").replace("\r", "")
        self.log, self.out = read(f"{directory}/log"), read(f"{directory}/out")

    def why(self):
        """What Bochs says of its end."""
        lines = [line for line in self.log.splitlines()
                 if ("e[" in line or "p[" in line) and "VMEXIT: EPT violation" not in line]
        return f"status {self.status}\n" + "\n".join(lines)[-3000:]


def run_all(o):
    """The whole TAP; machines that have stopped are followed by others."""
    host = [f"cpus={o.cpus}"] if o.arguments else []
    host += ["hide=" + o.hide] if o.hide else []
    host += ["lock"] if o.lock else []
    host += ["kick=nmi"] if o.nmi else []
    text, resume, begin = "", 0, time.monotonic()
    while True:
        more = [f"resume={resume}"] if resume else []
        command = " ".join([*host, *more, "--", *o.arguments]) if o.arguments else None
        if o.disk:
            command = " ".join(o.arguments)  # the kernel's
        machine = Machine(o.rom, o, command)
        text += machine.serial
        if machine.status == 0 and "\n# done, " in machine.serial:
            return text, None
        last = re.findall(r"^# case (\d+)", machine.serial, re.M)
        print(f"the machine has stopped in case {last[-1] if last else '-'}\n{machine.serial[-600:]}\n"
              f"{machine.why()}")
        if not last or int(last[-1]) <= resume or time.monotonic() - begin > o.timeout * 5:
            return text, "the machine has stopped"
        text = re.sub(r"[^\n]*\Z", "", text)  # a line that it has not finished
        resume = int(last[-1])


def known_defects(o):
    """{case: (defect of Bochs, whether the case passes alone)} for a machine, of known.txt."""
    known = {}
    machine = o.model + (f" without {o.hide}" if o.hide else "")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "known.txt")) as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                case, models, defect = line.rstrip("\n").split("\t")
                if re.search(models, machine):
                    known[case] = (defect.replace("[alone] ", ""), defect.startswith("[alone] "))
    return known


def excuse(o, text):
    """Failures that are known defects of Bochs are marked so; those of cases that pass on a machine
    of their own are no failures."""
    known = known_defects(o)

    def replace(m):
        defect, alone = known.get(m[3], (None, False))
        if alone:
            again, _ = run_all(argparse.Namespace(**{**vars(o), "arguments": [*o.arguments, m[3]]}))
            if re.search(rf"^ok \d+ - \S+ {re.escape(m[3])}$", again, re.M):
                return f"ok {m[1]} - {m[2]} {m[3]}\n# alone; {defect}\n"
        elif defect:
            return f"not ok {m[1]} - {m[2]} {m[3]} # TODO host defect: {defect}\n"
        return m[0]

    return re.sub(r"^not ok (\d+) - (\S+) (\S+)\n(?:# .*\n)?", replace, text, flags=re.M)


def judge(o, text):
    """None, or what is wrong with it."""
    bad = re.findall(r"^(?:not ok(?!.*# TODO)|Bail out!).*(?:\n# .*)?", text, re.M)
    passed = len(re.findall(r"^ok \d+(?!.*# SKIP)", text, re.M))
    if o.hide and NOTHING in text:
        return None
    plan = re.search(r"^1\.\.(\d+)", text, re.M)
    if bad:
        return "\n".join(bad)
    if not plan:
        return "there is no plan"
    for want in o.want:
        if not re.search(want, text):
            return f"there is no '{want}' in the output"
    if o.expect != "vmx":
        return None if re.search(rf"^# (?:skipped )?vmx: .*{re.escape(o.expect)}", text, re.M) \
            and passed <= 2 else "the backend does not say why it cannot run"
    return None if o.want or passed > 10 else f"{passed} have passed"


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=128, help="MiB")
    parser.add_argument("--timeout", type=int, default=110, help="seconds for a machine")
    parser.add_argument("--stall", type=int, default=60, help="seconds without any output")
    parser.add_argument("--ticks", type=int, default=100000000000, help="instructions for a machine")
    parser.add_argument("--hide", help="features of VMX, with commas between them")
    parser.add_argument("--lock", action="store_true", help="the firmware has locked VMX off")
    parser.add_argument("--nmi", action="store_true", help="CPUs are kicked by NMIs")
    parser.add_argument("--disk", help="an image of mkdisk.py; ARGUMENTs are the kernel's")
    parser.add_argument("--want", action="append", default=[], help="an expression for the output")
    parser.add_argument("--quiet", action="store_true", help="no list of all EPT violations")
    parser.add_argument("--log", help="gets the TAP")
    parser.add_argument("rom")
    parser.add_argument("model")
    parser.add_argument("expect")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args()


def main():
    o = parse_options()
    why = missing()
    if why:
        print(why)
        sys.exit(77)
    text, wrong = run_all(o)
    if not wrong:
        text = excuse(o, text)
    if o.log:
        with open(o.log, "w") as f:
            f.write("\n".join(line for line in text.splitlines() if not line.startswith("# case")) + "\n")
    wrong = wrong or judge(o, text)
    if wrong or not o.arguments:
        print(re.sub(r"^# case .*\n", "", text, flags=re.M))
    counts = [len(re.findall(p, text, re.M)) for p in (r"^ok (?!.*# SKIP)", r"^not ok(?!.*# TODO)", r"# SKIP", r"# TODO")]
    time_used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if NOTHING in text:
        print("the CPU has none of it")
    else:
        print("%u passed, %u failed, %u not offered, %u defects of Bochs" % tuple(counts), end="")
        print("; %.0f s of CPU time" % (time_used.ru_utime + time_used.ru_stime))
    if wrong:
        print(wrong)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
