"""What an endpoint is loaded with, and what one load of it cost: redis-benchmark, and the kernel's own accounts."""

import csv
import resource
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

KEYS = 100_000
VALUE_BYTES = 64
IDLE_CONNECTIONS = 2_000
REPLY_SECONDS = 10


class LoadError(Exception):
    """An endpoint could not be loaded; says why."""


@dataclass(frozen=True)
class Endpoint:
    """Something that speaks Redis' protocol on loopback, and the processes whose time is counted."""

    name: str
    port: int
    pids: tuple[int, ...]
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    name: str
    connections: int
    command: str
    pipeline: int = 1
    reconnect: bool = False

    def arguments(self) -> list[str]:
        keep = "0" if self.reconnect else "1"
        shape = ["-c", self.connections, "-P", self.pipeline, "-k", keep, "-d", VALUE_BYTES, "-r", KEYS]
        return [str(word) for word in shape] + self.command.split()

    def requests(self, rate: float, seconds: float) -> int:
        """So many that each connection has its turns, in whole pipelines."""
        least = self.connections * self.pipeline * (1 if self.reconnect else 10)
        return -(-max(int(rate * seconds), least) // self.pipeline) * self.pipeline


def _mget(keys: int) -> str:
    return "mget" + " key:__rand_int__" * keys


CELLS = {
    cell.name: cell
    for cell in (
        Cell("p1", 50, "-t get"),
        Cell("p1-set", 50, "-t set"),
        Cell("p1x500", 500, "-t get"),
        Cell("p1x5000", 5000, "-t get"),
        Cell("p16", 50, "-t get", pipeline=16),
        Cell("p16-set", 50, "-t set", pipeline=16),
        Cell("mget10", 50, _mget(10)),
        Cell("mget100", 20, _mget(100)),
        Cell("connect", 50, "-t set", reconnect=True),
    )
}


@dataclass(frozen=True)
class Sample:
    """What one load showed: requests a second, milliseconds of latency, processor microseconds a request."""

    rate: float
    p50: float
    p99: float
    own: float
    nodes: float

    @property
    def together(self) -> float:
        return self.own + self.nodes


def raise_file_limit() -> int:
    """As many open files as the system allows, for this process and all that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def processor_ns(pids: tuple[int, ...]) -> int:
    """Processor time of all threads of these processes, user and system."""
    total = 0
    for pid in pids:
        for account in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(account.read_text().split()[0])
            except (OSError, IndexError):  # a thread that has just ended
                pass
    return total


def memory_bytes(pids: tuple[int, ...]) -> int:
    """Memory of these processes, what they share counted once (Pss)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError as error:
            raise LoadError(f"the memory of process {pid} cannot be read: {error.strerror}") from error
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def encode(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS)


def check(port: int) -> None:
    """redis-benchmark waits for minutes where nothing listens or answers: so ask first."""
    try:
        with _connect(port) as connection:
            connection.sendall(encode("GET", "key:000000000000"))
            reply = connection.recv(1024)
    except OSError as error:
        raise LoadError(f"port {port} does not answer: {error}") from error
    if not reply.startswith(b"$"):
        raise LoadError(f"port {port} answers a GET with {reply.decode(errors='replace').strip() or 'its end'}")


def fill(endpoint: Endpoint) -> None:
    """Sets all keys that the cells ask for, so that every GET finds a value."""
    value, batch = "x" * VALUE_BYTES, 500
    try:
        with _connect(endpoint.port) as connection, connection.makefile("rb") as replies:
            for first in range(0, KEYS, batch):
                keys = range(first, first + batch)
                connection.sendall(b"".join(encode("SET", f"key:{key:012}", value) for key in keys))
                for _ in range(batch):
                    reply = replies.readline()
                    if reply[:1] not in (b"+", b"$"):
                        raise LoadError(f"a SET is answered with {reply.decode(errors='replace').strip() or 'the end'}")
    except OSError as error:
        raise LoadError(f"the keys could not be set: {error}") from error


def load(endpoint: Endpoint, cell: Cell, requests: int, timeout: float) -> Sample:
    """One run of redis-benchmark, and what it cost."""
    check(endpoint.port)
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(endpoint.port), "-n", str(requests), "--csv"]
    own, nodes = processor_ns(endpoint.pids), processor_ns(endpoint.nodes)
    try:
        run = subprocess.run(command + cell.arguments(), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{requests} requests were not answered within {timeout:.0f} s") from error
    own, nodes = processor_ns(endpoint.pids) - own, processor_ns(endpoint.nodes) - nodes
    if "Error from server" in run.stdout + run.stderr or run.returncode != 0:
        raise LoadError(f"redis-benchmark said {(run.stdout + run.stderr)[-200:].strip()!r}")
    rate, p50, p99 = _figures(run.stdout)
    return Sample(rate, p50, p99, own / requests / 1e3, nodes / requests / 1e3)


def _figures(output: str) -> tuple[float, float, float]:
    rows = [row for row in csv.reader(output.splitlines()) if len(row) == 8]
    if len(rows) != 2 or rows[0][0] != "test":
        raise LoadError(f"redis-benchmark said no figures: {output[-200:].strip()!r}")
    row = dict(zip(*rows))
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def idle_bytes(endpoint: Endpoint) -> float:
    """Memory that one more idle connection takes, each having had one PING answered.

    It means something on an endpoint that has just been started: later, an allocator has memory left over.
    """
    with ExitStack() as connections:

        def add(number: int) -> None:
            for _ in range(number):
                connection = connections.enter_context(_connect(endpoint.port))
                connection.sendall(encode("PING"))
                if not connection.recv(64):
                    raise LoadError("a connection was closed instead of answering PING")

        try:
            add(10)  # what is allocated once: buffers, connections to nodes
            before = memory_bytes(endpoint.pids)
            add(IDLE_CONNECTIONS)
            time.sleep(0.2)
        except OSError as error:
            raise LoadError(f"idle connections: {error}") from error
        return (memory_bytes(endpoint.pids) - before) / IDLE_CONNECTIONS
