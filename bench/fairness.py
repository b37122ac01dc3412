#!/usr/bin/env python3
"""make fairness: what one client's GET takes beside another that asks for much, through Portico and at one server.

Starts three masters with Portico in front, and a standalone server; loads each with one offender after another while a
process of its own asks GET once a millisecond, and ends all that it started. Printed is, for each, the median of the
runs' p99 in milliseconds and the highest of all: at one server, through Portico, and by how much the latter is worse.
The exit code is 1 where that is more than ALLOWED. The machine should have nothing else to do: its noise is in both.
"""

import argparse
import binascii
import multiprocessing
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import encode, raise_file_limit
from run import ROOT, await_all, base_port, redis, reply, start_cluster
from stage import Stage, StartError

# What p99 may be above that at one server, in milliseconds.
ALLOWED = 20.0
RUNS = 5
PROBED = "{x}probe"


class Client:
    """A connection that sends requests and reads replies without looking at what is in them."""

    def __init__(self, port: int, receive: int | None = None) -> None:
        self.socket = socket.socket()
        if receive is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.settimeout(120)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 20)

    def send(self, requests: bytes) -> None:
        self.socket.sendall(requests)

    def skip(self) -> None:
        """Reads one reply."""
        left = 1
        while left:
            line = self.file.readline()
            if not line:
                raise StartError("a server closed a connection")
            left -= 1
            count = int(line[1:]) if line[:1] in b"$*>" else 0
            if line[:1] in b"*>":
                left += max(count, 0)
            elif line[:1] == b"$" and count >= 0:
                self.file.read(count + 2)

    def ask(self, *words: str) -> None:
        self.send(encode(*words))
        self.skip()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def probe(port: int, stop: multiprocessing.Event, out: multiprocessing.Queue) -> None:
    client = Client(port)
    request, times = encode("GET", PROBED), []
    while not stop.is_set():
        began = time.perf_counter()
        client.send(request)
        client.skip()
        times.append(time.perf_counter() - began)
        time.sleep(0.001)
    out.put(times)


@contextmanager
def probed(port: int, into: list[float]) -> Iterator[None]:
    """Asks beside what is done, for a second at least; `into` has what each request took, in milliseconds."""
    stop, out = multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=probe, args=(port, stop, out), daemon=True)
    process.start()
    time.sleep(0.2)
    began = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    finally:
        stop.set()
        for took in out.get(timeout=120):
            # While one waits, those wait that would have been asked meanwhile.
            into.extend(1000 * took - 1.5 * number for number in range(1 + int(1000 * took / 1.5)))
        process.join()


class Place:
    """Where it is measured: an endpoint, and the servers behind it."""

    def __init__(self, name: str, port: int, nodes: list[int]) -> None:
        self.name, self.port, self.nodes = name, port, nodes


def nobody(_: Place) -> None:
    time.sleep(1)


def keys_of_a_million(place: Place) -> None:
    client = Client(place.port)
    client.ask("KEYS", "*")
    client.close()


def mget_of_many(place: Place) -> None:
    client = Client(place.port)
    for _ in range(3):
        client.ask("MGET", *(f"none:{number}" for number in range(100_000)))
    client.close()


def del_of_many(place: Place) -> None:
    client = Client(place.port)
    for _ in range(3):
        client.ask("DEL", *(f"none:{number}" for number in range(100_000)))
    client.close()


def replies_unread(place: Place) -> None:
    """300 clients ask 200 times for 100 kB each, read nothing, and go."""
    client = Client(place.port)
    client.ask("SET", "{x}large", "x" * 100_000)
    deaf = []
    for _ in range(300):
        deaf.append(Client(place.port, 4096))
        deaf[-1].send(encode("GET", "{x}large") * 200)
    time.sleep(2)
    for other in deaf:
        other.close()
    client.ask("GET", PROBED)
    client.close()


def channels(count: int) -> Iterator[bytes]:
    for first in range(0, count, 1000):
        yield encode("SUBSCRIBE", *(f"channel:{number}" for number in range(first, min(first + 1000, count))))


def listen(place: Place, count: int) -> Client:
    """A client that listens to so many channels."""
    client = Client(place.port)
    thread = threading.Thread(target=lambda: [client.send(request) for request in channels(count)])
    thread.start()
    end, tail = b":%d\r\n" % count, b""
    while not tail.endswith(end):
        tail = tail[-30:] + client.socket.recv(1 << 20)
    thread.join()
    return client


