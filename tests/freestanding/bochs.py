#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bochs.py ROM MODEL EXPECT: runs examples/type1 in Bochs with a CPU model. EXPECT is `vmx` (all of
its TAP passes), or the reason why the backend cannot run there. Exit status 77: Bochs is not here."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

rom, model, expect = sys.argv[1:4]
vga = next((f for f in ("/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/vgabios/vgabios.bin")
            if os.path.exists(f)), None)
if not shutil.which("bochs-bin") or not vga or not os.path.exists("/usr/lib/x86_64-linux-gnu/bochs"
                                                                  "/plugins/libbx_term_gui.so"):
    print("bochs, bochs-term or a VGA BIOS is not installed")
    sys.exit(77)

CONFIG = """config_interface: textconfig
display_library: term
cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest=128, host=128
romimage: file={rom}
vgaromimage: file={vga}
vga: extension=none, update_freq=1, realtime=0
clock: sync=none, time0=946681200
ata0: enabled=0
ata1: enabled=0
com1: enabled=1, mode=file, dev={dir}/serial
port_e9_hack: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
log: {dir}/log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""

with tempfile.TemporaryDirectory() as directory:
    for name, text in (("rc", CONFIG.format(model=model, rom=rom, vga=vga, dir=directory)),
                       ("commands", "sba 3000000000\nc\nr\nq\n")):
        with open(f"{directory}/{name}", "w") as f:
            f.write(text)
    with open(f"{directory}/out", "wb") as out:
        bochs = subprocess.Popen(
            ["bochs-bin", "-q", "-f", f"{directory}/rc", "-rc", f"{directory}/commands"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(os.environ, TERM="xterm"))
        try:
            status = bochs.wait(110)
        except subprocess.TimeoutExpired:
            bochs.kill()  # it ignores SIGTERM
            status = bochs.wait()
    serial, log = (open(f"{directory}/{f}", errors="replace").read()
                   if os.path.exists(f"{directory}/{f}") else "" for f in ("serial", "log"))

print(serial)
passed = re.findall(r"^ok (\d+)", serial, re.M)
plan = re.search(r"^1\.\.(\d+)\s+# done, 0 failed", serial, re.M)
good = status == 0 and plan and int(plan[1]) == len(passed) and "not ok" not in serial
good = good and (len(passed) > 10 if expect == "vmx" else f"# vmx: {expect}" in serial)
if not good:
    print(f"status {status}")
    print("\n".join(line for line in log.splitlines() if "e[" in line or "p[" in line)[-4000:])
sys.exit(0 if good else 1)
