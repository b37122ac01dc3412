"""redis-py as it talks to one standalone Redis, in RESP2 and in RESP3.

Usage: redis_py.py HOST PORT. Prints a line a check; ends with 1 at the first that fails.
"""

import sys
import threading

import redis

SCRIPT = "redis.call('INCRBY', KEYS[1], ARGV[1]); return {KEYS[1], redis.call('GET', KEYS[1]), false, 7}"


def strings(r):
    assert r.set("s:one", "1") is True
    assert r.get("s:one") == "1"
    assert r.get("s:none") is None
    assert r.set("s:one", "2", nx=True) is None
    assert r.set("s:one", "2", get=True) == "1"
    assert r.incr("s:one", 40) == 42
    assert r.append("s:one", "!") == 3
    assert r.set("s:soon", "x", ex=100) is True
    assert 90 < r.ttl("s:soon") <= 100
    assert r.getdel("s:soon") == "x"
    try:
        r.incr("s:one")
    except redis.ResponseError as error:
        assert str(error) == "value is not an integer or out of range", error
    else:
        raise AssertionError("INCR of text")


def collections(r):
    fields = {f"f{i}": f"v{i}" for i in range(300)}
    assert r.hset("h:big", mapping=fields) == 300
    assert r.hgetall("h:big") == fields
    assert r.hmget("h:big", "f1", "nothing") == ["v1", None]
    assert dict(r.hscan_iter("h:big", count=50)) == fields
    assert r.rpush("l:one", *range(10)) == 10
    assert r.lrange("l:one", 2, 4) == ["2", "3", "4"]
    assert r.sadd("set:one", "a", "b", "c") == 3
    assert r.smembers("set:one") == {"a", "b", "c"}
    assert r.zadd("z:one", {"a": 1, "b": 2.5, "c": float("inf")}) == 3
    expected = [("a", 1.0), ("b", 2.5), ("c", float("inf"))]
    assert [tuple(pair) for pair in r.zrange("z:one", 0, -1, withscores=True)] == expected
    assert r.zscore("z:one", "b") == 2.5
    entry = r.xadd("x:one", {"k": "v"})
    assert r.xrange("x:one") == [(entry, {"k": "v"})]
    assert r.geoadd("g:one", (13.361389, 38.115556, "Palermo")) == 1
    assert r.geopos("g:one", "Palermo")[0] is not None
    assert r.setbit("b:one", 7, 1) == 0 and r.bitcount("b:one") == 1
    assert r.pfadd("p:one", "a", "b") == 1 and r.pfcount("p:one") == 2


def many_keys(r):
    values = {f"m:{i}": str(i) for i in range(1000)}
    assert r.mset(values) is True
    assert r.mget([*values, "m:none"]) == [*values.values(), None]
    assert r.exists(*values, "m:none", "m:1") == 1001
    assert r.touch(*values) == 1000
    assert sorted(r.keys("m:99?")) == [f"m:99{i}" for i in range(10)]
    assert r.delete(*list(values)[:400], "m:none") == 400
    assert r.unlink(*list(values)[400:]) == 600
    assert r.mget(list(values)) == [None] * 1000


def pipelines(r):
    pipe = r.pipeline(transaction=False)
    for i in range(2000):
        pipe.set(f"pipe:{i}", i)
        pipe.incr(f"pipe:{i}")
        pipe.get(f"pipe:{i}")
    replies = pipe.execute()
    assert replies == [reply for i in range(2000) for reply in (True, i + 1, str(i + 1))]

    pipe = r.pipeline(transaction=False)
    pipe.set("pipe:text", "text").incr("pipe:text").get("pipe:text").mget([f"pipe:{i}" for i in range(20)])
    ok, error, text, several = pipe.execute(raise_on_error=False)
    assert ok is True and text == "text" and several == [str(i + 1) for i in range(20)]
    assert isinstance(error, redis.ResponseError), error
    assert r.delete(*[f"pipe:{i}" for i in range(2000)]) == 2000


