"""The processes of a benchmark: each is started with a log, awaited, and ended by its own id whatever happens."""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from load import LoadError, check

START_SECONDS = 15
STOP_SECONDS = 5


class StartError(Exception):
    """A program could not be started; says why."""


class Stage(ExitStack):
    """Ends what was started on it when it is left, the last first. Logs and data are in its folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def start(self, name: str, command: list[str]) -> subprocess.Popen:
        """In a session of its own, so that Ctrl-C leaves it to us to end it, and where we were called."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(f"{command[0]}: {error.strerror}") from error
        self.callback(stop, process)
        return process

    def serve(self, name: str, port: int, command: list[str]) -> subprocess.Popen:
        """Starts something and waits until it answers requests."""
        process = self.start(name, command)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                check(port)
                return process
            except LoadError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    stop(process)
                    raise StartError(f"{error}{self._last_words(name)}") from error
            time.sleep(0.1)

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return "".join(f"\n    {line}" for line in lines[-5:])


def stop(process: subprocess.Popen) -> None:
    """Asks for an end, then makes one: of the process and of those that it started, which share its group."""
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            return
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def run(command: list[str]) -> None:
    """Something that comes to its end by itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise StartError(f"{command[0]}: {(done.stderr + done.stdout).strip()[-500:]}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
