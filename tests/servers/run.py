#!/usr/bin/env python3
"""What make test-servers calls: the differential lists and dialogues against servers of other versions.

    run.py --packages VENV --record FOLDER [--only TEXT] [--tests TEXT...]

Each server that is found below VENV runs as the nodes of a cluster behind Portico and as the standalone beside it
(SANDBOX_REDIS_SERVER). What its COMMAND lists is compared with the record in FOLDER, and written there with --write.
The support matrix is printed at the end; the exit code is 1 if a test failed that is not in FOLDER/known-failures.txt.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

# Names of the programs in the packages, and of one in PATH.
PROGRAMS = ("redis-server", "valkey-server")


def programs(packages):
    """Every server below a folder that runs here, by what it says that it is."""
    found = {}
    for name in PROGRAMS:
        for path in sorted(packages.glob(f"lib/python*/site-packages/**/{name}")):
            told = subprocess.run([path, "--version"], capture_output=True, text=True)
            version = re.search(r"^(Redis|Valkey) server v=(\S+)", told.stdout)
            if version:
                found[f"{version[1]} {version[2]}"] = path
            else:
                print(f"{path} does not run here: {told.stderr.strip()[:100]}")
    return found


def run(path, tests):
    """Runs the oracle tests with one server; returns the names of those that passed and that failed."""
    command = ["cargo", "nextest", "run", "--workspace", "--test", "oracle", "--no-fail-fast", *tests]
    env = os.environ | {"SANDBOX_REDIS_SERVER": str(path), "NEXTEST_COLOR": "never"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    results = {"PASS": set(), "FAIL": set()}
    for line in process.stdout:
        told = re.match(r"\s+(PASS|FAIL|TIMEOUT|SIG\w+)\b.*\s(\S+)$", line)
        if told:
            results["PASS" if told[1] == "PASS" else "FAIL"].add(told[2])
        elif not line.startswith("    Starting"):
            sys.stdout.write(line)
    process.wait()
    return results["PASS"], results["FAIL"] - results["PASS"]


def recorded(path, file, write):
    """Whether a server's COMMAND is what is recorded of it."""
    command = ["cargo", "run", "--quiet", "-p", "portico-tests", "--bin", "command-table", "--", "--redis-server", str(path), "--plain"]
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode != 0:
        return f"COMMAND cannot be read: {told.stderr.strip()[-200:]}"
    if write:
        file.write_text(told.stdout)
    if not file.exists() or file.read_text() != told.stdout:
        return f"COMMAND is not what {file} says (--write records it)"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--only", default="", help="servers whose name and version hold this text")
    parser.add_argument("--write", action="store_true", help="record what COMMAND lists")
    parser.add_argument("--tests", nargs="*", default=["differential::", "dialogues::"])
    options = parser.parse_args()
    known = {line for line in (options.record / "known-failures.txt").read_text().splitlines() if line[:1] not in ("", "#")}
    rows, bad = [], []
    for server, path in programs(options.packages).items():
        if options.only.lower() not in server.lower():
            continue
        print(f"== {server} ({path})", flush=True)
        name = server.lower().replace(" ", "-")
        trouble = recorded(path, options.record / f"{name}.tsv", options.write)
        if trouble:
            bad.append(f"{server}: {trouble}")
        passed, failed = run(path, options.tests)
        series = name.rsplit(".", 1)[0]
        fresh = {test for test in failed if f"{series} {test}" not in known}
        bad.extend(f"{server}: {test}" for test in sorted(fresh))
        rows.append(f"| {server} | {len(passed)} of {len(passed) + len(failed)} |")
    print("\n| server | differential lists and dialogues |\n|---|---|")
    print("\n".join(rows))
    print("\n".join(["", *bad]))
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
