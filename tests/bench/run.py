# SPDX-License-Identifier: BSD-2-Clause
"""Runs the same programs natively, in libvmm's software engines and in QEMU, and compares.

usage: run.py [--engines native,bt,tcg] [--only NAME,...] [--rounds N] [--scale X] [--json FILE]

In each round every engine boots the same kernel and initramfs; then the engines take turns program
by program. Times are the guest's own, host CPU times those of all threads of the program that runs
the guest, and of its child processes. bt-no-direct is bt with vmm-run's --no-direct. A ratio is the median
of the rounds' ratios. The output of a program must be the same everywhere: exit status 1 if it is
not, or if a guest fails. Status 77: no guest images here.

Environment: VMM_RUN (default build/examples/vmm-run), VMM_GUESTS (cache of images), QEMU.
"""
import argparse
import json
import math
import os
import statistics
import sys

import engines
from items import GROUPS, ITEMS, LIMITS

# A guest's clock may not be faster than the host's while a program runs, and not slower by that much
# (the host's includes the way to the guest and back).
CLOCK_SHARE, CLOCK_SECONDS = 0.1, 0.2


class Bench:
    def __init__(self, args, directory):
        self.args = args
        self.directory = directory
        self.kernel, self.initrd = engines.prepare(directory)
        self.results = {}  # (engine, item name) -> one result a round; None: unsupported
        self.errors = []
        self.notes = []

    def wanted(self, item):
        return not self.args.only or item.name in self.args.only or item.group in self.args.only

    def share(self, engine, item):
        """Part of the work for engines that would take minutes; natively that is run, too."""
        if engine.startswith("interp"):
            return self.args.interp_scale
        return self.args.tcg_scale if engine == "tcg" and item.group == "vector" else 1

    def size(self, engine, item):
        return max(1, int(item.size * self.args.scale * self.share(engine, item)))

    def start(self, engine, cpus=None):
        try:
            return engines.start(engine, self.directory, self.kernel, self.initrd, cpus)
        except engines.Failure as failure:
            self.errors.append("boot: %s" % failure)
            return None

    def store(self, label, name, result):
        self.results.setdefault((label, name), []).append(result)

    def run(self, session, label, item, size):
        """Runs one program; a guest that fails is replaced by a fresh one (the caller's work)."""
        try:
            result = session.run("%s %d" % (item.command, size), self.args.timeout)
        except engines.Failure as failure:
            self.errors.append("%s: %s" % (item.name, failure))
            self.store(label, item.name, None)
            return False
        if result:
            result["size"] = size
        self.store(label, item.name, result)
        if result and not (1 - CLOCK_SHARE) * result["wall"] - CLOCK_SECONDS < result["time"] < \
                result["wall"] + 0.02:
            self.notes.append("%s on %s: %.3f s by the guest's clock, %.3f s by the host's"
                              % (item.name, label, result["time"], result["wall"]))
        return True

    def take_turns(self, sessions, item):
        for engine in list(sessions):
            if self.share(engine, item) != 1 and "native" in sessions:
                self.run(sessions["native"], "native for " + engine, item, self.size(engine, item))
            if not self.run(sessions[engine], engine, item, self.size(engine, item)):
                sessions[engine].close()
                del sessions[engine]
                again = self.start(engine)
                if again:
                    sessions[engine] = again

    def round(self):
        items = [item for item in ITEMS if self.wanted(item)]
        alone = [item for item in items if item.group != "parallel"]
        sessions = {}
        for engine in self.args.engines:
            session = self.start(engine)
            if session:
                sessions[engine] = session
                if engine != "native":
                    self.store(engine, "boot", dict(session.ready, time=session.ready["wall"],
                                                    hash="booted"))
        for item in alone:
            self.take_turns(sessions, item)
            print(".", end="", flush=True, file=sys.stderr)
        for session in sessions.values():
            session.close()
        for item in items:
            if item.group == "parallel":
                self.parallel(item)
        print(file=sys.stderr)

    def parallel(self, item):
        """One and two processors, in turn, with nothing beside them."""
        for engine in self.args.engines:
            for cpus in (1, 2):
                session = self.start(engine, cpus)
                if session:
                    self.run(session, "%s x%d" % (engine, cpus), item, self.size(engine, item))
                    session.close()

    def compare_hashes(self):
        by_work = {}
        for (label, name), rounds in self.results.items():
            for result in rounds:
                if result:
                    hashes = by_work.setdefault((result.get("size"), name), {})
                    hashes.setdefault(result["hash"], set()).add(label)
        for (_, name), hashes in by_work.items():
            if len(hashes) > 1:
                self.errors.append("%s: outputs differ: %s" % (name, "; ".join(
                    "%s: %s" % (key, ", ".join(sorted(labels))) for key, labels in hashes.items())))

    def ratio(self, engine, against, name, key="time"):
        """Median of the rounds; None where one of the two has not run it."""
        if against == "native" and ("native for " + engine, name) in self.results:
            against = "native for " + engine
        elif against != "native" and any(("native for " + one, name) in self.results
                                         for one in (engine, against)):
            # Different amounts of work: by way of the host.
            top, bottom = (self.ratio(one, "native", name, key) for one in (engine, against))
            return top / bottom if top and bottom else None
        pairs = zip(self.results.get((engine, name), []), self.results.get((against, name), []))
        ratios = [a[key] / b[key] for a, b in pairs if a and b and b[key] > 0]
        return statistics.median(ratios) if ratios else None

    def median(self, engine, name):
        times = [result["time"] for result in self.results.get((engine, name), []) if result]
        return statistics.median(times) if times else None

    def mean(self, engine, against, names, key="time"):
        ratios = [self.ratio(engine, against, name, key) for name in names]
        ratios = [ratio for ratio in ratios if ratio]
        return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None


