//! The engine without sockets: what is sent where, in which order, and what happens when a node says no or is gone.

mod failures;
mod fans;
mod hands;
mod outages;
mod pubsub;
mod tracking;
mod unread;
mod uploads;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portico_slots::{Address, Node, NodeId, Role, Slot, Topology};

use super::{Effect, Engine};
use crate::backend::{ClientKey, Lane, LinkKey};
use crate::command::Table;
use crate::config::Config;
use crate::session::About;
use crate::stats::Shared;
use crate::topology::Cluster;

/// Slots below are node 0's, the others node 1's.
const BORDER: Slot = 8192;
/// Keys of node 0 (slot 3300) and of node 1 (slot 15495).
const LOW: &str = "b";
const HIGH: &str = "a";

pub(super) struct World {
    pub(super) engine: Engine,
    now: Instant,
    pub(super) cluster: Arc<Cluster>,
    /// What each node was sent and has not answered, and where.
    pub(super) links: HashMap<LinkKey, (u16, Vec<u8>)>,
    told: HashMap<ClientKey, Vec<u8>>,
    /// Clients that read nothing.
    deaf: Vec<ClientKey>,
    /// Nodes that cannot be connected to.
    down: Vec<u16>,
}

fn node(port: u16) -> NodeId {
    format!("{port:040}").parse().expect("forty digits are an id")
}

pub(super) fn cluster(border: Slot) -> Arc<Cluster> {
    cluster_of(&[7000, 7001], border)
}

