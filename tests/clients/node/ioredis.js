// ioredis as it talks to one standalone Redis: autopipelining, a key prefix, streams of SCAN, scripts, big values.
//
// Usage: ioredis.js HOST PORT. Prints a line a check; ends with 1 at the first that fails.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const [host, port] = [process.argv[2], Number(process.argv[3])];
const connect = (options) => new Redis({ host, port, maxRetriesPerRequest: 0, ...options });

async function autopipelining() {
  const redis = connect({ enableAutoPipelining: true });
  const numbers = Array.from({ length: 2000 }, (_, i) => i);
  const set = await Promise.all(numbers.map((i) => redis.set(`auto:${i}`, `v${i}`)));
  assert.ok(set.every((reply) => reply === "OK"));
  const got = await Promise.all(numbers.map((i) => redis.get(`auto:${i}`)));
  assert.deepEqual(got, numbers.map((i) => `v${i}`));
  const mixed = await Promise.allSettled([
    redis.incr("auto:0"),
    redis.get("auto:1"),
    redis.mget("auto:1", "auto:2", "auto:none"),
  ]);
  assert.equal(mixed[0].reason.message, "ERR value is not an integer or out of range");
  assert.equal(mixed[1].value, "v1");
  assert.deepEqual(mixed[2].value, ["v1", "v2", null]);
  assert.equal(await redis.unlink(numbers.map((i) => `auto:${i}`)), 2000);
  redis.disconnect();
}

async function keyPrefix() {
  const redis = connect({ keyPrefix: "app:" });
  const plain = connect();
  await redis.mset({ a: "1", b: "2", c: "3" });
  assert.deepEqual(await redis.mget("a", "b", "c"), ["1", "2", "3"]);
  assert.deepEqual(await plain.mget("app:a", "app:b", "app:c"), ["1", "2", "3"]);
  assert.equal(await redis.exists("a", "b", "c", "d"), 3);
  await redis.hset("h", { x: "1", y: "2" });
  assert.deepEqual(await redis.hgetall("h"), { x: "1", y: "2" });
  assert.equal(await redis.del("a", "b", "c", "h"), 4);
  assert.equal(await plain.exists("app:a"), 0);
  redis.disconnect();
  plain.disconnect();
}

async function pipelines() {
  const redis = connect();
  const pipeline = redis.pipeline();
  for (let i = 0; i < 1000; i++) {
    pipeline.incrby(`pipe:${i}`, i).get(`pipe:${i}`);
  }
  const replies = await pipeline.exec();
  assert.equal(replies.length, 2000);
  replies.forEach(([error, value], n) => {
    const i = Math.floor(n / 2);
    assert.equal(error, null);
    assert.equal(value, n % 2 ? String(i) : i);
  });
  assert.equal(await redis.del(Array.from({ length: 1000 }, (_, i) => `pipe:${i}`)), 1000);
  redis.disconnect();
}

async function scanStream() {
  const redis = connect();
  const names = Array.from({ length: 500 }, (_, i) => `stream:${i}`);
  await redis.mset(names.flatMap((name) => [name, "x"]));
  const found = new Set();
  for await (const batch of redis.scanStream({ match: "stream:*", count: 30 })) {
    batch.forEach((name) => found.add(name));
  }
  assert.deepEqual([...found].sort(), [...names].sort());
  assert.equal(await redis.del(names), 500);

  await redis.hset("stream:hash", Object.fromEntries(names.map((name) => [name, "1"])));
  let fields = 0;
  for await (const batch of redis.hscanStream("stream:hash", { count: 50 })) {
    fields += batch.length / 2;
  }
  assert.equal(fields, 500);
  await redis.del("stream:hash");
  redis.disconnect();
}

async function scripts() {
  const redis = connect({
    scripts: { addTo: { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" } },
  });
  assert.equal(await redis.addTo("lua:n", 5), 5); // EVALSHA, NOSCRIPT, EVAL
  assert.equal(await redis.addTo("lua:n", 5), 10);
  assert.deepEqual(await Promise.all([1, 2, 3].map((n) => redis.addTo(`lua:{n}:${n}`, n))), [1, 2, 3]);
  await redis.del("lua:n", "lua:{n}:1", "lua:{n}:2", "lua:{n}:3");
  redis.disconnect();
}

async function bigValues() {
  const redis = connect();
  const sizes = [100_000, 1_048_576, 1_048_577, 3_000_000, 10_000_000];
  const values = sizes.map((size) => Buffer.alloc(size, `${size} bytes `));
  // All at once, with small requests between: each gets its own reply.
  const small = sizes.map((size) => redis.set(`small:${size}`, size));
  await Promise.all(values.map((value, i) => redis.set(`big:${sizes[i]}`, value)));
  await Promise.all(small);
  const replies = await Promise.all(
    sizes.flatMap((size) => [redis.getBuffer(`big:${size}`), redis.get(`small:${size}`)]),
  );
  sizes.forEach((size, i) => {
    assert.ok(values[i].equals(replies[2 * i]), `big:${size}`);
    assert.equal(replies[2 * i + 1], String(size));
  });
  await redis.del(sizes.flatMap((size) => [`big:${size}`, `small:${size}`]));
  redis.disconnect();
}

async function server() {
  const redis = connect({ connectionName: "tester" });
  assert.equal(await redis.client("GETNAME"), "tester");
  assert.match(await redis.info(), /redis_mode:standalone/);
  assert.equal(await redis.dbsize(), 0); // every check has cleared up
  assert.equal(await redis.quit(), "OK");
}

async function main() {
  const redis = connect();
  await redis.flushall();
  redis.disconnect();
  for (const check of [autopipelining, keyPrefix, pipelines, scanStream, scripts, bigValues, server]) {
    await check();
    console.log(`ok ioredis ${require("ioredis/package.json").version} ${check.name}`);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
