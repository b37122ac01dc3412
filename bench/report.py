"""What a comparison found, as tables: medians, ratios taken round by round, and the goals that they meet or miss."""

import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from load import Sample

Rows = list[list[str]]


@dataclass
class Results:
    """All samples: by cell, endpoint and round. Ratios are those of the subject to each other endpoint."""

    subject: str
    samples: dict[str, dict[str, dict[int, Sample]]] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, cell: str, endpoint: str, round_number: int, sample: Sample) -> None:
        self.samples.setdefault(cell, {}).setdefault(endpoint, {})[round_number] = sample


@dataclass(frozen=True)
class Metric:
    """One figure of a sample. `most`: whether a goal is an upper bound of its ratio or a lower one."""

    name: str
    of: Callable[[Sample], float]
    most: bool = True


OWN = Metric("own", lambda sample: sample.own)
TOGETHER = Metric("own + nodes", lambda sample: sample.together)
RATE = Metric("req/s", lambda sample: sample.rate, most=False)
P50 = Metric("p50", lambda sample: sample.p50)
P99 = Metric("p99", lambda sample: sample.p99)
METRICS = (OWN, TOGETHER, RATE, P50, P99)

# By peer and metric: the ratio to reach in a cell; "*" is every cell without a line of its own.
GOALS = {
    ("predixy", OWN): {"p1": 0.75, "p1x500": 0.8, "p16": 0.55, "mget10": 0.65, "mget100": 0.5, "connect": 0.8},
    ("predixy", TOGETHER): {"*": 0.85},
    ("predixy", RATE): {"p1": 1.15, "p16": 1.3},
    ("predixy", P99): {"*": 0.8},
    ("floor", OWN): {"p1": 1.3, "p1x500": 1.15, "p16": 1.8},
    ("envoy", OWN): {"p1": 0.5, "p1x500": 0.45, "p16": 0.25, "mget10": 0.34, "mget100": 0.24},
    ("envoy", TOGETHER): {"*": 0.7},
    ("envoy", RATE): {"p1": 1.35, "p16": 1.8},
    ("envoy", P99): {"*": 0.6},
}
GOAL_IDLE_BYTES = 1_000
GOAL_GROWTH_OVER_FLOOR = 1.2


def verdict(value: float, goal: float, most: bool = True) -> str:
    met = value <= goal if most else value >= goal
    return f"{'≤' if most else '≥'} {goal:,g} {'met' if met else 'MISSED'}"


def goal(peer: str, metric: Metric, cell: str) -> float | None:
    goals = GOALS.get((peer, metric), {})
    return goals.get(cell.removesuffix("-set"), goals.get("*"))


def ratio(results: Results, cell: str, peer: str, metric: Metric) -> list[float]:
    """The subject's figure over the peer's, for each round that has both: a drift of the machine's speed cancels."""
    samples = results.samples.get(cell, {})
    ours, theirs = samples.get(results.subject, {}), samples.get(peer, {})
    pairs = [(metric.of(ours[number]), metric.of(theirs[number])) for number in sorted(ours.keys() & theirs.keys())]
    return [mine / other for mine, other in pairs if other > 0]


COST_HEAD = ["cell", "endpoint", "req/s", "p50 ms", "p99 ms", "own us/req", "nodes us/req", "both us/req"]


def cost_rows(results: Results, cell: str) -> Rows:
    """A line an endpoint: the medians over the rounds."""
    rows = []
    for endpoint, rounds in results.samples.get(cell, {}).items():
        of = {metric: statistics.median(map(metric.of, rounds.values())) for metric in METRICS}
        nodes = statistics.median(sample.nodes for sample in rounds.values())
        times = [f"{of[OWN]:.2f}", f"{nodes:.2f}", f"{of[TOGETHER]:.2f}"]
        rows.append([cell, endpoint, f"{of[RATE]:,.0f}", f"{of[P50]:.3f}", f"{of[P99]:.3f}", *times])
    return rows


