# SPDX-License-Identifier: BSD-2-Clause
"""Tests of vmm-run's command line, exit status, console and terminal handling.

The guests are a few bytes of real-mode code each, loaded with --flat, or the repo's own guest.
Environment: VMM_RUN and VMM_GUEST, the paths of vmm-run and of guest.elf.
"""
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest

VMM_RUN = os.environ["VMM_RUN"]
GUEST = os.environ["VMM_GUEST"]
PATIENCE = 60  # seconds; only a hang takes that long

# mov $0x604,%dx; mov $0x3400,%ax (SLP_TYP 5, SLP_EN); out %ax,%dx; 1: hlt; jmp 1b
POWEROFF = bytes.fromhex("ba0406 b80034 ef f4 ebfd")
# cli; 1: jmp 1b
SPIN = bytes.fromhex("fa ebfe")
# mov $VALUE,%al; out %al,$0xf4; 1: hlt; jmp 1b
DEBUG_EXIT = "b0{:02x} e6f4 f4 ebfd"
# lidt of six zero bytes at 0x7c08 and int3: an IDT without entries
TRIPLE_FAULT = bytes.fromhex("0f011e087c cc f4 90 000000000000")
# 1: mov $0x3fd,%dx; in; test $0x20,%al; jz 1b; mov $0x3f8,%dx; mov $'x',%al; out %al,%dx; loop 1b
# repeated %bp times, then power off
FLOOD_BLOCKS = 8
FLOOD = (bytes.fromhex("bd{:02x}00 b90000".format(FLOOD_BLOCKS)) +
         bytes.fromhex("bafd03 ec a820 74f8 baf803 b078 ee e2f0 4d 75ea") + POWEROFF)
FLOOD_BYTES = FLOOD_BLOCKS * 65536
# Echoes what arrives on COM1, polling, until 0x04 has been echoed; then powers off.
ECHO = bytes.fromhex(
    "bafa03 b007 ee"            # FIFO on and cleared
    "bafd03 ec a801 74f8"       # 1: wait for data
    "baf803 ec 88c3"            # in; mov %al,%bl
    "bafd03 ec a820 74f8"       # wait for the transmitter
    "baf803 88d8 ee"            # out
    "80fb04 75df") + POWEROFF   # cmp $4,%bl; jne 1b
# Writes '>' and stops.
PROMPT = bytes.fromhex("baf803 b03e ee f4 ebfd")


