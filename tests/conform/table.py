#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes what the conformance list and the snippets gave into docs/backends.md, or checks it.

table.py --build DIR [--logs DIR] [--check] [DOCUMENT]

Results come from the logs that the tests have left (DIR/conform.interp.tap ...) if those are newer
than the programs; else the programs are run. --check compares instead of writing: the cases and
their promises always, results only of backends that run here and whose probe finds the same host.
"""
import argparse
import os
import re
import subprocess
import sys

BEGIN, END = "<!-- conformance:begin -->", "<!-- conformance:end -->"
# Column, program's arguments, name of the log.
COLUMNS = [
    ("`interp`", ["--backend", "interp"], "interp"),
    ("`bt`", ["--backend", "bt"], "bt"),
    ("`kvm`", ["--backend", "kvm"], "kvm"),
    ("`kvm` in QEMU", None, "kvm-nested"),  # only what the test kvm.nested-... has left
    ("`vmx` in Bochs, EPT", None, "vmx"),  # what freestanding.conform.ept ... have left
    ("`vmx` in Bochs, shadow paging", None, "vmx-shadow"),
]
LISTS = [("conform", "Conformance", "conform"), ("guest", "Snippets", "snippets")]


def program(build, folder, name):
    return os.path.join(build, "tests", folder, name)


def listed(path):
    """[(case, what it promises)] in the list's order."""
    out = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout
    return [tuple(line.split("\t", 1)) for line in out.splitlines()]


def parse(tap):
    """(probe's text, {case: result}) of one backend; None for a skipped one."""
    host, results = None, {}
    for line in tap.splitlines():
        if line.startswith("# skipped "):
            return None
        if host is None and line.startswith("# "):
            host = line[2:].split(": ", 1)[1]
        m = re.match(r"(not )?ok \d+ - \S+ (\S+)(?: # (SKIP not offered|TODO host defect): (.*))?$", line)
        if m and m[3] == "SKIP not offered":
            results[m[2]] = "not offered: " + m[4]
        elif m and m[3]:
            results[m[2]] = "host defect: " + m[4]
        elif m:
            results[m[2]] = "FAILED" if m[1] else "pass"
    return (host, results) if results else None


def results_of(path, args, log, known):
    """What the program gives for a backend: from its log if that is newer, else by running it."""
    if args is None and not (log and os.path.exists(log)):
        return None
    if args is not None and not (log and os.path.exists(log) and os.path.getmtime(log) > os.path.getmtime(path)):
        extra = ["--known", known] if "--trust" in args else []
        run = subprocess.run([path, *args, *extra, "--format", "tap"], capture_output=True, text=True)
        return parse(run.stdout)
    with open(log, encoding="utf-8") as f:
        return parse(f.read())


def host_kind(text):
    """The probe's text without what is measured."""
    return re.sub(r"[\d.]+ M?", "N", text or "")


def collect(args):
    """{program: (cases, {column: (host, results)})}"""
    known = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trust-known.txt")
    data = {}
    for folder, _, name in LISTS:
        path = program(args.build, folder, name)
        columns = {}
        for column, options, short in COLUMNS:
            log = os.path.join(args.logs, f"{name}.{short}.tap") if args.logs else None
            columns[column] = results_of(path, options, log, known)
        data[name] = (listed(path), columns)
    return data


# ---- the document ----


def read_rows(text):
    """{case: [cells]} of the tables of cases in the document, and {column: host}."""
    rows, hosts = {}, {}
    for line in text.splitlines():
        m = re.match(r"\| ([a-z_]+\.[^| ]+) \| (.*) \|$", line)
        if m:
            rows[m[1]] = [c.strip() for c in m[2].split("|")]
        m = re.match(r"- (`[^:]*): (.*)$", line)
        if m:
            hosts[m[1]] = m[2]
    return rows, hosts


def merge(data, rows, hosts):
    """Columns that cannot run here keep what the document has of them."""
    for cases, columns in data.values():
        for i, (column, _, _) in enumerate(COLUMNS):
            if columns[column]:
                hosts[column] = columns[column][0]
                continue
            old = {case: rows[case][i + 1] for case, _ in cases
                   if case in rows and len(rows[case]) > i + 1 and rows[case][i + 1]}
            columns[column] = (hosts.get(column), old)


