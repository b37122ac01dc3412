// node-redis as it talks to one standalone Redis, in RESP2 and in RESP3: it pipelines whatever is asked in one tick.
//
// Usage: node_redis.js HOST PORT. Prints a line a check; ends with 1 at the first that fails.
"use strict";

const assert = require("node:assert/strict");
const { createClient, RESP_TYPES } = require("redis");

const [host, port] = [process.argv[2], Number(process.argv[3])];

async function values(client) {
  const names = Array.from({ length: 1000 }, (_, i) => `node:${i}`);
  await Promise.all(names.map((name, i) => client.set(name, String(i))));
  assert.deepEqual(await client.mGet(names), names.map((_, i) => String(i)));
  assert.deepEqual(
    await Promise.all(names.map((name) => client.incr(name))),
    names.map((_, i) => i + 1),
  );
  assert.equal(await client.unlink(names), 1000);
  await client.set("node:text", "x");
  await assert.rejects(client.hSet("node:text", "field", "x"), /WRONGTYPE/);
  await client.del("node:text");
}

async function collections(client) {
  await client.hSet("node:hash", { a: "1", b: "2" });
  assert.deepEqual({ ...(await client.hGetAll("node:hash")) }, { a: "1", b: "2" });
  await client.zAdd("node:zset", [{ score: 1.5, value: "x" }, { score: -2, value: "y" }]);
  assert.deepEqual(
    (await client.zRangeWithScores("node:zset", 0, -1)).map(({ score, value }) => [score, value]),
    [[-2, "y"], [1.5, "x"]],
  );
  const entry = await client.xAdd("node:stream", "*", { k: "v" });
  assert.equal((await client.xRange("node:stream", "-", "+"))[0].id, entry);
  assert.equal(await client.del(["node:hash", "node:zset", "node:stream"]), 3);
}

async function scans(client) {
  const names = Array.from({ length: 300 }, (_, i) => `scan:${i}`);
  await client.mSet(names.map((name) => [name, "x"]));
  const found = new Set();
  for await (const batch of client.scanIterator({ MATCH: "scan:*", COUNT: 20 })) {
    [batch].flat().forEach((name) => found.add(name));
  }
  assert.deepEqual([...found].sort(), [...names].sort());
  assert.equal(await client.del(names), 300);
}

async function big(client) {
  const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const value = Buffer.alloc(4_000_000, "0123456789");
  await client.set("node:big", value);
  assert.ok(value.equals(await buffers.get("node:big")));
  assert.equal(await client.del("node:big"), 1);
}

async function main() {
  for (const RESP of [2, 3]) {
    const client = createClient({ socket: { host, port, reconnectStrategy: false }, RESP, name: "tester" });
    client.on("error", (error) => {
      throw error;
    });
    await client.connect();
    await client.flushAll();
    assert.equal(await client.clientGetName(), "tester");
    for (const check of [values, collections, scans, big]) {
      await check(client);
      console.log(`ok node-redis ${require("redis/package.json").version} RESP${RESP} ${check.name}`);
    }
    assert.equal(await client.dbSize(), 0);
    await client.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
