"""RQ: jobs, workers with a process a job, retries, schedules, dependencies.

Usage: main.py HOST PORT. Prints a line a check; ends with 1 at the first that fails.

Not here: `unique=True`, a script whose keys are the job's and the queue's, as job ids cannot have a hash tag; and
`empty()` while there are jobs, a script that deletes them by keys that it does not declare.
"""

import sys
import time
from datetime import timedelta

import jobs
import redis
import rq
from rq import Callback, Queue, Repeat, Retry
from rq.command import send_stop_job_command
from rq.group import Group
from rq.job import Job, JobStatus

LIMIT = 40
host, port = sys.argv[1], int(sys.argv[2])


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)
    return value


def result(job):
    """Waits for the job's end, on its stream of results."""
    found = job.latest_result(timeout=LIMIT)
    assert found is not None, f"{job.id} is {job.get_status()}"
    return found


def burst(r, q):
    """A worker that ends when there is no more to do."""
    single = [q.enqueue(jobs.note, "order", n) for n in range(20)]
    many = q.enqueue_many([Queue.prepare_data(jobs.note, ("order", n)) for n in range(20, 40)])
    first = q.enqueue(jobs.note, "order", "first", at_front=True)
    assert q.count == 41 and q.job_ids[0] == first.id
    with jobs.Worker(host, port, "--burst") as worker:
        worker.wait()
    assert r.lrange("order", 0, -1) == [b"first", *[str(n).encode() for n in range(40)]]
    assert [job.return_value() for job in single + many] == list(range(40))
    assert all(job.get_status() == JobStatus.FINISHED for job in single + many)
    assert q.is_empty() and q.finished_job_registry.count == 41
    assert q.started_job_registry.count == 0 and q.intermediate_queue.get_job_ids() == []
    assert Job.exists(first.id, r) and first.delete() is None and not Job.exists(first.id, r)


def results(r, q):
    sent = [q.enqueue(jobs.double, n) for n in range(15)]
    assert [result(job).return_value for job in sent] == [2 * n for n in range(15)]
    job = q.enqueue(jobs.reports)
    result(job)
    assert job.get_meta() == {"done": 50}
    assert len(rq.Worker.all(queue=q)) == 1
    assert q.enqueue(jobs.sleeps, 0, result_ttl=0).id
    within(LIMIT, q.is_empty)


def failures(r, q):
    failed = q.enqueue(jobs.fails, "as it should", on_failure=Callback(jobs.failed))
    assert "as it should" in result(failed).exc_string
    within(LIMIT, lambda: failed.get_status() == JobStatus.FAILED)
    assert failed.id in q.failed_job_registry
    assert r.get(f"callback:{failed.id}") == b"failed as it should"
    failed.requeue()
    within(LIMIT, lambda: len(failed.results()) == 2)

    fine = q.enqueue(jobs.double, 4, on_success=Callback(jobs.succeeded))
    assert result(fine).return_value == 8
    assert r.get(f"callback:{fine.id}") == b"succeeded 8"

    # At once, and after a while.
    for name, retry in (("soon", Retry(max=3)), ("later", Retry(max=3, interval=1))):
        retried = q.enqueue(jobs.succeeds_at, name, 3, retry=retry)
        within(LIMIT, lambda: retried.get_status() == JobStatus.FINISHED)
        assert retried.return_value() == 3


def schedules(r, q):
    began = time.time()
    later = q.enqueue_in(timedelta(seconds=2), jobs.double, 21)
    assert later.id in q.scheduled_job_registry
    assert result(later).return_value == 42 and time.time() - began >= 1  # it counts whole seconds
    assert later.id not in q.scheduled_job_registry
    repeated = q.enqueue(jobs.note, "repeated", "x", repeat=Repeat(times=2, interval=1))
    within(LIMIT, lambda: r.llen("repeated") == 3)
    result(repeated)


def dependencies(r, q):
    parts = [q.enqueue(jobs.double, n) for n in range(5)]
    whole = q.enqueue(jobs.total, depends_on=parts)
    after = q.enqueue(jobs.note, "after", "whole", depends_on=whole)
    assert result(whole).return_value == 20
    assert result(after).return_value == "whole"
    # What depends on a failure waits; without it, it never runs.
    failed = q.enqueue(jobs.fails, "so it waits")
    waits = q.enqueue(jobs.double, 1, depends_on=failed)
    anyway = q.enqueue(jobs.double, 2, depends_on=rq.job.Dependency(failed, allow_failure=True))
    assert result(anyway).return_value == 4
    assert waits.get_status() == JobStatus.DEFERRED and waits.id in q.deferred_job_registry
    waits.cancel()
    assert waits.get_status() == JobStatus.CANCELED and waits.id in q.canceled_job_registry


def groups(r, q):
    group = Group.create(r)
    members = group.enqueue_many(q, [Queue.prepare_data(jobs.double, (n,)) for n in range(5)])
    assert sorted(result(job).return_value for job in members) == [0, 2, 4, 6, 8]
    assert {job.id for job in Group.fetch(group.name, r).get_jobs()} == {job.id for job in members}


def commands(r, q):
    """A worker is told to stop a job, over pub/sub."""
    long = q.enqueue(jobs.sleeps, 600)
    waiting = q.enqueue(jobs.double, 3)
    within(LIMIT, lambda: long.get_status() == JobStatus.STARTED)
    # Then it is also what the worker says that it does.
    within(LIMIT, lambda: [w.get_current_job_id() for w in rq.Worker.all(queue=q)] == [long.id])
    send_stop_job_command(r, long.id)
    within(LIMIT, lambda: long.get_status() == JobStatus.STOPPED)
    assert result(waiting).return_value == 6


def main():
    r = redis.Redis(host, port)
    q = Queue(jobs.QUEUE, connection=r)

    def run(check):
        check(r, q)
        print(f"ok rq {rq.VERSION} {check.__name__}", flush=True)

    run(burst)
    with jobs.Worker(host, port, "--with-scheduler") as worker:
        for check in (results, failures, schedules, dependencies, groups, commands):
            run(check)
        worker.stop()
    assert rq.Worker.all(queue=q) == [], "it has left its registration"
    q.empty()
    assert q.delete(delete_jobs=True) is None


if __name__ == "__main__":
    main()