def ratio_head(results: Results) -> list[str]:
    return ["cell", f"{results.subject} to", *(metric.name for metric in METRICS), "own, lowest - highest", "goal"]


def ratio_rows(results: Results) -> Rows:
    """A line a cell and peer: the medians of the ratios, and the goals."""
    rows = []
    for cell, by_endpoint in results.samples.items():
        for peer in by_endpoint:
            ratios = {metric: ratio(results, cell, peer, metric) for metric in METRICS}
            if peer == results.subject or not ratios[OWN]:
                continue
            medians = {metric: statistics.median(found) for metric, found in ratios.items() if found}
            goals = [
                f"{metric.name} {verdict(value, wanted, metric.most)}"
                for metric, value in medians.items()
                if (wanted := goal(peer, metric, cell)) is not None
            ]
            figures = [f"{medians[metric]:.2f}" if metric in medians else "-" for metric in METRICS]
            spread = f"{min(ratios[OWN]):.2f} - {max(ratios[OWN]):.2f}"
            rows.append([cell, peer, *figures, spread, "; ".join(goals)])
    return rows


IDLE_HEAD = ["endpoint", "bytes an idle connection", "goal"]


def idle_rows(results: Results) -> Rows:
    """A line an endpoint; the subject has a goal."""
    return [
        [endpoint, f"{size:,.0f}", verdict(size, GOAL_IDLE_BYTES) if endpoint == results.subject else ""]
        for endpoint, size in results.idle.items()
    ]


def growth(results: Results) -> str | None:
    """How own time grows from 50 to 5,000 connections, against how the floor's does."""
    few, many = (ratio(results, cell, "floor", OWN) for cell in ("p1", "p1x5000"))
    if not few or not many:
        return None
    value = statistics.median(many) / statistics.median(few)
    return (
        f"From 50 to 5,000 connections {results.subject}'s own time grows {value:.2f} times as much as the floor's"
        f" ({verdict(value, GOAL_GROWTH_OVER_FLOOR)})."
    )


def circumstances() -> list[str]:
    """What figures depend on."""
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, timeout=10).stdout
    redis = next((word[2:] for word in version.split() if word.startswith("v=")), "unknown")
    return [
        f"Date: {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        f"Redis: {redis}",
        f"Command: `{shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}`",
    ]


def text(head: list[str], rows: Rows) -> str:
    """A table for the terminal: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    figures = [all(row[column][:1].isdigit() or row[column] == "-" for row in rows) for column in range(len(head))]

    def line(row: list[str]) -> str:
        columns = zip(row, widths, figures)
        return "  ".join(word.rjust(width) if right else word.ljust(width) for word, width, right in columns).rstrip()

    return "\n".join(map(line, [head, *rows]))


def markdown_table(head: list[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(results: Results) -> list[tuple[str, list[str], Rows]]:
    """The tables that have something in them, each with its title."""
    costs = [row for cell in results.samples for row in cost_rows(results, cell)]
    tables = [
        ("What a request costs", COST_HEAD, costs),
        (f"Ratios: {results.subject} to each other", ratio_head(results), ratio_rows(results)),
        ("Memory", IDLE_HEAD, idle_rows(results)),
    ]
    return [table for table in tables if table[2]]


def remarks(results: Results) -> list[str]:
    return [*filter(None, [growth(results)]), *(f"Not measured: {failure}" for failure in results.failures)]


def markdown(results: Results) -> str:
    parts = ["# Speed", "\n".join(f"- {line}" for line in circumstances())]
    parts.append(
        "Medians over the rounds; own and nodes are processor time. A ratio is taken within each round, and its median"
        " over the rounds is shown."
    )
    for title, head, rows in sections(results):
        parts += [f"## {title}", markdown_table(head, rows)]
    if remarks(results):
        parts.append("\n".join(f"- {line}" for line in remarks(results)))
    return "\n\n".join(parts) + "\n"