fn cluster_of(ports: &[u16], border: Slot) -> Arc<Cluster> {
    let of = |&port: &u16| Node {
        id: node(port),
        address: Address::new("127.0.0.1", port),
        role: Role::Master,
        config_epoch: 1,
        failed: false,
        suspected: false,
        connected: true,
        run_id: None,
    };
    let owner = move |slot| Some(node(if slot < border { 7000 } else { 7001 }));
    let topology = Topology::new(ports.iter().map(of).collect(), owner, []);
    let sockets =
        topology.nodes().iter().map(|node| Some(([127, 0, 0, 1], node.address.port).into())).collect();
    Arc::new(Cluster { topology, sockets, ..Cluster::unknown(Arc::new(Table::builtin())) })
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let cluster = cluster(BORDER);
        let config = Arc::new(Config::default());
        let shared = Arc::new(Shared::new(&config, 1, now, SystemTime::UNIX_EPOCH));
        let engine = Engine::new(config, shared, 0, Arc::clone(&cluster), now);
        Self {
            engine,
            now,
            cluster,
            links: HashMap::new(),
            told: HashMap::new(),
            deaf: Vec::new(),
            down: Vec::new(),
        }
    }

    pub(super) fn client(&mut self) -> ClientKey {
        let client = self.engine.new_client(About::new(None, None, self.now));
        self.engine.add_client(client)
    }

    pub(super) fn send(&mut self, client: ClientKey, lines: &[&str]) {
        let bytes = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect::<Vec<_>>();
        self.engine.client_input(client, &bytes);
        self.turn();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    /// Turns until nothing more happens: sockets open, connections are set up, bytes are taken.
    pub(super) fn turn(&mut self) {
        for _ in 0..20 {
            self.engine.begin_turn(self.now, &self.cluster);
            self.engine.end_turn();
            let (mut links, mut clients) = (Vec::new(), Vec::new());
            self.engine.take_dirty_links(&mut links);
            for key in links {
                let Some(link) = self.engine.link_mut(key) else { continue };
                link.dirty = false;
                let bytes = link.pipe.unsent().to_vec();
                link.pipe.mark_sent(bytes.len());
                if let Some((_, sent)) = self.links.get_mut(&key) {
                    sent.extend_from_slice(&bytes);
                }
                self.greet(key);
            }
            self.engine.take_dirty_clients(&mut clients);
            for key in clients {
                let Some(client) = self.engine.client_mut(key) else { continue };
                client.flags.clear(crate::session::ClientFlags::DIRTY);
                if client.flags.has(crate::session::ClientFlags::AGENT) {
                    self.engine.agent_told(key);
                    continue;
                }
                if self.deaf.contains(&key) {
                    continue;
                }
                let bytes = client.work.as_deref().map_or(Vec::new(), |work| work.out[work.told..].to_vec());
                self.told.entry(key).or_default().extend_from_slice(&bytes);
                self.engine.client_told(key, bytes.len());
            }
            for effect in self.engine.take_effects() {
                match effect {
                    Effect::OpenLink(key, address) if self.down.contains(&address.port()) => {
                        self.engine.link_lost(key);
                    }
                    Effect::OpenLink(key, address) => {
                        self.links.insert(key, (address.port(), Vec::new()));
                        self.engine.link_open(key, "127.0.0.1:9".into());
                    }
                    Effect::CloseLink(key) => {
                        self.links.remove(&key);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Answers a connection's introduction.
    fn greet(&mut self, key: LinkKey) {
        let Some((_, sent)) = self.links.get_mut(&key) else { return };
        let text = String::from_utf8_lossy(sent).into_owned();
        if !text.contains("SETNAME") {
            return;
        }
        sent.clear();
        let kills = text.matches("KILL").count();
        if text.contains("HELLO") {
            self.engine.link_input(key, b"%0\r\n");
        }
        self.engine.link_input(key, b"+OK\r\n:7\r\n$23\r\nid=7 addr=127.0.0.1:9 x\r\n+OK\r\n+OK\r\n");
        for _ in 0..kills {
            self.engine.link_input(key, b":1\r\n");
        }
        if text.contains("TRACKING") {
            self.engine.link_input(key, b"+OK\r\n");
        }
    }

    /// The clients' connection to a node.
    pub(super) fn link(&self, port: u16) -> LinkKey {
        self.link_of(port, false).expect("there is a connection to the node")
    }

    /// The connection to a node that clients share, or Portico's own.
    pub(super) fn link_of(&self, port: u16, control: bool) -> Option<LinkKey> {
        let lane = |key| self.engine.links.get(key).map(|link| link.lane);
        let is = |key| (lane(key) == Some(Lane::CONTROL)) == control;
        let all = self.links.iter().filter(|&(&key, &(at, _))| at == port && is(key));
        all.map(|(key, _)| *key).min_by_key(|&key| lane(key).map(Lane::index))
    }

    /// The connections to a node that clients have of their own, and on which something is outstanding.
    pub(super) fn own_links(&self, port: u16) -> Vec<LinkKey> {
        let own = |key| {
            self.engine.links.get(key).is_some_and(|link| link.lane.is_leased() && !link.pipe.is_empty())
        };
        self.links.iter().filter(|&(&key, &(at, _))| at == port && own(key)).map(|(key, _)| *key).collect()
    }

    /// What a node was sent since it was last asked, as words.
    pub(super) fn received(&mut self, port: u16) -> String {
        let Some(key) = self.link_of(port, false) else { return String::new() };
        self.received_on(key)
    }

    pub(super) fn received_on(&mut self, key: LinkKey) -> String {
        let Some((_, sent)) = self.links.get_mut(&key) else { return String::new() };
        let text = String::from_utf8_lossy(sent).into_owned();
        sent.clear();
        let words: Vec<_> =
            text.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with('$')).collect();
        words.join(" ")
    }

    pub(super) fn answers(&mut self, port: u16, reply: &str) {
        let key = self.link(port);
        self.engine.link_input(key, reply.as_bytes());
        self.turn();
    }

    pub(super) fn told(&mut self, client: ClientKey) -> String {
        String::from_utf8_lossy(&self.told.remove(&client).unwrap_or_default()).into_owned()
    }
}

#[test]
fn a_pipeline_is_answered_in_order_whoever_answers_first() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &[&format!("GET {LOW}"), &format!("GET {HIGH}"), "PING", &format!("GET {LOW}")]);
    assert_eq!(world.received(7000), "*2 GET b *2 GET b");
    assert_eq!(world.received(7001), "*2 GET a");
    world.answers(7001, "$1\r\n2\r\n");
    assert_eq!(world.told(client), "");
    world.answers(7000, "$1\r\n1\r\n$1\r\n3\r\n");
    assert_eq!(world.told(client), "$1\r\n1\r\n$1\r\n2\r\n+PONG\r\n$1\r\n3\r\n");
}

#[test]
fn what_is_redirected_is_sent_again_in_order_and_before_anything_new() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR b", "INCR b", "SET a 1"]);
    assert_eq!(world.received(7000), "*2 INCR b *2 INCR b");
    world.answers(7000, "-MOVED 3300 127.0.0.1:7001\r\n");
    world.send(client, &["INCR b", "GET a"]);
    assert_eq!(world.received(7001), "*3 SET a 1", "the second INCR is not answered yet");
    world.answers(7000, "-MOVED 3300 127.0.0.1:7001\r\n");
    world.answers(7001, "+OK\r\n");
    assert_eq!(world.received(7001), "*2 INCR b");
    world.answers(7001, ":1\r\n");
    assert_eq!(world.received(7001), "*2 INCR b");
    world.cluster = cluster(0);
    world.answers(7001, ":2\r\n");
    assert_eq!(world.received(7001), "*2 INCR b *2 GET a");
    world.answers(7001, ":3\r\n$1\r\n1\r\n");
    assert_eq!(world.told(client), ":1\r\n:2\r\n+OK\r\n:3\r\n$1\r\n1\r\n");
}

#[test]
fn a_node_that_has_left_answers_what_it_was_sent_before() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR b", "SET a 1"]);
    let gone = world.link(7001);
    world.received(7000);
    world.cluster = cluster_of(&[7000], Slot::MAX);
    world.answers(7000, ":1\r\n");
    assert_eq!(world.told(client), ":1\r\n");
    world.engine.link_input(gone, b"-MOVED 15495 127.0.0.1:7000\r\n");
    world.turn();
    assert_eq!(world.received(7000), "*3 SET a 1");
    world.pass(Duration::from_millis(110));
    assert!(!world.links.contains_key(&gone), "it is of no use any more");
    world.answers(7000, "+OK\r\n");
    assert_eq!(world.told(client), "+OK\r\n");
}

