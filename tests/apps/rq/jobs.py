"""The jobs, and a worker to do them."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rq import get_current_job
from rq.exceptions import NoSuchJobError
from rq.job import Job

# The hash tag: a worker moves an id from the list to another, which begins with its name.
QUEUE = "{rq}"


def double(n):
    return 2 * n


def note(key, text):
    get_current_job().connection.rpush(key, text)
    return text


def fails(text):
    raise ValueError(text)


def succeeds_at(key, attempt):
    """Fails until it has been tried so often."""
    tried = get_current_job().connection.incr(key)
    if tried < attempt:
        raise RuntimeError(f"attempt {tried}")
    return tried


def total():
    """The sum of what it depends on."""
    return sum(job.return_value() for job in get_current_job().fetch_dependencies())


def reports():
    job = get_current_job()
    job.meta["done"] = 50
    job.save_meta()
    return "done"


def sleeps(seconds):
    time.sleep(seconds)


def succeeded(job, connection, result):
    connection.set(f"callback:{job.id}", f"succeeded {result}")


def failed(job, connection, kind, value, traceback):
    connection.set(f"callback:{job.id}", f"failed {value}")


class HonestJob(Job):
    """RQ passes over an id that has no job, and so loses what comes too late. This says so."""

    @classmethod
    def fetch(cls, id, *arguments, **keywords):
        try:
            return super().fetch(id, *arguments, **keywords)
        except NoSuchJobError:
            print(f"LOST {id}", flush=True)
            raise


class Worker:
    """`rq worker`, as it is started by hand; its log is told if it is wanted."""

    def __init__(self, host, port, *arguments):
        self.log = tempfile.TemporaryFile("a+")
        url = f"redis://{host}:{port}/0"
        command = [sys.executable, "-m", "rq.cli", "worker", "--url", url, *arguments, QUEUE]
        # It finds this module where it is started.
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)

    def lost(self):
        self.log.seek(0)
        return [line.split()[1] for line in self.log if line.startswith("LOST ")]

    def wait(self, limit=60):
        assert self.process.wait(limit) == 0, f"the worker ended with {self.process.returncode}"

    def stop(self):
        self.process.terminate()
        self.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.log.seek(0)
            print("The worker's log ends with:\n", *self.log.readlines()[-100:], file=sys.stderr)
        self.process.kill()