def scans(r):
    names = {f"scan:{i}" for i in range(700)}
    r.mset(dict.fromkeys(names, "x"))
    r.sadd("scan:set", "x")
    assert set(r.scan_iter(match="scan:*", count=40)) == names | {"scan:set"}
    assert set(r.scan_iter(match="scan:*", _type="set")) == {"scan:set"}
    assert r.dbsize() >= 701
    r.delete(*names, "scan:set")
    assert list(r.scan_iter(match="scan:*")) == []


def scripts(r):
    assert r.set("lua:n", 1)
    assert r.eval(SCRIPT, 1, "lua:n", 41) == ["lua:n", "42", None, 7]
    script = r.register_script("return redis.call('INCR', KEYS[1])")
    assert [script(keys=["lua:n"]) for _ in range(3)] == [43, 44, 45]
    assert r.evalsha(script.sha, 1, "lua:n") == 46
    assert r.script_exists(script.sha, "0" * 40) == [True, False]
    assert r.eval("return ARGV[1]", 0, "no keys") == "no keys"
    try:
        r.eval("return redis.error_reply('MINE is an error')", 1, "lua:n")
    except redis.ResponseError as error:
        assert "MINE is an error" in str(error), error
    else:
        raise AssertionError("a script's error was lost")


def bytes_and_size(host, port, protocol):
    r = redis.Redis(host, port, protocol=protocol)
    binary = bytes(range(256)) * 4
    assert r.set(b"raw:\x00\r\n\xff", binary) and r.get(b"raw:\x00\r\n\xff") == binary
    for size in (0, 1, 16 * 1024, 65_536, 1_048_576, 1_048_577, 5_000_000, 20_000_000):
        value = (b"%010d" % size) * (size // 10) + b"x" * (size % 10)
        assert r.set("raw:big", value)
        assert r.get("raw:big") == value, size
        assert r.strlen("raw:big") == size
    assert r.delete("raw:big", b"raw:\x00\r\n\xff") == 2
    r.close()


def threads(host, port, protocol):
    """One pool, many threads: each finds what it has just written."""
    r = redis.Redis(host, port, protocol=protocol, decode_responses=True)
    failures = []

    def work(number):
        try:
            for i in range(100):
                assert r.set(f"t:{number}:{i}", f"{number}.{i}")
                assert r.get(f"t:{number}:{i}") == f"{number}.{i}"
            assert r.delete(*[f"t:{number}:{i}" for i in range(100)]) == 100
        except Exception as error:  # told by the main thread
            failures.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures, failures
    r.close()


def connection(r, protocol):
    assert r.ping() is True
    assert r.echo("hello") == "hello"
    assert r.client_setname("tester") is True and r.client_getname() == "tester"
    assert any(int(client["id"]) == r.client_id() for client in r.client_list())
    info = r.info()
    assert info["redis_mode"] == "standalone", info["redis_mode"]
    assert info["redis_version"]
    assert r.config_get("maxmemory") == {"maxmemory": "0"}
    assert r.command_count() > 200
    if protocol == 3:
        assert r.execute_command("HELLO", 3)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for protocol in (2, 3):
        # One connection: CLIENT SETNAME and CLIENT ID speak of the same one.
        r = redis.Redis(host, port, protocol=protocol, decode_responses=True, single_connection_client=True)
        assert r.flushall() is True
        for check in (strings, collections, many_keys, pipelines, scans, scripts):
            check(r)
            print(f"ok redis-py {redis.__version__} RESP{protocol} {check.__name__}", flush=True)
        connection(r, protocol)
        r.close()
        for check in (bytes_and_size, threads):
            check(host, port, protocol)
            print(f"ok redis-py {redis.__version__} RESP{protocol} {check.__name__}", flush=True)


if __name__ == "__main__":
    main()