#[test]
fn ask_is_followed_with_asking_and_leaves_the_map_alone() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "GET b"]);
    world.answers(7000, "-ASK 3300 127.0.0.1:7001\r\n");
    assert_eq!(world.received(7001), "*2 GET a", "one after the other");
    world.answers(7001, "$1\r\na\r\n");
    assert_eq!(world.received(7001), "*1 ASKING *2 GET b");
    world.answers(7001, "+OK\r\n$1\r\nb\r\n");
    assert_eq!(world.told(client), "$1\r\na\r\n$1\r\nb\r\n");
    world.received(7000);
    world.send(client, &["GET b"]);
    assert_eq!(world.received(7000), "*2 GET b");
}

#[test]
fn a_write_of_unknown_outcome_is_told_after_the_successor_has_killed_the_connection() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR b", "GET b"]);
    world.down = vec![7000];
    let lost = world.link(7000);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    world.pass(Duration::from_millis(50));
    assert_eq!(world.told(client), "", "the node may still run it");
    world.down.clear();
    world.pass(Duration::from_secs(1));
    assert!(world.told(client).starts_with("-UNKNOWN "));
    assert_eq!(world.received(7000), "*2 GET b", "the read is sent again, the write is not");
    world.answers(7000, "$1\r\n1\r\n");
    assert_eq!(world.told(client), "$1\r\n1\r\n");
}

#[test]
fn what_never_reached_the_kernel_is_sent_to_the_new_owner() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET b"]);
    world.answers(7000, "$1\r\n1\r\n");
    world.told(client);
    // Queued, and the connection breaks before the turn writes it.
    world.engine.client_input(client, b"INCR b\r\n");
    world.down = vec![7000];
    let lost = world.link(7000);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    world.pass(Duration::from_millis(50));
    world.cluster = cluster(0);
    world.pass(Duration::from_millis(50));
    assert_eq!(world.received(7001), "*2 INCR b");
    world.answers(7001, ":1\r\n");
    assert_eq!(world.told(client), ":1\r\n");
}

