//! Drives the engine, without sockets, through the main shapes of load; `tests/cost/instructions.rs` runs it in callgrind.
//!
//! Callgrind counts only what runs inside `counted_turn`, which does what the worker's shell does in a turn, and notes
//! its count whenever `note_count` is called: when a shape has been warmed up, and when it has been measured. Hardly
//! anything differs from run to run: keys are the same, and the engine's clock goes on by a millisecond a round.
//! Prints each shape's name and how many requests of it were measured, in the order of the notes.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use portico::backend::{ClientKey, LinkKey};
use portico::command::Table;
use portico::config::Config;
use portico::engine::{Effect, Engine};
use portico::session::{About, ClientFlags};
use portico::stats::Shared;
use portico::topology::Cluster;
use portico_resp::encode;
use portico_slots::{Address, Node, NodeId, Role, SLOT_COUNT, Topology};

const CLIENTS: usize = 50;
/// Rounds with keys of their own; in each every client sends its requests at once.
const ROUNDS: usize = 4;
/// What the shell reads at once.
const READ: usize = 64 * 1024;

/// What the clients do.
struct Shape {
    name: &'static str,
    command: &'static str,
    /// Keys of a request.
    keys: usize,
    /// Requests of a client that are on the way at once.
    depth: usize,
    masters: u16,
    resp3: bool,
}

const fn shape(name: &'static str, command: &'static str, keys: usize, depth: usize) -> Shape {
    Shape { name, command, keys, depth, masters: 3, resp3: false }
}

const SHAPES: [Shape; 10] = [
    shape("PING", "PING", 0, 1),
    shape("GET", "GET", 1, 1),
    shape("GET, pipeline of 16", "GET", 1, 16),
    Shape { resp3: true, ..shape("GET, pipeline of 16, RESP3", "GET", 1, 16) },
    Shape { masters: 48, ..shape("GET, pipeline of 16, 48 masters", "GET", 1, 16) },
    shape("SET", "SET", 1, 1),
    shape("SET, pipeline of 16", "SET", 1, 16),
    shape("MGET of 10 keys", "MGET", 10, 1),
    shape("MGET of 100 keys", "MGET", 100, 1),
    shape("MSET of 10 keys", "MSET", 10, 1),
];

/// Bytes for each client.
type Told = Vec<(ClientKey, Vec<u8>)>;

/// What comes in during one turn.
#[derive(Default)]
struct Turn {
    links: Vec<(LinkKey, Vec<u8>)>,
    clients: Vec<(ClientKey, Vec<u8>)>,
}

/// What went out in one turn.
#[derive(Default)]
struct Seen {
    links: Vec<(LinkKey, Vec<u8>)>,
    clients: Vec<(ClientKey, Vec<u8>)>,
    effects: Vec<Effect>,
}

struct World {
    engine: Engine,
    now: Instant,
    cluster: Arc<Cluster>,
    dirty_links: Vec<LinkKey>,
    dirty_clients: Vec<ClientKey>,
}

/// One turn of the shell, but for its sockets. Returns how many bytes went out.
#[inline(never)]
fn counted_turn(world: &mut World, turn: &Turn, mut seen: Option<&mut Seen>) -> usize {
    let World { engine, now, cluster, dirty_links, dirty_clients } = world;
    let mut bytes_out = 0;
    black_box(engine.sleep());
    engine.begin_turn(*now, cluster);
    for (key, bytes) in &turn.links {
        for piece in bytes.chunks(READ) {
            engine.link_input(*key, piece);
        }
    }
    for (key, bytes) in &turn.clients {
        for piece in bytes.chunks(READ) {
            engine.client_input(*key, piece);
        }
    }
    engine.end_turn();
    engine.take_dirty_links(dirty_links);
    for &key in &*dirty_links {
        let Some(link) = engine.link_mut(key) else { continue };
        link.dirty = false;
        let unsent = link.pipe.unsent();
        let length = unsent.len();
        if let Some(seen) = seen.as_deref_mut() {
            seen.links.push((key, unsent.to_vec()));
        }
        link.pipe.mark_sent(length);
        bytes_out += length;
    }
    engine.take_dirty_clients(dirty_clients);
    for &key in &*dirty_clients {
        let Some(client) = engine.client_mut(key) else { continue };
        client.flags.clear(ClientFlags::DIRTY);
        let untold = client.work.as_deref().map_or(&[][..], |work| &work.out[work.told..]);
        let length = untold.len();
        if let Some(seen) = seen.as_deref_mut() {
            seen.clients.push((key, untold.to_vec()));
        }
        engine.client_told(key, length);
        bytes_out += length;
    }
    let effects = engine.take_effects();
    if let Some(seen) = seen {
        seen.effects = effects;
    }
    bytes_out
}

