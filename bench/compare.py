#!/usr/bin/env python3
"""Loads several Redis endpoints in turn and prints what each request cost them.

Figures of a shared machine mean little by themselves: so the endpoints take turns, A B C, C A B, ..., and the ratio of
the first one to each other is taken within each round. What counts most is processor time a request: it says what a
core can carry, and is far steadier than throughput. The load comes from redis-benchmark (Redis 7.0 or later); processor
time is the kernel's account of all threads of an endpoint's processes, and of the nodes' behind it.

    compare.py --nodes PID,PID,PID  portico=7705  predixy=7790:PID  standalone=6379:PID:

An endpoint is NAME=PORT[:PID[,PID...][:NODE,...]], all on loopback. Without PIDs it is whoever listens at the port; the
third part names the processes of the nodes behind it where they are not those of --nodes, and may be empty.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import report
from listeners import listeners
from load import CELLS, Cell, Endpoint, LoadError, check, fill, idle_bytes, load, raise_file_limit
from report import Results

IDLE = "idle"
NAMES = [IDLE, *CELLS]
WARM_UP_REQUESTS = 3_000
DESCRIPTORS_BESIDE_CONNECTIONS = 200


class Progress:
    """Where the comparison is: one line that is overwritten, or a line each where nobody looks at a terminal."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()

    def show(self, what: str) -> None:
        before, after = ("\r\x1b[K", "") if self.terminal else ("", "\n")
        print(f"{before}.. {what}", end=after, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def order(endpoints: list[Endpoint], round_number: int) -> list[Endpoint]:
    """Another one begins each round, and every other round goes backwards: nobody always follows the same one."""
    first = round_number % max(1, len(endpoints))
    turned = endpoints[first:] + endpoints[:first]
    return turned[::-1] if round_number % 2 else turned


class Comparison:
    """Loads the endpoints cell by cell, and tells on the way."""

    def __init__(self, endpoints: list[Endpoint], rounds: int, seconds: float) -> None:
        self.endpoints, self.rounds, self.seconds = endpoints, rounds, seconds
        self.timeout = 60 + 10 * seconds
        self.descriptors = raise_file_limit()
        self.results = Results(subject=endpoints[0].name)
        self.progress = Progress()

    def run(self, cells: Iterable[str]) -> Results:
        """Idle connections come first: only a fresh process shows what they take."""
        wanted = set(cells)
        if IDLE in wanted:
            self._idle()
        loads = [cell for name, cell in CELLS.items() if name in wanted]
        if loads:
            self._fill()
        for number, cell in enumerate(loads, start=1):
            self._load(cell, f"{cell.name} ({number}/{len(loads)})")
        self.progress.clear()
        return self.results

    def _idle(self) -> None:
        for endpoint in self.endpoints:
            self.progress.show(f"idle connections: {endpoint.name}")
            with self._telling_failures(IDLE, endpoint):
                self.results.idle[endpoint.name] = idle_bytes(endpoint)
        self._print(report.IDLE_HEAD, report.idle_rows(self.results))

    def _fill(self) -> None:
        for endpoint in self.endpoints:
            self.progress.show(f"setting keys: {endpoint.name}")
            with self._telling_failures("keys", endpoint):
                fill(endpoint)

    def _load(self, cell: Cell, title: str) -> None:
        if cell.connections + DESCRIPTORS_BESIDE_CONNECTIONS > self.descriptors / 2:  # a proxy may need two each
            self._failed(cell.name, "all", LoadError(f"only {self.descriptors} open files are allowed (ulimit -Hn)"))
            return
        sizes = {}
        for endpoint in self.endpoints:
            self.progress.show(f"{title}, warming up: {endpoint.name}")
            with self._telling_failures(cell.name, endpoint):
                warm_up = load(endpoint, cell, cell.requests(WARM_UP_REQUESTS, 1), self.timeout)
                sizes[endpoint] = cell.requests(warm_up.rate, self.seconds)
        for number in range(self.rounds):
            for endpoint in order(list(sizes), number):
                self.progress.show(f"{title}, round {number + 1}/{self.rounds}: {endpoint.name}")
                with self._telling_failures(cell.name, endpoint):
                    sample = load(endpoint, cell, sizes[endpoint], self.timeout)
                    self.results.add(cell.name, endpoint.name, number, sample)
        self._print(report.COST_HEAD, report.cost_rows(self.results, cell.name))

    @contextmanager
    def _telling_failures(self, what: str, endpoint: Endpoint) -> Iterator[None]:
        """One endpoint's failure is no reason not to measure the others."""
        try:
            yield
        except LoadError as error:
            self._failed(what, endpoint.name, error)

    def _failed(self, what: str, endpoint: str, error: LoadError) -> None:
        self.progress.clear()
        print(f"Not measured: {what}, {endpoint}: {error}", flush=True)
        self.results.failures.append(f"{what}, {endpoint}: {error}")

    def _print(self, head: list[str], rows: report.Rows) -> None:
        self.progress.clear()
        if rows:
            print(report.text(head, rows) + "\n", flush=True)


def finish(results: Results, path: Path | None) -> None:
    """The ratios to the terminal, everything to the file."""
    for _, head, rows in report.sections(results)[1:]:
        print(report.text(head, rows) + "\n")
    for remark in report.remarks(results):
        print(remark)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report.markdown(results))
        print(f"Written to {path}")


def pids(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def endpoint(text: str, nodes: tuple[int, ...]) -> Endpoint:
    """Reads NAME=PORT[:PIDS[:NODES]]."""
    try:
        name, _, rest = text.partition("=")
        port, *processes = rest.split(":")
        own = pids(processes[0]) if processes else ()
        behind = pids(processes[1]) if len(processes) > 1 else nodes
        found = Endpoint(name, int(port), own or listeners(int(port)), behind)
    except ValueError as error:
        raise LoadError(f"{text!r} is not NAME=PORT[:PID,...[:NODE,...]]") from error
    if not found.pids:
        raise LoadError(f"{name}: nothing of this user listens at port {port}; name its pids: {name}={port}:PID")
    for pid in found.pids + found.nodes:
        if not Path(f"/proc/{pid}").exists():
            raise LoadError(f"{name}: there is no process {pid}")
    return found


def cells(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no cell {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def positive(kind: type) -> type:
    def read(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not more than 0")
        return value

    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every comparison can be told."""
    all_cells = f"of {', '.join(NAMES)}; all of them"
    parser.add_argument("--cells", type=cells, default=NAMES, metavar="CELL,...", help=all_cells)
    parser.add_argument("--rounds", type=positive(int), default=5, help="turns of each endpoint in each cell (5)")
    parser.add_argument("--seconds", type=positive(float), default=2, help="about how long one turn lasts (2)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = "NAME=PORT[:PIDS[:NODES]]"
    parser.add_argument("endpoints", nargs="+", metavar=form, help="the first is compared to each other")
    parser.add_argument("--nodes", type=pids, default=(), metavar="PID,...", help="processes of the nodes behind them")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write all tables there as well")
    add_arguments(parser)
    options = parser.parse_args()
    try:
        endpoints = [endpoint(text, options.nodes) for text in options.endpoints]
        for each in endpoints:
            check(each.port)
    except LoadError as error:
        sys.exit(f"compare: {error}")
    finish(Comparison(endpoints, options.rounds, options.seconds).run(options.cells), options.markdown)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