def subscriptions(place: Place) -> None:
    """A client subscribes to a million channels in a pipeline, and leaves."""
    client = listen(place, 1_000_000)
    client.close()
    time.sleep(3)


def slot_moves(place: Place) -> None:
    """An empty slot goes to and fro while a client listens to 50,000 channels; a server alone has no slots."""
    client = listen(place, 50_000)
    if len(place.nodes) > 1:
        source, target = place.nodes[:2]
        ids = [reply(port, "cluster", "myid").strip() for port in (source, target)]
        key = next(key for key in (f"m{number}" for number in range(10**6)) if slot_of(key) == 100)
        other = Client(place.port)
        for turn in range(20):
            for port in (target, source) if turn % 2 == 0 else (source, target):
                reply(port, "cluster", "setslot", "100", "node", ids[(turn + 1) % 2])
            other.ask("GET", key)
            time.sleep(0.1)
        other.close()
    else:
        time.sleep(2)
    client.close()


def slot_of(key: str) -> int:
    return binascii.crc_hqx(key.encode(), 0) % 16_384


def pipelined_scripts(place: Place) -> None:
    """Scripts that were never seen before, in a pipeline."""
    client = Client(place.port)
    began = time.monotonic()
    while time.monotonic() < began + 1:
        requests = [encode("EVAL", f"return {time.monotonic_ns() + number}", "1", "{x}s") for number in range(100)]
        client.send(b"".join(requests))
        for _ in requests:
            client.skip()
    client.close()


OFFENDERS: dict[str, Callable[[Place], None]] = {
    "nobody": nobody,
    "MGET of 100,000": mget_of_many,
    "DEL of 100,000": del_of_many,
    "scripts never seen": pipelined_scripts,
    "replies unread": replies_unread,
    "slots move": slot_moves,
    "1,000,000 channels": subscriptions,
    "KEYS of 1,000,000": keys_of_a_million,
}


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def fill(place: Place) -> None:
    """A million keys, for KEYS."""
    each = 1_000_000 // len(place.nodes)
    for port in place.nodes:
        client = Client(port)
        client.ask("DEBUG", "POPULATE", str(each), f"filled{port}", "1")
        client.close()


def measure(places: list[Place], name: str, offender: Callable[[Place], None], runs: int) -> bool:
    """One line of the table. Returns whether Portico is as fair as it has to be."""
    medians, highest = [], []
    for place in places:
        figures, most = [], 0.0
        for _ in range(runs):
            times: list[float] = []
            with probed(place.port, times):
                offender(place)
            figures.append(p99(times))
            most = max(most, *times)
        medians.append(statistics.median(figures))
        highest.append(most)
    worse = medians[1] - medians[0]
    cells = [f"{median:9.1f} {most:9.1f}" for median, most in zip(medians, highest)]
    print(f"{name:20} {cells[0]}  {cells[1]} {worse:+9.1f}{'' if worse <= ALLOWED else '  more than allowed'}", flush=True)
    return worse <= ALLOWED


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/portico")
    parser.add_argument("--base-port", type=int, help="the port before the first of twenty that are free")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help="offenders whose name has this in it")
    options = parser.parse_args()
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="fairness-") as folder, Stage(Path(folder)) as stage:
        try:
            base = base_port(options.base_port)
            debug = ["--enable-debug-command", "yes"]
            nodes = start_cluster(stage, base, *debug).ports
            alone = base + len(nodes) + 1
            redis(stage, alone, *debug)
            await_all([alone], ["ping"], "PONG")
            seeds = ",".join(f"127.0.0.1:{port}" for port in nodes)
            portico = base + len(nodes) + 2
            stage.serve("portico", portico, [str(options.binary), "--port", str(portico), "--nodes", seeds])
            places = [Place("one server", alone, [alone]), Place("Portico", portico, nodes)]
            for place in places:
                Client(place.port).ask("SET", PROBED, "1")
            print(f"GET of another client, ms: median of p99 in {options.runs} runs, and the highest of all")
            print(f"{'beside':20} {'one server':>19}  {'through Portico':>19} {'worse by':>9}")
            fair = True
            for name, offender in OFFENDERS.items():
                if options.only not in name:
                    continue
                if offender is keys_of_a_million:
                    for place in places:
                        fill(place)
                fair &= measure(places, name, offender, options.runs)
        except StartError as error:
            print(f"fairness: {error}", file=sys.stderr)
            return 1
    return 0 if fair else 1


if __name__ == "__main__":
    sys.exit(main())
