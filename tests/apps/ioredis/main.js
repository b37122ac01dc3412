// ioredis beyond single commands: transactions, pub/sub, commands of one's own, blocking connections.
//
// Usage: main.js HOST PORT. Prints a line a check; ends with 1 at the first that fails. Keys that belong together share
// a hash tag.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { Redis } = require("ioredis");

const [host, port] = [process.argv[2], Number(process.argv[3])];
let protocol;
let open = [];
const connect = (options) => {
  const redis = new Redis({ host, port, protocol, maxRetriesPerRequest: 0, ...options });
  open.push(redis);
  return redis;
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function within(seconds, condition) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, "it does not happen");
    await pause(10);
  }
}

async function transactions() {
  const redis = connect();
  assert.deepEqual(
    await redis.multi().set("{m}:n", 1).incr("{m}:n").mget("{m}:n", "{m}:none").hset("{m}:h", "f", "v").exec(),
    [[null, "OK"], [null, 2], [null, ["2", null]], [null, 1]],
  );
  // One fails, the others are done.
  const replies = await redis.multi().incr("{m}:n").incr("{m}:h").incr("{m}:n").exec();
  assert.deepEqual([replies[0], replies[2]], [[null, 3], [null, 4]]);
  assert.match(replies[1][0].message, /^WRONGTYPE/);
  // One is refused when it is queued, so nothing is done.
  await assert.rejects(redis.multi().incr("{m}:n").call("HSET", "{m}:h").exec(), /EXECABORT/);
  assert.equal(await redis.get("{m}:n"), "4");

  // Without a pipeline each command is answered by itself.
  assert.equal(await redis.multi({ pipeline: false }), "OK");
  assert.equal(await redis.incr("{m}:n"), "QUEUED");
  assert.deepEqual(await redis.exec(), [[null, 5]]);
  assert.equal(await redis.multi({ pipeline: false }), "OK");
  assert.equal(await redis.incr("{m}:n"), "QUEUED");
  assert.equal(await redis.discard(), "OK");
  assert.equal(await redis.get("{m}:n"), "5");

  // Many at once on one connection: each is by itself.
  const many = await Promise.all(
    Array.from({ length: 100 }, (_, i) => redis.multi().set(`{m${i}}:a`, i).append(`{m${i}}:a`, "!").get(`{m${i}}:a`).exec()),
  );
  many.forEach((each, i) => assert.equal(each[2][1], `${i}!`));
}

async function watches() {
  const connections = Array.from({ length: 5 }, () => connect());
  const count = async (redis) => {
    for (let done = 0; done < 10; ) {
      await redis.watch("{w}:n");
      const n = Number(await redis.get("{w}:n"));
      done += (await redis.multi().set("{w}:n", n + 1).exec()) === null ? 0 : 1;
    }
  };
  await Promise.all(connections.map(count));
  assert.equal(await connections[0].get("{w}:n"), "50");
}

async function pubSub() {
  const [listener, redis] = [connect(), connect()];
  const [heard, patterns] = [[], []];
  listener.on("message", (channel, message) => heard.push([channel, message]));
  listener.on("pmessage", (pattern, channel, message) => patterns.push([pattern, channel, message]));
  assert.equal(await listener.subscribe("ch:a", "ch:b"), 2);
  assert.equal(await listener.psubscribe("pat:*"), 3);
  assert.deepEqual(await redis.pubsub("NUMSUB", "ch:a", "ch:none"), ["ch:a", 1, "ch:none", 0]);
  for (let i = 0; i < 100; i++) {
    assert.deepEqual(await Promise.all([redis.publish("ch:a", i), redis.publish("pat:x", i)]), [1, 1]);
  }
  await within(10, () => heard.length === 100 && patterns.length === 100);
  assert.deepEqual(heard, Array.from({ length: 100 }, (_, i) => ["ch:a", String(i)]));
  assert.deepEqual(patterns, Array.from({ length: 100 }, (_, i) => ["pat:*", "pat:x", String(i)]));
  assert.equal(await listener.unsubscribe("ch:a"), 2);
  assert.equal(await redis.publish("ch:a", "unheard"), 0);

  // It subscribes again by itself when it has lost its connection.
  const before = once(listener, "ready");
  listener.disconnect(true);
  await before;
  await within(10, async () => (await redis.publish("ch:b", "again")) === 1);
  await within(10, () => heard.at(-1)[1] === "again");
  // After the last UNSUBSCRIBE it takes any command.
  assert.equal(await listener.unsubscribe("ch:b"), 1);
  assert.equal(await listener.punsubscribe("pat:*"), 0);
  assert.equal(await listener.get("pub:none"), null);
}

