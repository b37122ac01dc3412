"""Django Channels' layer over pub/sub, as Django's processes talk to each other with.

Usage: main.py HOST PORT. Prints a line a check; ends with 1 at the first that fails.

RedisChannelLayer, the other one, is not here: its scripts name keys that they do not declare, which no cluster runs.
"""

import asyncio
import sys
from importlib.metadata import version

from channels_redis.pubsub import RedisPubSubChannelLayer

LIMIT = 20


async def receive(layer, channel, count):
    return [await asyncio.wait_for(layer.receive(channel), LIMIT) for _ in range(count)]


async def channels(here, there):
    """What is sent to a channel is received, in order, from whichever process it came."""
    mine, theirs = await here.new_channel(), await there.new_channel()
    for n in range(100):
        await there.send(mine, {"type": "text", "n": n})
        await here.send(theirs, {"type": "text", "n": -n, "bytes": bytes([n])})
    assert [m["n"] for m in await receive(here, mine, 100)] == list(range(100))
    assert [m["bytes"] for m in await receive(there, theirs, 100)] == [bytes([n]) for n in range(100)]


async def groups(here, there):
    members = [(layer, await layer.new_channel()) for layer in (here, there) for _ in range(5)]
    for layer, channel in members:
        await layer.group_add("room", channel)
    for n in range(20):
        await (here if n % 2 else there).group_send("room", {"type": "text", "n": n})
    for layer, channel in members:
        assert sorted(m["n"] for m in await receive(layer, channel, 20)) == list(range(20))

    left, *rest = members
    await left[0].group_discard("room", left[1])
    await there.group_send("room", {"type": "text", "n": "last"})
    for layer, channel in rest:
        assert (await receive(layer, channel, 1))[0]["n"] == "last"
    await left[0].send(left[1], {"type": "text", "n": "direct"})
    assert (await receive(*left, 1))[0]["n"] == "direct"


async def many(here, there):
    """Many consumers come and go at once."""

    async def consume(number):
        layer, other = (here, there) if number % 2 else (there, here)
        channel = await layer.new_channel()
        await layer.group_add(f"group-{number}", channel)
        await other.group_send(f"group-{number}", {"type": "text", "number": number})
        assert (await receive(layer, channel, 1))[0]["number"] == number
        await layer.group_discard(f"group-{number}", channel)

    await asyncio.gather(*[consume(number) for number in range(100)])


async def main():
    host, port = sys.argv[1], int(sys.argv[2])
    here, there = [RedisPubSubChannelLayer(hosts=[(host, port)]) for _ in range(2)]
    for check in (channels, groups, many):
        await check(here, there)
        print(f"ok channels-redis {version('channels-redis')} {check.__name__}", flush=True)
    for layer in (here, there):
        await layer.flush()


if __name__ == "__main__":
    asyncio.run(main())