class VmmRun(unittest.TestCase):
    def setUp(self):
        self.unread = {}  # by descriptor: what read_until has read too much

    def image(self, code):
        file = tempfile.NamedTemporaryFile(prefix="vmm-run-test-")
        self.addCleanup(file.close)
        file.write(code)
        file.flush()
        return file.name

    def run_vmm(self, *args, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([VMM_RUN, *args], capture_output=True, timeout=PATIENCE, **kwargs)

    def run_flat(self, code, *args, **kwargs):
        return self.run_vmm("--flat", self.image(code), "--memory", "4M", *args, **kwargs)

    def start_flat(self, code, *args, **kwargs):
        process = subprocess.Popen([VMM_RUN, "--flat", self.image(code), "--memory", "4M", *args],
                                   **kwargs)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    # ---- command line ----

    def test_usage_errors_are_explained(self):
        for args, message in [
                ([], b"--kernel FILE is missing"),
                (["--nonsense"], b"--nonsense"),
                (["--kernel"], b"requires an argument"),
                (["--kernel", "/no/such/file"], b"/no/such/file"),
                (["--kernel", "/"], b"/"),
                (["--cpus", "0", "--kernel", "x"], b"--cpus: '0'"),
                (["--cpus", "65", "--kernel", "x"], b"--cpus: '65'"),
                (["--cpus", "two", "--kernel", "x"], b"--cpus: 'two'"),
                (["--memory", "12Q", "--kernel", "x"], b"--memory: '12Q'"),
                (["--memory", "-1M", "--kernel", "x"], b"--memory: '-1M'"),
                (["--memory", "1", "--kernel", "x"], b"--memory: 1 is not"),
                (["--memory", "99999999999999999999G", "--kernel", "x"], b"--memory: '9999"),
                (["--memory", "17179869185G", "--kernel", "x"], b"--memory: '1717"),
                (["--format", "raw", "--kernel", "x"], b"--format: 'raw'"),
                (["--flat", "x", "--format", "linux"], b"contradicts"),
                (["--flat", "x", "--kernel", "y"], b"only one of"),
                (["--initrd", "a,,b", "--kernel", "x"], b"empty file name"),
                (["--timeout", "0", "--kernel", "x"], b"--timeout: '0'"),
                (["--backend", "warp", "--kernel", GUEST], b"warp"),
                (["--direct=1", "--kernel", "x"], b"allow an argument"),
                (["--check", "--direct", "--kernel", "x"], b"not with --direct"),
                (["--direct", "--check", "--kernel", "x"], b"not with --direct"),
                (["--kernel", "x", "stray"], b"'stray'")]:
            result = self.run_vmm(*args)
            self.assertEqual((args, result.returncode), (args, 1))
            self.assertIn(message, result.stderr)
            self.assertEqual(result.stdout, b"")

    def test_help_and_version(self):
        result = self.run_vmm("--help")
        self.assertEqual(result.returncode, 0)
        for option in ["--backend", "--cpus", "--memory", "--kernel", "--initrd", "--append",
                       "--list-backends", "--stats", "--firmware", "--flat", "--no-reboot",
                       "--direct", "--no-direct"]:
            self.assertIn(option.encode(), result.stdout)
        result = self.run_vmm("--version")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, rb"^vmm-run \d+\.\d+\.\d+\n$")

    def test_list_backends_names_interp(self):
        result = self.run_vmm("--list-backends")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, rb"(?m)^interp +available +\S")

    def test_named_backend_runs(self):
        self.assertEqual(self.run_flat(POWEROFF, "--backend", "interp").returncode, 0)

    def guest_memory_files(self, *args):
        """How many memfds the process maps as memory of the guest, which prompts."""
        process = self.start_flat(PROMPT, *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        self.assertEqual(process.stdout.read(1), b">")
        with open("/proc/%d/maps" % process.pid, encoding="utf-8") as maps:
            found = sum("memfd:vmm-memory" in line for line in maps)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 1)
        process.stdout.close()
        return found

    def test_direct_is_for_bt_and_the_last_option_counts(self):
        backends = self.run_vmm("--list-backends").stdout
        if not re.search(rb"(?m)^bt +available", backends):
            self.skipTest("no bt here")
        self.assertGreater(self.guest_memory_files("--backend", "bt"), 0)
        self.assertGreater(self.guest_memory_files("--backend", "bt", "--direct"), 0)
        self.assertGreater(self.guest_memory_files("--backend", "bt", "--no-direct", "--direct"), 0)
        for args in [["--backend", "bt", "--no-direct"], ["--backend", "bt", "--direct", "--no-direct"],
                     ["--backend", "interp", "--direct"], ["--check"], ["--check", "--no-direct"]]:
            self.assertEqual((args, self.guest_memory_files(*args)), (args, 0))

    def test_an_image_of_no_known_format_is_refused(self):
        result = self.run_vmm("--kernel", self.image(b"not a kernel" * 1000))
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"vmm-run: ", result.stderr)

    # ---- exit status ----

    def test_power_off_is_status_0(self):
        result = self.run_flat(POWEROFF)
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_debug_exit_is_reported_as_qemu_does(self):
        for value in [0, 3, 0x7f, 0x80]:
            result = self.run_flat(bytes.fromhex(DEBUG_EXIT.format(value)))
            self.assertEqual(result.returncode, (value << 1 | 1) & 0xff)

    def test_triple_fault_is_status_2_with_a_register_dump(self):
        result = self.run_flat(TRIPLE_FAULT)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"triple fault", result.stderr)
        for text in [b"rax=", b"r15=", b"rip=", b"rflags=", b"cs =", b"tr =", b"gdt base=",
                     b"cr0=", b"efer=", b"[cc]"]:
            self.assertIn(text, result.stderr)

    def test_reset_with_no_reboot_is_status_0(self):
        # mov $6,%al; mov $0xcf9,%dx; out %al,%dx; 1: hlt; jmp 1b
        result = self.run_flat(bytes.fromhex("b006 baf90c ee f4 ebfd"), "--no-reboot")
        self.assertEqual(result.returncode, 0)
        self.assertIn(b"guest reset", result.stderr)

    def test_timeout_is_status_1(self):
        result = self.run_flat(SPIN, "--timeout", "1")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"time limit", result.stderr)

    def test_stats_count_instructions(self):
        result = self.run_flat(FLOOD, "--stats")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stderr, rb"(?m)^backend +\S+$")
        self.assertRegex(result.stderr, rb"(?m)^instructions +[1-9]\d{5,}$")
        self.assertRegex(result.stderr, rb"(?m)^exit [A-Z]+ +[1-9]\d*$")

    # ---- signals ----

    def test_signals_end_it_cleanly(self):
        for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
            process = self.start_flat(PROMPT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
            self.assertEqual(process.stdout.read(1), b">")
            process.send_signal(number)
            _, message = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 1)
            self.assertIn(number.name.encode(), message)

    def test_a_spinning_guest_ends_at_once(self):
        process = self.start_flat(PROMPT[:-3] + SPIN, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertEqual(process.stdout.read(1), b">")
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 1)
        process.stdout.close()

    # ---- pipes ----

    def test_output_through_a_pipe_is_complete(self):
        result = self.run_flat(FLOOD)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout, b"x" * FLOOD_BYTES)

    def test_output_to_a_file_is_complete(self):
        with tempfile.TemporaryFile() as file:
            process = self.start_flat(FLOOD, stdin=subprocess.DEVNULL, stdout=file)
            self.assertEqual(process.wait(PATIENCE), 0)
            file.seek(0)
            self.assertEqual(file.read(), b"x" * FLOOD_BYTES)

    def test_a_slow_reader_loses_nothing(self):
        process = self.start_flat(FLOOD, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        received = 0
        while True:
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            self.assertEqual(data, b"x" * len(data))
            received += len(data)
            time.sleep(0.02)
        process.stdout.close()
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertEqual(received, FLOOD_BYTES)

    def test_a_closed_reader_ends_it(self):
        process = self.start_flat(FLOOD, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        self.assertEqual(process.stdout.read(1), b"x")
        process.stdout.close()
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertIn(b"standard output", process.stderr.read())
        process.stderr.close()

    def test_input_through_a_pipe_reaches_the_guest_unchanged(self):
        data = bytes(byte for byte in range(256) if byte != 4) * 40 + b"\x04"
        result = self.run_flat(ECHO, stdin=None, input=data)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout, data)

    def test_input_from_a_file_reaches_the_guest(self):
        with open(self.image(b"hello\x04"), "rb") as file:
            result = self.run_flat(ECHO, stdin=file)
        self.assertEqual((result.returncode, result.stdout), (0, b"hello\x04"))

    def test_end_of_input_does_not_end_the_guest(self):
        self.assertEqual(self.run_flat(FLOOD, stdin=subprocess.DEVNULL).returncode, 0)

    def test_closed_descriptors_do_no_harm(self):
        command = 'exec "$0" --flat "$1" --memory 4M <&- >&- 2>&-'
        status = subprocess.call(["/bin/sh", "-c", command, VMM_RUN, self.image(POWEROFF)],
                                 timeout=PATIENCE)
        self.assertEqual(status, 0)

    # ---- terminal ----

    def start_at_terminal(self, code, *args):
        """Forks vmm-run with a terminal of its own; returns pid, master and slave."""
        image = self.image(code)
        master, slave = pty.openpty()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
                for fd in range(3):
                    os.dup2(slave, fd)
                os.closerange(3, slave + 1)
                os.execv(VMM_RUN, [VMM_RUN, "--flat", image, "--memory", "4M", *args])
            finally:
                os._exit(127)
        self.addCleanup(self.end_child, pid)
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        return pid, master, slave

    def end_child(self, pid):
        """Whatever a failed test has left."""
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass

    def read_until(self, fd, text):
        """Reads up to and including `text`; what comes after it is left for the next call."""
        seen = self.unread.pop(fd, b"")
        end = time.monotonic() + PATIENCE
        while text not in seen:
            ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
            self.assertTrue(ready, "no %r in %r" % (text, seen))
            data = os.read(fd, 4096)
            self.assertTrue(data, "no %r in %r" % (text, seen))
            seen += data
        at = seen.index(text) + len(text)
        self.unread[fd] = seen[at:]
        return seen[:at]

    def wait_for(self, pid):
        end = time.monotonic() + PATIENCE
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            self.assertLess(time.monotonic(), end, "does not end")
            time.sleep(0.01)

    def is_raw(self, slave):
        return not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_for_raw(self, slave, raw):
        end = time.monotonic() + PATIENCE
        while self.is_raw(slave) != raw:
            self.assertLess(time.monotonic(), end, "terminal mode does not change")
            time.sleep(0.01)

    def end_at_terminal(self, code, act):
        """Starts, lets `act` end it; the terminal is raw in between and restored at the end."""
        pid, master, slave = self.start_at_terminal(code)
        before = termios.tcgetattr(slave)
        self.read_until(master, b">")
        self.wait_for_raw(slave, True)
        act(pid, master)
        status = self.wait_for(pid)
        after = termios.tcgetattr(slave)
        self.assertTrue(after[3] & termios.ICANON)
        self.assertTrue(after[3] & termios.ECHO)
        if not before[3] & termios.ICANON:  # the guest was quick: compare with a fresh terminal
            other, fresh = pty.openpty()
            before = termios.tcgetattr(fresh)
            os.close(other)
            os.close(fresh)
        self.assertEqual(after[:4], before[:4])
        return status

    def test_ctrl_a_x_quits_and_restores_the_terminal(self):
        status = self.end_at_terminal(PROMPT, lambda pid, tty: os.write(tty, b"\x01x"))
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)

    def test_sigterm_restores_the_terminal(self):
        status = self.end_at_terminal(PROMPT, lambda pid, tty: os.kill(pid, signal.SIGTERM))
        self.assertEqual(os.waitstatus_to_exitcode(status), 1)

    def test_a_fatal_signal_restores_the_terminal(self):
        status = self.end_at_terminal(PROMPT, lambda pid, tty: os.kill(pid, signal.SIGABRT))
        self.assertEqual(os.waitstatus_to_exitcode(status), -signal.SIGABRT)

    def test_a_crash_restores_the_terminal(self):
        # Waits for a key, so that the terminal is seen in raw mode before.
        code = PROMPT[:-3] + bytes.fromhex("bafd03 ec a801 74f8")
        idtr = 0x7c00 + len(code) + 6
        code += bytes.fromhex("0f011e") + idtr.to_bytes(2, "little") + b"\xcc" + bytes(6)
        status = self.end_at_terminal(code, lambda pid, tty: os.write(tty, b"k"))
        self.assertEqual(os.waitstatus_to_exitcode(status), 2)

    def test_ctrl_a_a_is_ctrl_a_and_ctrl_c_is_the_guests(self):
        pid, master, slave = self.start_at_terminal(ECHO)
        self.wait_for_raw(slave, True)
        os.write(master, b"\x01a\x03!")
        self.assertIn(b"\x01\x03!", self.read_until(master, b"!"))
        os.write(master, b"\x04")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_for(pid)), 0)

    def test_ctrl_a_x_quits_when_the_guest_takes_no_input(self):
        def act(pid, tty):
            for _ in range(40):
                os.write(tty, b"0123456789" * 40)
            os.write(tty, b"\x01x")
        status = self.end_at_terminal(PROMPT, act)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)

    def test_stop_and_continue_switch_the_terminal(self):
        pid, master, slave = self.start_at_terminal(ECHO)
        self.wait_for_raw(slave, True)
        os.kill(pid, signal.SIGTSTP)
        done, status = os.waitpid(pid, os.WUNTRACED)
        self.assertTrue(done == pid and os.WIFSTOPPED(status))
        self.assertFalse(self.is_raw(slave))
        os.kill(pid, signal.SIGCONT)
        self.wait_for_raw(slave, True)
        os.write(master, b"again\x04")
        self.read_until(master, b"again")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_for(pid)), 0)

    # ---- the repo's guest ----

    def test_the_guests_shell_reboots_and_powers_off(self):
        process = subprocess.Popen([VMM_RUN, "--kernel", GUEST, "--memory", "64M"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        output = process.stdout.fileno()
        self.read_until(output, b"guest> ")
        os.write(process.stdin.fileno(), b"mem\n")
        self.assertRegex(self.read_until(output, b"guest> "), rb"6[34] MiB of RAM")
        os.write(process.stdin.fileno(), b"reboot\n")
        self.assertIn(b"libvmm guest:", self.read_until(output, b"guest> "))
        os.write(process.stdin.fileno(), b"poweroff\n")
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_commands_in_a_pipe_wait_for_the_guest(self):
        result = self.run_vmm("--kernel", GUEST, "--memory", "64M", stdin=None,
                              input=b"mem\ntime\npoweroff\n")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, rb"(?s)guest> mem.*guest> time.*"
                         rb"guest> poweroff\r\npowering off")

    def test_the_guests_crash_is_dumped(self):
        result = self.run_vmm("--kernel", GUEST, "--memory", "64M", "--cpus", "2", stdin=None,
                              input=b"cpus\ncrash\n")
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"64-bit mode", result.stderr)
        self.assertIn(b"CPU 1: ", result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