/// Callgrind notes the count and begins a new one.
#[inline(never)]
fn note_count(shape: &Shape) {
    black_box(shape.name);
}

fn node(number: u16) -> NodeId {
    format!("{number:040}").parse().expect("forty digits are an id")
}

/// Masters that share the slots evenly.
fn cluster(masters: u16) -> Cluster {
    let nodes = (0..masters).map(|number| Node {
        id: node(number),
        address: Address::new("127.0.0.1", 7000 + number),
        role: Role::Master,
        config_epoch: 1,
        failed: false,
        suspected: false,
        connected: true,
        run_id: None,
    });
    let owner = |slot| Some(node((u32::from(slot) * u32::from(masters) / u32::from(SLOT_COUNT)) as u16));
    let topology = Topology::new(nodes.collect(), owner, []);
    let socket = |node: &Node| SocketAddr::from(([127, 0, 0, 1], node.address.port));
    let sockets = topology.nodes().iter().map(|node| Some(socket(node))).collect();
    Cluster { topology, sockets, ..Cluster::unknown(Arc::new(Table::builtin())) }
}

/// The key's value: with the key, which has 16 bytes, 64 bytes. Made fast, for callgrind is slow also where it counts
/// nothing.
fn value(key: &str, into: &mut String) {
    into.extend([key, "------------------------------------------------"]);
}

/// What a node says to a request, and what a client has to be told.
fn reply(request: &[&str], into: &mut String) {
    let bulk = |key: &str, into: &mut String| {
        into.push_str("$64\r\n");
        value(key, into);
        into.push_str("\r\n");
    };
    match *request {
        ["PING"] => into.push_str("+PONG\r\n"),
        ["GET", key] => bulk(key, into),
        ["MGET", ref keys @ ..] => {
            into.extend(["*", &keys.len().to_string(), "\r\n"]);
            keys.iter().for_each(|key| bulk(key, into));
        }
        ["HELLO", ..] => into.push_str("%1\r\n$5\r\nproto\r\n:3\r\n"),
        ["CLIENT", "ID"] => into.push_str(":7\r\n"),
        _ => into.push_str("+OK\r\n"),
    }
}

/// The replies to these requests.
fn replies(requests: &[u8]) -> Result<Vec<u8>> {
    let mut lines = std::str::from_utf8(requests)?.split_terminator("\r\n");
    let mut replies = String::new();
    while let Some(line) = lines.next() {
        let count: usize = line.strip_prefix('*').context("a request begins")?.parse()?;
        let words: Vec<&str> = lines.by_ref().take(2 * count).skip(1).step_by(2).collect();
        reply(&words, &mut replies);
    }
    Ok(replies.into_bytes())
}

/// Keys in an order that is as good as random, and the same each time: of the million that load generators use.
struct Keys(u64);

impl Keys {
    fn next(&mut self) -> String {
        self.0 += 1;
        // Fibonacci hashing: the upper bits of a multiple of 2^64 divided by the golden ratio.
        format!("key:{:012}", self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
    }
}

fn request(words: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &words.iter().map(String::as_bytes).collect::<Vec<_>>());
    bytes
}

