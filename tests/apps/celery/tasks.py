"""The tasks, and where their broker is: CELERY_PORT and CELERY_NAMING of the environment."""

import os
import time

from celery import Celery

url = f"redis://127.0.0.1:{os.environ['CELERY_PORT']}/0"
app = Celery("tasks", broker=url, backend=url)
# A lost worker's tasks are another's after this time.
delivery = {"visibility_timeout": 8, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
app.conf.update(
    broker_transport_options=delivery,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_extended=True,
    result_expires=3600,
    task_track_started=True,
)
if os.environ["CELERY_NAMING"] == "tagged-prefix":
    # All keys, of the broker and of the results, are in one slot.
    app.conf.broker_transport_options = {**delivery, "global_keyprefix": "{celery}"}
    app.conf.result_backend_transport_options = {"global_keyprefix": "{celery}"}
else:
    # A worker waits on a list for each priority, in one slot.
    app.conf.task_default_queue = "{celery}"
    # So does who asks workers something. What is bound to these exchanges is noted, by a script, beside the times at
    # which that ends, in a key that is named so.
    app.conf.control_exchange = "{_kombu.binding_deadlines}"
    app.conf.event_exchange = "{_kombu.binding_deadlines}ev"


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fails(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=5)
def succeeds_at(self, attempt):
    if self.request.retries < attempt:
        raise self.retry(countdown=0.2, exc=RuntimeError(f"attempt {self.request.retries}"))
    return self.request.retries


@app.task(autoretry_for=(KeyError,), max_retries=2, default_retry_delay=0.1)
def never_succeeds():
    raise KeyError("again")


@app.task
def now():
    return time.time()


@app.task(ignore_result=True)
def count(key):
    app.backend.client.incr(key)


@app.task(bind=True)
def reports(self):
    self.update_state(state="HALF", meta={"done": 50})
    time.sleep(1)
    return "done"


@app.task
def echo(text):
    return text


@app.task(acks_late=True, reject_on_worker_lost=True)
def outlives_its_worker(key):
    """The first worker is killed meanwhile; the second finishes at once."""
    if app.backend.client.incr(key) == 1:
        time.sleep(600)
    return "done by another"
