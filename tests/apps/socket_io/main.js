// Two socket.io servers that know of each other only through Redis, and their clients.
//
// Usage: main.js HOST PORT. Prints a line a check; ends with 1 at the first that fails.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { createServer } = require("node:http");
const { Redis } = require("ioredis");
const { createClient } = require("redis");
const { createAdapter } = require("@socket.io/redis-adapter");
const { Server } = require("socket.io");
const { io: connect } = require("socket.io-client");

const [host, port] = [process.argv[2], Number(process.argv[3])];

// The libraries that the adapter speaks to Redis with: each makes a connection, and ends it.
const libraries = {
  ioredis: {
    open: async () => new Redis({ host, port }),
    close: (client) => client.disconnect(),
  },
  redis: {
    open: async () => createClient({ socket: { host, port } }).on("error", fail).connect(),
    close: (client) => client.close(),
  },
};

async function within(seconds, condition) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `it does not happen: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// A server with its two connections to Redis.
async function serve(library) {
  const [pub, sub] = [await library.open(), await library.open()];
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(pub, sub, { requestsTimeout: 10_000 }), serveClient: false });
  io.on("connection", (socket) => {
    socket.on("join", (room, done) => Promise.resolve(socket.join(room)).then(done));
    socket.on("say", (room, text) => socket.to(room).emit("said", text));
    socket.on("shout", (text) => socket.broadcast.emit("said", text));
  });
  io.on("sum", (numbers, done) => done(numbers.reduce((a, b) => a + b)));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const close = async () => {
    await io.close();
    await Promise.all([pub, sub].map(library.close));
  };
  return { io, port: http.address().port, close };
}

async function join(server, name) {
  const socket = connect(`http://127.0.0.1:${server.port}`, { transports: ["websocket"], auth: { name } });
  await once(socket, "connect");
  const heard = [];
  socket.on("said", (text) => heard.push(text));
  socket.on("ask", (number, answer) => answer(`${name} ${number}`));
  return { name, socket, heard };
}

const sorted = (list) => [...list].sort();

async function chat(library) {
  const [a, b] = [await serve(library), await serve(library)];
  const [ann, bob, cat, dan] = [await join(a, "ann"), await join(a, "bob"), await join(b, "cat"), await join(b, "dan")];
  const everybody = [ann, bob, cat, dan];
  const heardAre = (...expected) => {
    const is = () => JSON.stringify(everybody.map((each) => each.heard)) === JSON.stringify(expected);
    return within(10, is).then(() => everybody.forEach((each) => (each.heard.length = 0)));
  };
  // Each server must see the other: PUBSUB NUMSUB counts them.
  await within(10, async () => (await a.io.of("/").adapter.serverCount()) === 2);

  // Broadcasts reach the other server's clients, in order.
  const texts = Array.from({ length: 100 }, (_, i) => `text ${i}`);
  texts.forEach((text) => a.io.emit("said", text));
  await heardAre(texts, texts, texts, texts);
  dan.socket.emit("shout", "from dan");
  await heardAre(["from dan"], ["from dan"], ["from dan"], []);
  a.io.emit("said", Buffer.from("binary"));
  await within(10, () => everybody.every((each) => each.heard.length === 1));
  everybody.forEach((each) => assert.ok(Buffer.from("binary").equals(each.heard.pop())));

  // Rooms have members on both.
  await ann.socket.emitWithAck("join", "blue");
  await cat.socket.emitWithAck("join", "blue");
  await dan.socket.emitWithAck("join", "red");
  ann.socket.emit("say", "blue", "to the blue");
  await heardAre([], [], ["to the blue"], []);
  b.io.to("blue").to("red").emit("said", "to both");
  await heardAre(["to both"], [], ["to both"], ["to both"]);
  b.io.except("blue").emit("said", "not to the blue");
  await heardAre([], ["not to the blue"], [], ["not to the blue"]);

  // What each server knows of the other's.
  const names = (sockets) => sorted(sockets.map((socket) => socket.handshake.auth.name));
  assert.deepEqual(names(await a.io.fetchSockets()), ["ann", "bob", "cat", "dan"]);
  assert.deepEqual(names(await b.io.in("blue").fetchSockets()), ["ann", "cat"]);
  const rooms = await a.io.of("/").adapter.allRooms();
  assert.ok(rooms.has("blue") && rooms.has("red"));

  // Clients are moved and sent away from afar.
  b.io.in(bob.socket.id).socketsJoin("red");
  await within(10, async () => names(await b.io.in("red").fetchSockets()).join() === "bob,dan");
  a.io.to("red").emit("said", "red now");
  await heardAre([], ["red now"], [], ["red now"]);
  b.io.in("red").socketsLeave("red");
  await within(10, async () => (await a.io.in("red").fetchSockets()).length === 0);

  // Everybody answers, and so does the other server.
  const answers = await a.io.timeout(10_000).emitWithAck("ask", 7);
  assert.deepEqual(sorted(answers), ["ann 7", "bob 7", "cat 7", "dan 7"]);
  assert.deepEqual(await a.io.serverSideEmitWithAck("sum", [1, 2, 39]), [42]);

  a.io.in(dan.socket.id).disconnectSockets(true);
  await once(dan.socket, "disconnect");

  // A server that has left is not waited for.
  await b.close();
  await within(10, async () => (await a.io.of("/").adapter.serverCount()) === 1);
  assert.deepEqual(names(await a.io.fetchSockets()), ["ann", "bob"]);
  everybody.forEach((each) => each.socket.disconnect());
  await a.close();
}

async function main() {
  for (const [name, library] of Object.entries(libraries)) {
    await chat(library);
    console.log(`ok socket.io ${require("socket.io/package.json").version} with ${name}`);
  }
  process.exit(); // the adapter's timers would keep it for requestsTimeout
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