fn requests(shape: &Shape, keys: &mut Keys) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..shape.depth {
        let mut words = vec![shape.command.to_owned()];
        for _ in 0..shape.keys {
            let key = keys.next();
            if shape.command.ends_with("SET") {
                let mut text = String::new();
                value(&key, &mut text);
                words.extend([key, text]);
            } else {
                words.push(key);
            }
        }
        bytes.extend(request(&words));
    }
    bytes
}

impl World {
    fn new(masters: u16) -> Self {
        let (now, cluster) = (Instant::now(), Arc::new(cluster(masters)));
        let config = Arc::new(Config::default());
        let shared = Arc::new(Shared::new(&config, 1, now, SystemTime::now()));
        let engine = Engine::new(config, shared, 0, Arc::clone(&cluster), now);
        Self { engine, now, cluster, dirty_links: Vec::new(), dirty_clients: Vec::new() }
    }

    fn client(&mut self) -> ClientKey {
        let client = self.engine.new_client(About::new(None, None, self.now));
        self.engine.add_client(client)
    }

    /// Turns until nothing more happens, with nodes that answer at once. Returns the turns, to be replayed, and what
    /// each client was told.
    fn settle(&mut self, first: Turn) -> Result<(Vec<Turn>, Told)> {
        let (mut turns, mut told) = (vec![first], Vec::new());
        loop {
            let mut seen = Seen::default();
            counted_turn(self, turns.last().context("there is one")?, Some(&mut seen));
            told.append(&mut seen.clients);
            let mut opened = false;
            for effect in seen.effects {
                if let Effect::OpenLink(key, _) = effect {
                    opened = true;
                    self.engine.link_open(key, "127.0.0.1:9".into());
                }
            }
            if seen.links.is_empty() && !opened {
                return Ok((turns, told));
            }
            let answer = |(key, requests): &(_, Vec<u8>)| Ok((*key, replies(requests)?));
            let links = seen.links.iter().map(answer).collect::<Result<_>>()?;
            turns.push(Turn { links, clients: Vec::new() });
        }
    }

    fn replay(&mut self, round: &[Turn]) -> usize {
        self.now += Duration::from_millis(1);
        round.iter().map(|turn| counted_turn(self, turn, None)).sum()
    }
}

/// Prepares a shape, warms it up and measures it. Returns how many requests were measured.
fn measure(shape: &Shape) -> Result<usize> {
    let mut world = World::new(shape.masters);
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.client()).collect();
    let all_send = |bytes: &mut dyn FnMut() -> Vec<u8>| Turn {
        clients: clients.iter().map(|&client| (client, bytes())).collect(),
        ..Turn::default()
    };
    if shape.resp3 {
        world.settle(all_send(&mut || request(&["HELLO".to_owned(), "3".to_owned()])))?;
    }
    let mut keys = Keys(0);
    // Opens the connections to all nodes.
    let opening = Shape { command: "GET", keys: 1, depth: 16, ..*shape };
    world.settle(all_send(&mut || requests(&opening, &mut keys)))?;
    let (mut rounds, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let first = all_send(&mut || requests(shape, &mut keys));
        let wanted = first
            .clients
            .iter()
            .map(|(key, bytes)| Ok((*key, replies(bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let (turns, told) = world.settle(first)?;
        for (client, wanted) in &wanted {
            let pieces = told.iter().filter(|(key, _)| key == client);
            let told: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes).copied().collect();
            ensure!(told == *wanted, "{}: a client was told something else", shape.name);
        }
        rounds.push(turns);
        expected.push(wanted.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }
    let mut pass = || -> Vec<usize> { rounds.iter().map(|round| world.replay(round)).collect() };
    let warm = pass();
    ensure!(warm.iter().zip(&expected).all(|(all, told)| all >= told), "{}: too few bytes", shape.name);
    note_count(shape);
    let measured = pass();
    note_count(shape);
    ensure!(measured == warm, "{}: the replay differs", shape.name);
    Ok(CLIENTS * shape.depth * ROUNDS)
}

fn main() -> Result<()> {
    for shape in &SHAPES {
        println!("{}\t{}", shape.name, measure(shape)?);
    }
    Ok(())
}