#[test]
fn what_wakes_others_waits_for_the_writes_before_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET b job", "RPUSH a b", "SET b again"]);
    assert_eq!(world.received(7000), "*3 SET b job");
    assert_eq!(world.received(7001), "");
    world.answers(7000, "+OK\r\n");
    assert_eq!(world.received(7001), "*3 RPUSH a b");
    assert_eq!(world.received(7000), "*3 SET b again");
}

#[test]
fn nothing_but_the_same_keys_follows_a_request_with_several_keys_on_its_slot() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MSET {b}1 x {b}2 y", "MSET {b}1 z {b}2 z", "INCR {b}1"]);
    assert_eq!(world.received(7000), "*5 MSET {b}1 x {b}2 y *5 MSET {b}1 z {b}2 z");
    world.answers(7000, "+OK\r\n+OK\r\n");
    assert_eq!(world.received(7000), "*2 INCR {b}1");
    world.answers(7000, ":1\r\n");
    world.send(client, &["MGET {b}1 {b}2", "GET {b}1"]);
    assert_eq!(world.received(7000), "*3 MGET {b}1 {b}2 *2 GET {b}1", "reads pass each other");
}

#[test]
fn a_slow_nodes_late_reply_is_nobody_elses() {
    let mut world = World::new();
    let (gone, stays) = (world.client(), world.client());
    world.send(gone, &["GET b"]);
    world.send(stays, &["GET b"]);
    world.engine.client_gone(gone);
    world.answers(7000, "$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(world.told(stays), "$1\r\n2\r\n");
}

#[test]
fn a_client_is_given_away_between_two_requests_only() {
    let mut world = World::new();
    let client = world.client();
    world.engine.client_mut(client).expect("it is there").about.name = "mine".into();
    world.send(client, &["GET b"]);
    assert!(world.engine.release(client).is_none(), "it waits for a reply");
    world.engine.link_input(world.link(7000), b"$1\r\n1\r\n");
    assert!(world.engine.release(client).is_none(), "it was not told yet");
    world.turn();
    world.engine.client_input(client, b"*2\r\n$3\r\nGE");
    assert!(world.engine.release(client).is_none(), "half a request is here");
    world.send(client, &["T", "$1", "b"]);
    world.answers(7000, "$1\r\n2\r\n");
    assert_eq!(world.told(client), "$1\r\n1\r\n$1\r\n2\r\n");
    world.pass(Duration::from_millis(10));
    let (given, map) = world.engine.release(client).expect("it is between two requests");
    assert_eq!(world.engine.client_count(), 0);
    let key = world.engine.take_over(given, &map);
    assert_eq!(&*world.engine.client_mut(key).expect("it is there").about.name, "mine");
}

#[test]
fn what_a_client_has_written_to_is_known_to_the_worker_that_takes_it_over() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    world.answers(7001, "+OK\r\n");
    world.told(client);
    world.pass(Duration::from_millis(10));
    let (given, map) = world.engine.release(client).expect("it is between two requests");
    let before = given.written;
    let mut there = World::new();
    there.cluster = cluster_of(&[6999, 7000, 7001], BORDER);
    there.pass(Duration::from_millis(10));
    let key = there.engine.take_over(given, &map);
    let taken = there.engine.client_mut(key).expect("it is there");
    assert_eq!((before, taken.written), (0b10, 0b100));
    let lost = |client: &crate::session::Client| client.flags.has(crate::session::ClientFlags::WRITES_LOST);
    assert!(!lost(taken));
    let (given, map) = there.engine.release(key).expect("it is idle");
    let mut elsewhere = World::new();
    elsewhere.cluster = cluster_of(&[7000], Slot::MAX);
    elsewhere.pass(Duration::from_millis(10));
    let key = elsewhere.engine.take_over(given, &map);
    assert!(lost(elsewhere.engine.client_mut(key).expect("it is there")), "its master is gone");
}

/// Two workers, of which the first is asked: everybody answers, whoever the clients are with.
struct Workers {
    engines: [Engine; 2],
}

