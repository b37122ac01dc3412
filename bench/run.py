#!/usr/bin/env python3
"""make bench: Portico and other proxies on this machine, on one throwaway cluster, and what a request costs each.

Starts three masters without persistence, a standalone node for the proxies that know no cluster, Portico, and what is
installed of: the floor (bench/floor.c), Envoy, HAProxy in TCP mode, twemproxy. Compares them (bench/compare.py), ends
all that it started, and writes the tables to FOLDER/result.md. What cannot be started is named and left out.

Any other proxy in front of the cluster takes part as well. Started by this program, {node} being a node's address:

    run.py --peer-command "predixy=7790:predixy predixy.conf"

or by somebody, before or in the pause that --wait makes; whoever listens at the port is measured, or the pids named:

    run.py --base-port 7700 --wait --peer predixy=7790
"""

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import compare
from listeners import listeners
from load import Endpoint, LoadError, check, raise_file_limit
from peers import PEERS, Site
from stage import Stage, StartError, is_free, run

ROOT = Path(__file__).resolve().parent.parent
MASTERS = 3
PORTS = 20
BUS = 10_000
FIRST_PORT, LAST_PORT = 7700, 9700


@dataclass(frozen=True)
class Nodes:
    """Redis servers: where they listen, and their processes."""

    ports: list[int]
    pids: tuple[int, ...]

    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]


def base_port(wanted: int | None) -> int:
    """The port before the first of a block that is free, with the ports that the nodes have for each other."""

    def free(base: int) -> bool:
        return all(map(is_free, [*range(base + 1, base + PORTS), *range(base + BUS + 1, base + BUS + 1 + MASTERS)]))

    if wanted is not None:
        if not free(wanted):
            ports = f"{wanted + 1} to {wanted + PORTS - 1}, and {wanted + BUS + 1} to {wanted + BUS + MASTERS}"
            raise StartError(f"the ports from {ports}, are not all free; without --base-port some are found")
        return wanted
    for base in range(FIRST_PORT, LAST_PORT, PORTS):
        if free(base):
            return base
    raise StartError(f"no {PORTS} free ports in a row from {FIRST_PORT} on")


def redis(stage: Stage, port: int, *more: str) -> int:
    """A node that keeps nothing on disk; gives back its pid."""
    folder = stage.folder / f"node-{port}"
    folder.mkdir()
    quiet = ["--save", "", "--appendonly", "no", "--maxclients", "15000", "--loglevel", "warning"]
    place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    return stage.start(f"node-{port}", ["redis-server", *place, *quiet, *more]).pid


def reply(port: int, *words: str) -> str:
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout


def await_all(ports: list[int], words: list[str], wanted: str) -> None:
    deadline = time.monotonic() + 30
    while not all(wanted in reply(port, *words) for port in ports):
        if time.monotonic() > deadline:
            raise StartError(f"the nodes do not answer {' '.join(words)} with {wanted}")
        time.sleep(0.1)


def start_cluster(stage: Stage, base: int, *more: str) -> Nodes:
    ports = [base + 1 + number for number in range(MASTERS)]
    pids = tuple(redis(stage, port, "--cluster-enabled", "yes", *more) for port in ports)
    nodes = Nodes(ports, pids)
    await_all(ports, ["ping"], "PONG")
    run(["redis-cli", "--cluster", "create", *nodes.addresses(), "--cluster-yes"])
    await_all(ports, ["cluster", "info"], "cluster_state:ok")
    return nodes


def start_standalone(stage: Stage, base: int) -> Nodes:
    port = base + MASTERS + 1
    nodes = Nodes([port], (redis(stage, port),))
    await_all(nodes.ports, ["ping"], "PONG")
    return nodes


def pause() -> None:
    try:
        input("Start your peers in front of the cluster, then press Enter: ")
    except EOFError as error:
        raise StartError("--wait needs a terminal to wait for Enter at") from error