def summary(cases, columns, used):
    areas = {}
    for case, _ in cases:
        areas.setdefault(case.split(".")[0], []).append(case)
    yield "| area | " + " | ".join(used) + " |"
    yield "|---" * (len(used) + 1) + "|"
    for area, names in areas.items():
        cells = []
        for column in used:
            got = [columns[column][1].get(n, "") for n in names]
            parts = [(sum(r == "pass" for r in got), "passed"),
                     (sum(r == "FAILED" for r in got), "FAILED"),
                     (sum(r.startswith("host defect") for r in got), "host defects"),
                     (sum(r.startswith("not offered") for r in got), "not offered")]
            cells.append(", ".join(f"{n} {what}" for n, what in parts if n) or "-")
        yield f"| {area} | " + " | ".join(cells) + " |"


def not_offered(data, used):
    """Why, and of which cases, for each column."""
    for column in used:
        reasons = {}
        for cases, columns in data.values():
            for case, _ in cases:
                result = columns[column][1].get(case, "")
                if ": " in result:
                    reasons.setdefault(result, []).append(case)
        for reason, cases in reasons.items():
            kind, what = reason.split(": ", 1)
            names = ", ".join(cases[:6]) + (f" and {len(cases) - 6} more" if len(cases) > 6 else "")
            yield f"| {column} | {kind}: {what} | {names} |"


def generate(data, hosts):
    used = [c for c, _, _ in COLUMNS if any(columns[c][1] for _, columns in data.values())]
    lines = [BEGIN, "<!-- Written by tests/conform/table.py; do not edit. -->", ""]
    lines += ["The hosts of these results, as the probes describe them:", ""]
    lines += [f"- {c}: {hosts[c]}" for c in used if hosts.get(c)] + [""]
    for _, title, name in LISTS:
        cases, columns = data[name]
        lines += [f"### {title}", "", *summary(cases, columns, used), ""]
    lines += ["### What is not offered", "", "| backend | why | cases |", "|---|---|---|",
              *not_offered(data, used), ""]
    for _, title, name in LISTS:
        cases, columns = data[name]
        lines += ["<details>", f"<summary>{title}: all {len(cases)} cases</summary>", "",
                  "| case | promise | " + " | ".join(used) + " |", "|---" * (len(used) + 2) + "|"]
        for case, promise in cases:
            cells = " | ".join(columns[c][1].get(case, "") for c in used)
            lines.append(f"| {case} | {promise.replace('|', '/')} | {cells} |")
        lines += ["", "</details>", ""]
    return "\n".join(lines + [END])


def check(data, rows, hosts):
    """Differences between the document and what is here."""
    compared = 0
    names = {case for cases, _ in data.values() for case, _ in cases}
    for case in sorted(rows.keys() - names):
        yield f"{case} is in the document, but no case any more"
    for cases, columns in data.values():
        for case, promise in cases:
            if case not in rows:
                yield f"{case} is missing"
            elif rows[case][0] != promise.replace("|", "/"):
                yield f"{case}: another promise"
        for i, (column, options, _) in enumerate(COLUMNS):
            if options is None:
                continue  # some of its defects come and go
            if not columns[column] or host_kind(columns[column][0]) != host_kind(hosts.get(column)):
                continue
            for case, result in columns[column][1].items():
                found = rows.get(case, [])[i + 1:i + 2]
                compared += 1
                if found and found[0] != result:
                    yield f"{case}, {column}: '{found[0]}' in the document, '{result}' here"
    print(f"{len(names)} cases, {compared} results compared")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--logs")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("document", nargs="?", default="docs/backends.md")
    args = parser.parse_args()
    with open(args.document, encoding="utf-8") as f:
        text = f.read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{args.document} has no part between {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    part, after = rest.split(END, 1)
    rows, hosts = read_rows(part)
    data = collect(args)
    if args.check:
        wrong = list(check(data, rows, hosts))
        for line in wrong[:40]:
            print(line)
        if wrong:
            sys.exit(f"{args.document} is out of date: tests/conform/table.py --build DIR writes it anew")
        return
    merge(data, rows, hosts)
    with open(args.document, "w", encoding="utf-8") as f:
        f.write(before + generate(data, hosts) + after)


if __name__ == "__main__":
    main()