def show(value, form="%.2f"):
    return "-" if value is None else form % value


def row(cells):
    print("| " + " | ".join(cells) + " |")


def print_groups(bench):
    others = [engine for engine in bench.args.engines if engine != "native"]
    peer = "tcg" in others and "bt" in others
    for group, title in GROUPS.items():
        names = [item.name for item in ITEMS if item.group == group and bench.wanted(item)]
        names = [name for name in names if any((engine, name) in bench.results
                                               for engine in bench.args.engines)]
        if not names or group == "parallel":
            continue
        head = [title, "native ms"]
        for engine in others:
            head += [engine + " ms", engine + " / native", "CPU"]
        head += ["tcg / bt"] if peer else []
        print()
        row(head)
        row(["---"] * len(head))
        for name in names:
            cells = [name, show(bench.median("native", name) and
                                bench.median("native", name) * 1e3, "%.0f")]
            for engine in others:
                time = bench.median(engine, name)
                cells += [show(time and time * 1e3, "%.0f"),
                          show(bench.ratio(engine, "native", name)),
                          show(bench.ratio(engine, "native", name, "cpu"))]
            row(cells + ([show(bench.ratio("tcg", "bt", name))] if peer else []))
        cells = ["geometric mean", ""]
        for engine in others:
            cells += ["", show(bench.mean(engine, "native", names)),
                      show(bench.mean(engine, "native", names, "cpu"))]
        row(cells + ([show(bench.mean("tcg", "bt", names))] if peer else []))


def print_boot_and_parallel(bench):
    others = [engine for engine in bench.args.engines if engine != "native"]
    if not any((engine, "boot") in bench.results for engine in others):
        return
    print()
    row(["boot to init", "wall s", "CPU s"])
    row(["---"] * 3)
    for engine in others:
        rounds = [result for result in bench.results.get((engine, "boot"), []) if result]
        if rounds:
            row([engine, show(statistics.median(r["wall"] for r in rounds)),
                 show(statistics.median(r["cpu"] for r in rounds))])
    names = [item.name for item in ITEMS if item.group == "parallel" and bench.wanted(item)]
    for name in names:
        print()
        row([name, "1 processor ms", "2 processors ms", "faster by", "CPU time of 2 / 1"])
        row(["---"] * 5)
        for engine in bench.args.engines:
            one, two = bench.median(engine + " x1", name), bench.median(engine + " x2", name)
            row([engine, show(one and one * 1e3, "%.0f"), show(two and two * 1e3, "%.0f"),
                 show(bench.ratio(engine + " x1", engine + " x2", name)),
                 show(bench.ratio(engine + " x2", engine + " x1", name, "cpu"))])


