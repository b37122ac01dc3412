"""Celery with Redis as broker and for results: a worker with two processes, and what it is given to do.

Usage: main.py HOST PORT tagged-queue|tagged-prefix. Prints a line a check; ends with 1 at the first that fails.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

host, port, naming = sys.argv[1:]
os.environ.update(CELERY_PORT=port, CELERY_NAMING=naming)

import celery  # noqa: E402
import tasks  # noqa: E402
from celery import chain, chord, group  # noqa: E402
from celery.exceptions import TaskRevokedError  # noqa: E402
from celery.result import GroupResult  # noqa: E402

LIMIT = 40


class Worker:
    """A worker process, with processes of its own. It logs failures that are meant to be."""

    log = tempfile.TemporaryFile("a+")

    def __init__(self, name):
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "INFO", "-n", f"{name}@host"]
        self.process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=self.log, stderr=self.log)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(LIMIT) == 0, self.process.returncode

    def kill(self):
        if self.process.poll() is not None:
            return
        # Its children, too: they would go on with what they do.
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.process.kill()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        self.process.wait()


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)
    return value


def raises(kind, result):
    try:
        result.get(timeout=LIMIT)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind}")


def results():
    sent = [tasks.add.delay(n, n) for n in range(100)]
    assert [result.get(timeout=LIMIT) for result in sent] == [2 * n for n in range(100)]
    assert all(result.successful() for result in sent)
    sent[0].forget()
    assert tasks.app.AsyncResult(sent[0].id).state == "PENDING"
    big = "x" * 200_000
    assert tasks.echo.delay(big).get(timeout=LIMIT) == big
    # None waits for these.
    for _ in range(50):
        tasks.count.delay("counted")
    within(LIMIT, lambda: tasks.app.backend.client.get("counted") == b"50")


def failures():
    assert raises(ValueError, tasks.fails.delay("as it should")) == "as it should"
    failed = tasks.fails.delay("with a traceback")
    raises(ValueError, failed)
    assert failed.failed() and "with a traceback" in failed.traceback
    assert tasks.succeeds_at.delay(3).get(timeout=LIMIT) == 3
    assert "again" in raises(KeyError, tasks.never_succeeds.delay())


def states():
    result = tasks.reports.delay()
    within(LIMIT, lambda: result.state == "HALF")
    assert result.info == {"done": 50}
    assert result.get(timeout=LIMIT) == "done" and result.state == "SUCCESS"
    assert result.name == "tasks.reports"


def later():
    began = time.time()
    countdown = tasks.now.apply_async(countdown=1.5)
    eta = tasks.now.apply_async(eta=datetime.now(timezone.utc) + timedelta(seconds=1))
    assert countdown.get(timeout=LIMIT) - began >= 1.5
    assert eta.get(timeout=LIMIT) - began >= 1
    raises(TaskRevokedError, tasks.now.apply_async(expires=datetime.now(timezone.utc) - timedelta(seconds=1)))


def priorities():
    sent = [tasks.add.apply_async((n, 1), priority=n % 10) for n in range(40)]
    assert [result.get(timeout=LIMIT) for result in sent] == list(range(1, 41))


def canvas():
    assert chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(timeout=LIMIT) == 10
    grouped = group(tasks.add.s(n, 1) for n in range(30))()
    assert grouped.get(timeout=LIMIT) == list(range(1, 31))
    grouped.save()
    assert GroupResult.restore(grouped.id, app=tasks.app).join(timeout=LIMIT) == list(range(1, 31))
    grouped.delete()
    assert [r.get(timeout=LIMIT) for r in tasks.add.chunks(((n, n) for n in range(20)), 5)().children] == [
        [2 * n for n in range(k, k + 5)] for k in range(0, 20, 5)
    ]


def chords():
    """A script counts what is done; only a prefix has its six keys in one slot."""
    assert chord(tasks.add.s(n, n) for n in range(20))(tasks.total.s()).get(timeout=LIMIT) == 380
    piped = chain(group(tasks.add.s(n, 0) for n in range(5)), tasks.total.s(), tasks.add.s(5))
    assert piped().get(timeout=LIMIT) == 15
    # Of a chord with a part that fails, the failure is the result.
    failing = chord([tasks.add.s(1, 1), tasks.fails.s("a part")])(tasks.total.s())
    assert "a part" in raises(Exception, failing)


def control():
    """The worker is asked, and told, over pub/sub."""
    inspect = tasks.app.control.inspect(timeout=10, limit=1)
    assert list(within(LIMIT, inspect.ping)) == ["one@host"]
    assert "tasks.add" in inspect.registered()["one@host"]
    assert [queue["name"] for queue in inspect.active_queues()["one@host"]] == [tasks.app.conf.task_default_queue]
    scheduled = tasks.now.apply_async(countdown=4)
    within(LIMIT, lambda: inspect.scheduled()["one@host"])
    scheduled.revoke()
    raises(TaskRevokedError, scheduled)


def a_lost_worker(worker):
    lasts = tasks.outlives_its_worker.delay("attempts")
    within(LIMIT, lambda: tasks.app.backend.client.get("attempts") == b"1")
    worker.kill()
    successor = Worker("two")
    try:
        assert lasts.get(timeout=LIMIT) == "done by another"
        assert tasks.app.backend.client.get("attempts") == b"2"
        # Nothing is left over.
        within(LIMIT, lambda: unacked() == 0)
        successor.stop()
    finally:
        successor.kill()


def unacked():
    with tasks.app.connection_for_read() as connection:
        channel = connection.default_channel
        return channel.client.hlen(channel.unacked_key)


def main():
    worker = Worker("one")
    try:
        checks = [results, failures, states, later, priorities, canvas, control]
        if naming == "tagged-prefix":
            checks.append(chords)
        for check in checks:
            check()
            print(f"ok celery {celery.__version__} {naming} {check.__name__}", flush=True)
        a_lost_worker(worker)
        print(f"ok celery {celery.__version__} {naming} a_lost_worker", flush=True)
    except BaseException:
        Worker.log.seek(0)
        print("The worker's log ends with:", *Worker.log.readlines()[-100:], file=sys.stderr)
        raise
    finally:
        worker.kill()


if __name__ == "__main__":
    main()
