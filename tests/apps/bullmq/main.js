// BullMQ: queues, workers, and what they tell of each job.
//
// Usage: main.js HOST PORT. Prints a line a check; ends with 1 at the first that fails. Its scripts use all keys of a
// queue and of those of a flow, so that the prefix is a hash tag, as for a cluster.
"use strict";

const assert = require("node:assert/strict");
const { FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } = require("bullmq");

const connection = { host: process.argv[2], port: Number(process.argv[3]) };
const options = { connection, prefix: "{bull}" };
const LIMIT = 30_000;

let open = [];
function opened(each) {
  each.on("error", fail);
  open.push(each);
  return each;
}
const queue = (name) => opened(new Queue(name, options));
const worker = (name, work, more) => opened(new Worker(name, work, { ...options, ...more }));
async function events(name) {
  const events = opened(new QueueEvents(name, { ...options, lastEventId: "0" }));
  await events.waitUntilReady();
  return events;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function within(ms, condition) {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `it does not happen: ${condition}`);
    await pause(20);
  }
}

async function jobs() {
  const [orders, told] = [queue("orders"), await events("orders")];
  orders.setMaxListeners(200); // each job that is waited for has one
  const heard = { completed: [], progress: [] };
  told.on("completed", ({ jobId, returnvalue }) => heard.completed.push([jobId, returnvalue]));
  told.on("progress", ({ data }) => heard.progress.push(data));
  const done = [];
  const work = async (job) => {
    await job.updateProgress(50);
    await job.log(`at work on ${job.data.n}`);
    done.push(job.data.n);
    return job.data.n * 2;
  };
  worker("orders", work, { concurrency: 5 });
  worker("orders", work, { concurrency: 5 });

  const one = await orders.add("one", { n: 0 });
  const bulk = await orders.addBulk(Array.from({ length: 99 }, (_, i) => ({ name: "bulk", data: { n: i + 1 } })));
  const results = await Promise.all([one, ...bulk].map((job) => job.waitUntilFinished(told, LIMIT)));
  assert.deepEqual(results, Array.from({ length: 100 }, (_, i) => i * 2));
  assert.deepEqual(done.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i)); // each once
  await within(LIMIT, () => heard.completed.length === 100 && heard.progress.length === 100);
  assert.equal(new Set(heard.completed.map(([id]) => id)).size, 100);
  assert.deepEqual(await orders.getJobCounts("wait", "active", "completed", "failed"), {
    wait: 0, active: 0, completed: 100, failed: 0,
  });
  assert.deepEqual((await orders.getJobLogs(one.id)).logs, ["at work on 0"]);
  assert.equal((await orders.getJob(one.id)).returnvalue, 0);
}

async function failures() {
  const [mail, told] = [queue("mail"), await events("mail")];
  worker("mail", async (job) => {
    if (job.name === "hopeless") throw new UnrecoverableError("no such address");
    if (job.attemptsMade < 2) throw new Error(`busy ${job.attemptsMade}`);
    return job.attemptsMade;
  });
  const often = await mail.add("often", {}, { attempts: 5, backoff: { type: "fixed", delay: 100 } });
  assert.equal(await often.waitUntilFinished(told, LIMIT), 2);
  const rarely = await mail.add("rarely", {}, { attempts: 2 });
  await assert.rejects(rarely.waitUntilFinished(told, LIMIT), /busy 1/);
  const hopeless = await mail.add("hopeless", {}, { attempts: 5 });
  await assert.rejects(hopeless.waitUntilFinished(told, LIMIT), /no such address/);
  assert.equal(await mail.getFailedCount(), 2);
  // By hand: it has had two attempts, so that the next does it.
  await (await mail.getJob(rarely.id)).retry("failed");
  await within(LIMIT, async () => (await (await mail.getJob(rarely.id)).getState()) === "completed");
}

async function delays() {
  const [later, told] = [queue("later"), await events("later")];
  worker("later", async (job) => Date.now() - job.timestamp);
  const delayed = await Promise.all([600, 300, 900].map((delay) => later.add("job", { delay }, { delay })));
  assert.equal(await later.getDelayedCount(), 3);
  for (const job of delayed) {
    const late = await job.waitUntilFinished(told, LIMIT);
    assert.ok(late >= job.opts.delay - 5, `${late} for ${job.opts.delay}`);
  }
  const [promoted, removed] = await Promise.all([1, 2].map(() => later.add("far", {}, { delay: 3_600_000 })));
  await promoted.promote();
  await promoted.waitUntilFinished(told, LIMIT);
  await removed.remove();
  assert.equal(await later.getDelayedCount(), 0);
}

async function priorities() {
  const [tasks, told] = [queue("tasks"), await events("tasks")];
  const order = [];
  await tasks.pause();
  const added = [];
  for (const priority of [5, 1, 3, 0, 2, 4]) added.push(await tasks.add("job", { priority }, { priority }));
  worker("tasks", async (job) => order.push(job.data.priority));
  await pause(300);
  assert.deepEqual(order, []);
  await tasks.resume();
  await Promise.all(added.map((job) => job.waitUntilFinished(told, LIMIT)));
  assert.deepEqual(order, [0, 1, 2, 3, 4, 5]);
  // The same id is the same job.
  const [first, second] = [await tasks.add("job", {}, { jobId: "same" }), await tasks.add("job", {}, { jobId: "same" })];
  assert.equal(first.id, second.id);
  await first.waitUntilFinished(told, LIMIT);
}

// A parent waits for its children, which are in another queue.
async function flows() {
  const [, told] = [queue("house"), await events("house")];
  worker("walls", async (job) => job.data.n, { concurrency: 3 });
  worker("house", async (job) => Object.values(await job.getChildrenValues()).reduce((a, b) => a + b, 0));
  const flow = opened(new FlowProducer(options));
  const children = Array.from({ length: 10 }, (_, n) => ({ name: "wall", queueName: "walls", data: { n } }));
  const { job } = await flow.add({ name: "house", queueName: "house", children });
  assert.equal(await job.waitUntilFinished(told, LIMIT), 45);
  const deep = { name: "floor", queueName: "house", children };
  const { job: roof } = await flow.add({ name: "roof", queueName: "house", children: [deep, deep] });
  assert.equal(await roof.waitUntilFinished(told, LIMIT), 90);
}

async function schedules() {
  const clock = queue("clock");
  const ticks = [];
  worker("clock", async (job) => ticks.push(job.data.at), { limiter: { max: 50, duration: 1000 } });
  await clock.upsertJobScheduler("tick", { every: 200 }, { name: "tick", data: { at: "now" } });
  await within(LIMIT, () => ticks.length >= 4);
  assert.equal((await clock.getJobSchedulers()).length, 1);
  assert.ok(await clock.removeJobScheduler("tick"));
  await pause(500);
  const count = ticks.length;
  await pause(500);
  assert.equal(ticks.length, count);
  await clock.drain(true);
  await clock.obliterate({ force: true });
  assert.equal(await clock.getCompletedCount(), 0);
}

async function main() {
  for (const check of [jobs, failures, delays, priorities, flows, schedules]) {
    await check();
    await Promise.all(open.map((each) => each.close()));
    open = [];
    console.log(`ok bullmq ${require("bullmq/package.json").version} ${check.name}`);
  }
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