class Bench:
    """One run: the nodes, and the endpoints in front of them."""

    def __init__(self, stage: Stage, options: argparse.Namespace) -> None:
        self.stage, self.options = stage, options
        self.base = base_port(options.base_port)
        self.cluster = start_cluster(stage, self.base)
        self.standalone = start_standalone(stage, self.base)
        print(f"The cluster is at {', '.join(self.cluster.addresses())}", flush=True)

    def endpoints(self) -> list[Endpoint]:
        found = [self._portico()]
        for number, name in enumerate(self.options.only):
            port = self.base + MASTERS + 3 + number
            self._add(found, name, self._peer, name, port)
        for text in self.options.peer_command:
            self._add(found, text.partition("=")[0], self._peer_command, text)
        if self.options.wait:
            pause()
        for text in self.options.peer:
            self._add(found, text.partition("=")[0], self._given, text)
        return found

    def _add(self, found: list[Endpoint], name: str, start: Callable[..., Endpoint], *arguments: str | int) -> None:
        """A peer that is missing is no reason not to compare the others."""
        try:
            if name in (endpoint.name for endpoint in found):
                raise StartError("there is one of that name already")
            found.append(start(*arguments))
        except (StartError, LoadError) as error:
            print(f"Without {name}: {error}", flush=True)

    def _portico(self) -> Endpoint:
        port = self.base + MASTERS + 2
        place = ["--port", str(port), "--nodes", ",".join(self.cluster.addresses())]
        command = [str(self.options.binary), *place, *shlex.split(self.options.portico_args)]
        process = self.stage.serve("portico", port, command)
        return Endpoint("portico", port, (process.pid,), self.cluster.pids)

    def _peer(self, name: str, port: int) -> Endpoint:
        peer = PEERS[name]
        nodes = {True: self.cluster, False: self.standalone, None: Nodes([], ())}[peer.clustered]
        site = Site(port, self.base + PORTS - 1, nodes.ports, self.stage.folder, self.options.folder)
        process = self.stage.serve(name, port, peer.command(site))
        return Endpoint(name, port, (process.pid,), nodes.pids)

    def _peer_command(self, text: str) -> Endpoint:
        """Its pids are those that listen: the command may be a script that starts the proxy."""
        place, _, command = text.partition(":")
        name, _, port = place.partition("=")
        if not port.isdigit() or not command:
            raise StartError(f"{text!r} is not NAME=PORT:COMMAND")
        words = [word.replace("{node}", self.cluster.addresses()[0]) for word in shlex.split(command)]
        if not is_free(int(port)):
            raise StartError(f"port {port} is taken")
        self.stage.serve(name, int(port), words)
        return Endpoint(name, int(port), listeners(int(port)), self.cluster.pids)

    def _given(self, text: str) -> Endpoint:
        found = compare.endpoint(text, self.cluster.pids)
        check(found.port)
        return found


def peers(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return names


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--binary", type=Path, default=ROOT / "target/release/portico", help="Portico, built for release")
    add("--folder", type=Path, default=ROOT / "target/bench", help="for the result, and where venv/bin/envoy is")
    add("--portico-args", default="", metavar="ARGS", help='settings of Portico, as in --portico-args="--workers 1"')
    add("--only", type=peers, default=list(PEERS), metavar="PEER,...", help=f"of {', '.join(PEERS)}; all of them")
    add("--peer", action="append", default=[], metavar="NAME=PORT[:PID,...]", help="one that runs, also after --wait")
    add("--peer-command", action="append", default=[], metavar="NAME=PORT:COMMAND", help="one to start")
    add("--wait", action="store_true", help="pause when the cluster is there, for peers to be started")
    add("--base-port", type=int, metavar="PORT", help="the nodes listen from the port after this one on")
    compare.add_arguments(parser)
    options = parser.parse_args()
    options.binary, options.folder = options.binary.resolve(), options.folder.resolve()
    if not options.binary.exists():
        parser.error(f"there is no {options.binary}: cargo build --release -p portico")
    return options


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder, Stage(Path(folder)) as stage:
        endpoints = Bench(stage, options).endpoints()
        results = compare.Comparison(endpoints, options.rounds, options.seconds).run(options.cells)
    compare.finish(results, options.folder / "result.md")


if __name__ == "__main__":
    try:
        main()
    except StartError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