def print_limits(bench, engine):
    """What is promised of bt, beside what came out of it with these options."""
    lines = []
    for limit in LIMITS:
        names = [item.name for item in ITEMS
                 if item.group in limit.items or item.name in limit.items]
        names = names or limit.items
        slower, faster = (engine, "native") if limit.against == "native" else ("tcg", engine)
        value = bench.mean(slower, faster, names)
        cpu = bench.mean(slower, faster, names, "cpu")
        if value is not None:
            good = (lambda bound: value <= bound) if limit.against == "native" else \
                (lambda bound: value >= bound)
            verdict = "goal" if good(limit.goal) else "least" if good(limit.least) else "missed"
            lines.append([limit.text, limit.against, show(limit.least), show(limit.goal),
                          show(value), show(cpu), verdict])
    value = bench.ratio(engine + " x1", engine + " x2", "parallel")
    if value is not None:
        verdict = "goal" if value >= 1.85 else "least" if value >= 1.6 else "missed"
        lines.append(["2 processors to 1 on a parallel job", "itself", "1.60", "1.85",
                      show(value), "-", verdict])
    if lines:
        print()
        row([engine, "against", "least", "goal", "time", "CPU time", "reached"])
        row(["---"] * 7)
        for line in lines:
            row(line)


def arguments():
    parser = argparse.ArgumentParser(description="compares engines, program by program")
    parser.add_argument("--engines", default="native,bt,tcg",
                        help="of native, tcg and vmm-run's backends, with an option behind them as in "
                             "bt-no-direct, or all (adds interp)")
    parser.add_argument("--only", default="", help="names of programs or groups (see --list)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="size of the work")
    parser.add_argument("--interp-scale", type=float, default=0.1, help="the same for interp")
    parser.add_argument("--tcg-scale", type=float, default=0.1, help="for vector code in QEMU")
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one program")
    parser.add_argument("--json", help="file for all results")
    parser.add_argument("--directory", default=os.path.join(engines.ROOT, "build/bench-guest"),
                        help="where programs and initramfs are made")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    args.engines = "native,bt,interp,tcg" if args.engines == "all" else args.engines
    args.engines = args.engines.split(",")
    args.only = [name for name in args.only.split(",") if name]
    known = {item.name for item in ITEMS} | set(GROUPS) | {"boot"}
    for name in args.only:
        if name not in known:
            parser.error("unknown program '%s'; see --list" % name)
    return args


def main():
    args = arguments()
    if args.list:
        for item in ITEMS:
            print("%-18s %-10s %s %d" % item)
        return 0
    absent = {engine: engines.available(engine) for engine in args.engines}
    for engine, reason in absent.items():
        if reason:
            print("%s is left out: %s" % (engine, reason))
    args.engines = [engine for engine in args.engines if not absent[engine]]
    try:
        bench = Bench(args, args.directory)
    except engines.Missing as missing:
        print("skipped: %s" % missing)
        return 77
    for _ in range(args.rounds):
        bench.round()
    bench.compare_hashes()
    print_groups(bench)
    print_boot_and_parallel(bench)
    for engine in args.engines:
        if engine.partition("-")[0] == "bt":
            print_limits(bench, engine)
    load = os.getloadavg()[0]
    print("\nload of the host: %.2f on %d processors%s" % (load, os.cpu_count(), "" if
          load < os.cpu_count() else "; trust the CPU times, not the others"))
    for line in bench.notes:
        print("note: " + line)
    for line in bench.errors:
        print("FAILED: " + line)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"%s: %s" % key: value for key, value in bench.results.items()}, file, indent=1)
    return 1 if bench.errors or not args.engines else 0


if __name__ == "__main__":
    sys.exit(main())
