"""redis-py beyond single commands: locks, transactions, pub/sub, scripts, blocking commands.

Usage: main.py HOST PORT. Prints a line a check; ends with 1 at the first that fails. Keys that belong together share
a hash tag.
"""

import sys
import threading
import time

import redis
from redis.exceptions import LockError, LockNotOwnedError, ResponseError, WatchError


def within(seconds, condition):
    """Waits for something that happens elsewhere."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)
    return value


def together(*works):
    """Runs each in a thread; the first failure is the caller's."""
    failures = []

    def run(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def locks(r):
    """Many hands count with a read and a write, one at a time."""
    r.set("lock:count", 0)

    def count():
        for _ in range(20):
            with r.lock("lock:one", timeout=20, sleep=0.002, blocking_timeout=60):
                r.set("lock:count", int(r.get("lock:count")) + 1)

    together(*[count] * 8)
    assert r.get("lock:count") == "160"
    assert not r.exists("lock:one")

    held = r.lock("lock:two", timeout=10)
    assert held.acquire() and held.locked() and held.owned()
    other = r.lock("lock:two")
    assert not other.acquire(blocking=False)
    began = time.monotonic()
    assert not other.acquire(blocking_timeout=0.3) and time.monotonic() - began >= 0.15
    assert held.extend(50) and 50 < r.ttl("lock:two") <= 60
    assert held.reacquire() and r.ttl("lock:two") <= 10
    held.release()
    try:
        held.release()
    except LockError:
        pass
    else:
        raise AssertionError("released twice")

    brief = r.lock("lock:two", timeout=0.1)
    assert brief.acquire()
    within(5, lambda: other.acquire(blocking=False))
    try:
        brief.release()
    except LockNotOwnedError:
        pass
    else:
        raise AssertionError("released another's lock")
    other.release()


def transactions(r):
    replies = (
        r.pipeline(transaction=True)
        .set("{t}:n", 40)
        .incrby("{t}:n", 2)
        .hset("{t}:h", mapping={"a": "1", "b": "2"})
        .hgetall("{t}:h")
        .rpush("{t}:l", "x", "y")
        .mget("{t}:n", "{t}:none")
        .execute()
    )
    assert replies == [True, 42, 2, {"a": "1", "b": "2"}, 2, ["42", None]], replies

    # One fails, the others are done.
    replies = r.pipeline().incr("{t}:n").incr("{t}:h").incr("{t}:n").execute(raise_on_error=False)
    assert replies[0] == 43 and isinstance(replies[1], ResponseError) and replies[2] == 44, replies
    # One is refused when it is queued, so nothing is done.
    pipe = r.pipeline().incr("{t}:n")
    pipe.execute_command("HSET", "{t}:h")
    try:
        pipe.execute()
    except ResponseError as error:
        assert "wrong number of arguments" in str(error), error
    else:
        raise AssertionError("a bad command was accepted")
    assert r.get("{t}:n") == "44"

    big = r.pipeline()
    for i in range(2000):
        big.rpush("{t}:big", "v" * (i % 100))
    assert big.execute() == list(range(1, 2001))
    assert r.delete("{t}:n", "{t}:h", "{t}:l", "{t}:big") == 4


def watches(r):
    r.set("{w}:n", 0)

    def count():
        for _ in range(15):
            def work(pipe):
                n = int(pipe.get("{w}:n"))
                pipe.multi()
                pipe.set("{w}:n", n + 1).rpush("{w}:log", n)

            r.transaction(work, "{w}:n", "{w}:log")

    together(*[count] * 6)
    assert r.get("{w}:n") == "90"
    assert r.lrange("{w}:log", 0, -1) == [str(n) for n in range(90)]

    with r.pipeline() as pipe:
        pipe.watch("{w}:n")
        r.incr("{w}:n")
        pipe.multi()
        pipe.set("{w}:n", "lost")
        try:
            pipe.execute()
        except WatchError:
            pass
        else:
            raise AssertionError("another's change went unseen")
        # UNWATCH: another's change does not matter any more.
        pipe.watch("{w}:n")
        r.incr("{w}:n")
        assert pipe.unwatch() is True
        assert pipe.incr("{w}:n").execute() == [93]
    r.delete("{w}:n", "{w}:log")


def pub_sub(r):
    heard = []
    listener = r.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(**{f"ch:{i}": heard.append for i in range(10)})
    listener.psubscribe(**{"pat:*": heard.append})
    thread = listener.run_in_thread(sleep_time=0.01, daemon=True)
    within(10, lambda: dict(r.pubsub_numsub("ch:0", "ch:9")) == {"ch:0": 1, "ch:9": 1})
    within(10, lambda: r.pubsub_numpat() == 1)
    assert r.pubsub_channels("ch:*") and len(r.pubsub_channels("ch:*")) == 10

    for i in range(200):
        assert r.publish(f"ch:{i % 10}", i) == 1
        assert r.publish(f"pat:{i}", i) == 1
    within(10, lambda: len(heard) == 400)
    for i in range(10):
        # Each channel's messages are in order.
        data = [int(m["data"]) for m in heard if m["channel"] == f"ch:{i}"]
        assert data == list(range(i, 200, 10)), data
    assert {m["channel"] for m in heard if m["type"] == "pmessage"} == {f"pat:{i}" for i in range(200)}
    assert {m["pattern"] for m in heard if m["type"] == "pmessage"} == {"pat:*"}

    assert r.publish("nobody", "x") == 0
    thread.stop()
    thread.join(10)
    within(10, lambda: r.publish("ch:0", "x") == 0)

    p = r.pubsub()
    p.subscribe("ch:a")
    assert p.get_message(timeout=5)["type"] == "subscribe"
    assert p.ping() is not False
    p.unsubscribe("ch:a")
    within(5, lambda: (m := p.get_message(timeout=1)) and m["type"] == "unsubscribe")
    p.close()


def scripts(r):
    script = r.register_script("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('INCRBY', KEYS[2], ARGV[2])")
    r.script_flush()
    assert [script(keys=["{s}:a", "{s}:n"], args=["x", i]) for i in range(4)] == [0, 1, 3, 6]
    pipe = r.pipeline(transaction=True)
    script(keys=["{s}:a", "{s}:n"], args=["y", 4], client=pipe)
    pipe.get("{s}:a")
    assert pipe.execute() == [10, "y"]
    assert r.delete("{s}:a", "{s}:n") == 2


def blocking(r):
    """Workers wait on lists; each job is done once."""
    done = []

    def work():
        while True:
            _, job = r.blpop(["b:{jobs}:high", "b:{jobs}:low"], timeout=20)
            if job == "stop":
                return
            done.append(job)

    def give():
        for i in range(100):
            r.rpush("b:{jobs}:high" if i % 2 else "b:{jobs}:low", i)
        r.rpush("b:{jobs}:low", *["stop"] * 4)

    together(work, work, work, work, give)
    assert sorted(map(int, done)) == list(range(100)), done

    began = time.monotonic()
    assert r.blpop("b:none", timeout=1) is None and 0.9 < time.monotonic() - began < 10
    r.rpush("b:{m}:from", "x")
    assert r.blmove("b:{m}:from", "b:{m}:to", 1, "LEFT", "RIGHT") == "x"
    r.zadd("b:z", {"a": 1, "b": 2})
    assert [str(part) for part in r.bzpopmin("b:z", timeout=1)[:2]] == ["b:z", "a"]
    r.delete("b:{m}:to", "b:z")


def streams(r):
    r.xgroup_create("x:{jobs}", "workers", mkstream=True)
    seen = []

    def work(name):
        idle = 0
        while idle < 2:
            replies = r.xreadgroup("workers", name, {"x:{jobs}": ">"}, count=5, block=1000)
            if isinstance(replies, dict):  # RESP3
                entries = [entry for batch in replies.get("x:{jobs}", []) for entry in batch]
            else:
                entries = [entry for _, batch in replies for entry in batch]
            idle = 0 if entries else idle + 1
            for key, fields in entries:
                seen.append(int(fields["n"]))
                assert r.xack("x:{jobs}", "workers", key) == 1

    def give():
        for n in range(60):
            r.xadd("x:{jobs}", {"n": n})

    together(lambda: work("a"), lambda: work("b"), give)
    assert sorted(seen) == list(range(60)), seen
    assert r.xpending("x:{jobs}", "workers")["pending"] == 0
    r.delete("x:{jobs}")


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for protocol in (2, 3):
        r = redis.Redis(host, port, protocol=protocol, decode_responses=True)
        r.flushall()
        for check in (locks, transactions, watches, pub_sub, scripts, blocking, streams):
            check(r)
            print(f"ok redis-py {redis.__version__} RESP{protocol} {check.__name__}", flush=True)
        r.close()


if __name__ == "__main__":
    main()
