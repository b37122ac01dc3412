"""RQ while a part of Redis does not answer for a while: every job that was enqueued is done.

Usage: stopped.py HOST PORT. Enqueues jobs until its standard input ends.
"""

import sys
import threading
import time
from collections import Counter

import jobs
import redis
from rq import Queue
from rq.job import JobStatus

LIMIT = 60
host, port = sys.argv[1], int(sys.argv[2])


def main():
    failures, enqueued, ended = [], [], threading.Event()

    def produce():
        q = Queue(jobs.QUEUE, connection=redis.Redis(host, port))
        try:
            while not ended.wait(0.02):
                enqueued.append(q.enqueue(jobs.double, len(enqueued)))
        except BaseException as error:
            failures.append(error)

    # Both work in one process each: the jobs are small, and many.
    simple = ("--worker-class", "rq.worker.SimpleWorker", "--job-class", "jobs.HonestJob", "--quiet")
    with jobs.Worker(host, port, *simple) as one, jobs.Worker(host, port, *simple) as two:
        producers = [threading.Thread(target=produce) for _ in range(3)]
        for producer in producers:
            producer.start()
        sys.stdin.read()
        ended.set()
        for producer in producers:
            producer.join()
        assert not failures, failures

        q = Queue(jobs.QUEUE, connection=redis.Redis(host, port))
        deadline = time.monotonic() + LIMIT
        waiting = list(enqueued)
        while waiting and time.monotonic() < deadline:
            time.sleep(0.2)
            waiting = [job for job in waiting if job.get_status() != JobStatus.FINISHED]
        lost = one.lost() + two.lost()
        assert not lost, f"of {len(enqueued)} jobs these had an id and no hash: {lost}"
        states = Counter(job.get_status() for job in waiting)
        assert not waiting, f"of {len(enqueued)} jobs {states} are not finished"
        assert q.is_empty() and q.failed_job_registry.count == 0
        for worker in (one, two):
            worker.stop()
    assert len(enqueued) > 50, len(enqueued)
    print(f"ok rq while a part of Redis is stopped: {len(enqueued)} jobs")


if __name__ == "__main__":
    main()