impl Workers {
    fn new() -> Self {
        let now = Instant::now();
        let config = Arc::new(Config::default());
        let shared = Arc::new(Shared::new(&config, 2, now, SystemTime::UNIX_EPOCH));
        let engine =
            |worker| Engine::new(Arc::clone(&config), Arc::clone(&shared), worker, cluster(BORDER), now);
        Self { engines: [engine(0), engine(1)] }
    }

    fn client(&mut self, worker: usize) -> ClientKey {
        let engine = &mut self.engines[worker];
        let client = engine.new_client(About::new(None, None, engine.now));
        engine.add_client(client)
    }

    /// What is told at once and after all workers have answered; which clients were closed.
    fn send(&mut self, worker: usize, client: ClientKey, line: &str) -> (String, usize) {
        self.engines[worker].client_input(client, format!("{line}\r\n").as_bytes());
        let mut closed = 0;
        for _ in 0..5 {
            for at in 0..2 {
                self.engines[at].end_turn();
                for effect in self.engines[at].take_effects() {
                    match effect {
                        Effect::Gather(gather) => self.engines.iter_mut().for_each(|e| e.asked(&gather)),
                        Effect::Gathered { to, client, seq, answer } => {
                            self.engines[to].gathered(client, seq, at, &answer);
                        }
                        Effect::CloseClient(_) => closed += 1,
                        _ => {}
                    }
                }
            }
        }
        let engine = &mut self.engines[worker];
        let told = |client: &crate::session::Client| {
            client.work.as_deref().map_or(Vec::new(), |work| work.out[work.told..].to_vec())
        };
        let told = engine.client_mut(client).map_or(Vec::new(), |client| told(client));
        engine.client_told(client, told.len());
        closed += engine.take_effects().iter().filter(|e| matches!(e, Effect::CloseClient(_))).count();
        (String::from_utf8_lossy(&told).into_owned(), closed)
    }
}

#[test]
fn clients_of_all_workers_are_listed_killed_and_paused() {
    let mut workers = Workers::new();
    let clients: Vec<_> = (0..6).map(|at| (at % 2, workers.client(at % 2))).collect();
    let (worker, first) = clients[1];
    let ids = |list: &str| -> Vec<String> {
        let lines = list.lines().filter_map(|line| line.strip_prefix("id="));
        lines.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
    };
    let (list, _) = workers.send(worker, first, "CLIENT LIST");
    assert_eq!(ids(&list), ["1", "2", "3", "4", "5", "6"]);
    let (list, _) = workers.send(worker, first, "CLIENT LIST ID 5 2 9 5");
    assert_eq!(ids(&list), ["5", "2", "5"]);

    assert_eq!(workers.send(worker, first, "CLIENT KILL ID 5"), (":1\r\n".into(), 1));
    assert_eq!(workers.send(worker, first, "CLIENT KILL ID 5"), (":0\r\n".into(), 0));
    assert_eq!(workers.send(worker, first, "CLIENT PAUSE 1000000 ALL"), ("+OK\r\n".into(), 0));
    for &(worker, client) in &clients[2..4] {
        assert_eq!(workers.send(worker, client, "PING"), (String::new(), 0), "it waits");
    }
    workers.engines[0].shared.unpause();
    workers.engines.iter_mut().for_each(Engine::look_at_pause);
    let told = workers.send(clients[2].0, clients[2].1, "ECHO x");
    assert_eq!(told, ("+PONG\r\n$1\r\nx\r\n".into(), 0));
    let told = workers.send(worker, first, "CLIENT KILL TYPE normal SKIPME no");
    assert_eq!(told, (":5\r\n".into(), 5));
    assert_eq!(workers.engines.iter().map(Engine::client_count).sum::<usize>(), 0);
}

#[test]
fn clients_stay_while_all_workers_are_asked() {
    let mut workers = Workers::new();
    let (asks, idle) = (workers.client(0), workers.client(1));
    workers.engines[0].client_input(asks, b"CLIENT LIST\r\n");
    assert!(workers.engines[1].release(idle).is_none(), "it would be missed");
    workers.send(0, asks, "PING");
    assert!(workers.engines[1].release(idle).is_some());
}