async function ownCommands() {
  const redis = connect({ keyPrefix: "own:" });
  redis.defineCommand("move2", {
    numberOfKeys: 2,
    lua: "redis.call('SET', KEYS[2], redis.call('GET', KEYS[1])); return redis.call('DEL', KEYS[1]) + ARGV[1]",
  });
  redis.defineCommand("any", { lua: "return {#KEYS, ARGV[1]}" });
  await redis.call("SCRIPT", "FLUSH");
  await redis.set("{o}:a", "x");
  assert.equal(await redis.move2("{o}:a", "{o}:b", 41), 42);
  assert.equal(await redis.get("{o}:b"), "x");
  assert.deepEqual(await redis.any(2, "{o}:a", "{o}:b", "z"), [2, "z"]);
  await redis.set("{o}:a", "y");
  // In a pipeline and in a transaction.
  assert.deepEqual(await redis.pipeline().move2("{o}:a", "{o}:b", 1).get("{o}:b").exec(), [[null, 2], [null, "y"]]);
  await redis.set("{o}:a", "z");
  assert.deepEqual(await redis.multi().move2("{o}:a", "{o}:b", 1).get("{o}:b").exec(), [[null, 2], [null, "z"]]);
}

async function blocking() {
  const giver = connect();
  const done = [];
  const work = async () => {
    const redis = connect();
    for (;;) {
      const [key, job] = await redis.brpop("b:{jobs}:high", "b:{jobs}:low", 20);
      if (job === "stop") return;
      done.push([key, Number(job)]);
    }
  };
  const workers = [work(), work(), work()];
  for (let i = 0; i < 90; i++) await giver.lpush(i % 2 ? "b:{jobs}:high" : "b:{jobs}:low", i);
  await giver.lpush("b:{jobs}:low", "stop", "stop", "stop");
  await Promise.all(workers);
  assert.deepEqual(done.map(([, n]) => n).sort((a, b) => a - b), Array.from({ length: 90 }, (_, i) => i));
  assert.ok(done.every(([key, n]) => key === (n % 2 ? "b:{jobs}:high" : "b:{jobs}:low")));

  // Commands behind a blocking one wait for it.
  const redis = connect();
  const replies = Promise.all([redis.set("b:after", "x"), redis.blpop("b:none", 1), redis.get("b:after")]);
  assert.deepEqual(await replies, ["OK", null, "x"]);

  const reader = connect();
  const read = reader.xread("BLOCK", 20000, "STREAMS", "b:x", "0");
  await pause(200);
  const id = await giver.xadd("b:x", "*", "k", "v");
  assert.deepEqual(await read, [["b:x", [[id, ["k", "v"]]]]]);

  // One that is closed while it waits takes nothing.
  const gone = connect();
  const waits = gone.blpop("b:gone", 20).catch(() => "closed");
  await pause(200);
  gone.disconnect();
  assert.equal(await waits, "closed");
  await pause(200);
  await giver.rpush("b:gone", "kept");
  assert.equal(await giver.lpop("b:gone"), "kept");
}

async function main() {
  for (protocol of [2, 3]) {
    await connect().flushall();
    for (const check of [transactions, watches, pubSub, ownCommands, blocking]) {
      await check();
      console.log(`ok ioredis ${require("ioredis/package.json").version} RESP${protocol} ${check.name}`);
    }
    open.forEach((each) => each.disconnect());
    open = [];
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
