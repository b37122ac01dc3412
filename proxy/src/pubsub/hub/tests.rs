//! Where what is subscribed, from whom messages are taken, and what becomes of that when the cluster changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_slots::{Address, Node, NodeId, Role, Slot, Topology, slot};
use slotmap::SlotMap;

use super::{Hub, Order, SETTLE, World};
use crate::backend::ClientKey;
use crate::pubsub::{Heard, Kind, Name, Registry};

fn id(number: u8) -> NodeId {
    format!("{number:040}").parse().expect("forty digits are an id")
}

fn name(text: &str) -> Name {
    text.as_bytes().into()
}

/// Slot 3300, node 1's at first; and slot 15495, node 2's.
const LOW: &str = "b";
const HIGH: &str = "a";

/// Nodes 1 and 2 share the slots at a border; 3 follows 1.
fn topology(border: Slot, roles: [Role; 3]) -> Topology {
    let node = |number: u8, role| Node {
        id: id(number),
        address: Address::new("127.0.0.1", 7000 + u16::from(number)),
        role,
        config_epoch: 1,
        failed: false,
        suspected: false,
        connected: true,
        run_id: None,
    };
    let low = if roles[0] == Role::Master { 1 } else { 3 };
    let nodes = (1..).zip(roles).map(|(number, role)| node(number, role)).collect();
    Topology::new(nodes, |slot| Some(id(if slot < border { low } else { 2 })), [])
}

fn settled(border: Slot) -> Topology {
    topology(border, [Role::Master, Role::Master, Role::Replica { of: id(1) }])
}

/// 3 has taken 1's place.
fn failed_over() -> Topology {
    topology(8192, [Role::Replica { of: id(3) }, Role::Master, Role::Master])
}

struct Bench {
    hub: Hub,
    registry: Arc<Registry>,
    topology: Topology,
    now: Instant,
    /// A node that cannot be reached.
    down: Option<NodeId>,
    clients: SlotMap<ClientKey, ()>,
}

impl Bench {
    fn new() -> Self {
        let registry = Arc::new(Registry::default());
        let hub = Hub::new(Arc::clone(&registry));
        Self {
            hub,
            registry,
            topology: settled(8192),
            now: Instant::now(),
            down: None,
            clients: SlotMap::with_key(),
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Hub, &World<'_>) -> T) -> T {
        let is_down = |node| self.down == Some(node);
        let world = World { topology: &self.topology, now: self.now, stale: false, is_down: &is_down };
        act(&mut self.hub, &world)
    }

    /// As the engine does: opens what is needed, sends what is missing, has it confirmed. Returns what was sent.
    fn review(&mut self) -> Vec<String> {
        let now = self.now;
        let needed = self.with(|hub, world| {
            hub.map_changed();
            hub.settle(world);
            hub.needed(world)
        });
        for node in needed {
            match self.down == Some(node) {
                true => self.hub.opening(node, now),
                false => self.hub.ready(node, now),
            }
        }
        let (mut orders, _) = self.with(|hub, world| hub.walk(world, usize::MAX));
        orders.sort_by_key(|order| (order.leave, order.node));
        orders.into_iter().map(|order| self.confirm(order)).collect()
    }

    fn confirm(&mut self, order: Order) -> String {
        let names: Vec<_> =
            order.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let verb = if order.leave { order.kind.leave() } else { order.kind.join() };
        let said = format!("{}: {verb} {}", &order.node.as_str()[39..], names.join(" "));
        let node = order.node;
        self.hub.sent(order);
        assert!(self.hub.done(node).is_some());
        said
    }

    fn listen(&mut self, kind: Kind, text: &str) -> ClientKey {
        let client = self.clients.insert(());
        self.with(|hub, world| hub.expect(kind, &name(text), client, world));
        self.review();
        assert!(self.with(|hub, world| hub.is_established(kind, text.as_bytes(), world)), "{text}");
        self.hub.listen(kind, &name(text), client);
        assert!(self.hub.leave_waiting(kind, &name(text), client).is_empty());
        client
    }

    fn hears(&self, kind: Kind, name: &str, channel: &str) -> Vec<u8> {
        let heard = Heard { kind, name: name.as_bytes(), channel: channel.as_bytes() };
        (1..=3).filter(|&node| self.hub.accepts(&heard, id(node), &self.topology)).collect()
    }
}

#[test]
fn a_channel_is_at_its_slots_owner_and_stays_there_when_the_slot_moves() {
    let mut bench = Bench::new();
    bench.listen(Kind::Channel, LOW);
    assert_eq!(bench.hears(Kind::Channel, LOW, LOW), [1]);
    bench.topology = settled(0);
    assert!(bench.review().is_empty());
    assert_eq!(bench.hears(Kind::Channel, LOW, LOW), [1], "still from one and the same");
    assert_eq!(bench.hub.source(slot(HIGH.as_bytes())), Some(id(2)));
}

#[test]
fn when_the_source_is_lost_the_owner_follows_it_but_not_at_once() {
    let mut bench = Bench::new();
    bench.listen(Kind::Channel, LOW);
    bench.topology = settled(0);
    let now = bench.now;
    bench.hub.lost(id(1), now);
    bench.with(Hub::settle);
    assert_eq!(
        bench.hub.source(slot(LOW.as_bytes())),
        Some(id(1)),
        "its last words may be on their way to others"
    );
    bench.now += SETTLE;
    assert_eq!(bench.review(), ["2: subscribe b"]);
    assert_eq!(bench.hears(Kind::Channel, LOW, LOW), [2]);
}

#[test]
fn a_source_that_comes_back_is_asked_again() {
    let mut bench = Bench::new();
    bench.listen(Kind::Channel, LOW);
    let now = bench.now;
    bench.hub.lost(id(1), now);
    bench.now += Duration::from_millis(5);
    assert_eq!(bench.review(), ["1: subscribe b"]);
}

#[test]
fn a_pattern_is_everywhere_and_hears_each_message_once_and_all_keys() {
    let mut bench = Bench::new();
    bench.listen(Kind::Pattern, "*");
    assert_eq!(bench.hears(Kind::Pattern, "*", LOW), [1]);
    assert_eq!(bench.hears(Kind::Pattern, "*", HIGH), [2]);
    assert_eq!(bench.hears(Kind::Pattern, "*", "__keyevent@0__:set"), [1, 2]);
    bench.topology = failed_over();
    assert_eq!(bench.review(), ["3: psubscribe *"], "and stays at 1, which is the source of its slots");
    assert_eq!(bench.hears(Kind::Pattern, "*", LOW), [1]);
    assert_eq!(bench.hears(Kind::Pattern, "*", "__keyspace@0__:k"), [2, 3], "a replica says it once more");
}

#[test]
fn while_an_owner_is_down_another_master_is_the_source() {
    let mut bench = Bench::new();
    bench.down = Some(id(1));
    let client = bench.listen(Kind::Channel, LOW);
    assert_eq!(bench.hears(Kind::Channel, LOW, LOW), [2]);
    bench.down = None;
    assert!(bench.review().is_empty(), "it stays there");
    assert_eq!(bench.hub.leave(Kind::Channel, &name(LOW), client).len(), 1);
    bench.listen(Kind::Channel, HIGH);
    assert_eq!(bench.hub.source(slot(LOW.as_bytes())), Some(id(1)), "whoever listens later has the owner");
}

#[test]
fn only_a_master_that_the_cluster_has_given_up_is_not_waited_for_to_hear_of_keys() {
    let mut bench = Bench::new();
    bench.down = Some(id(1));
    bench.listen(Kind::Pattern, "news*");
    let client = bench.clients.insert(());
    let keys = "__key*";
    bench.with(|hub, world| hub.expect(Kind::Pattern, &name(keys), client, world));
    bench.review();
    let established =
        |hub: &mut Hub, world: &World<'_>| hub.is_established(Kind::Pattern, keys.as_bytes(), world);
    assert!(!bench.with(established), "it lives, and is not listened to");
    assert!(bench.with(|hub, world| hub.unheard(world)).is_empty(), "that is no news yet");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.with(|hub, world| hub.unheard(world)), [id(1)].into());
    let nodes = bench.topology.nodes().iter().cloned();
    let nodes = nodes.map(|node| Node { failed: node.id == id(1), ..node }).collect();
    bench.topology = Topology::new(nodes, |slot| Some(id(if slot < 8192 { 1 } else { 2 })), []);
    assert!(bench.with(established), "it has none to tell of");
    bench.down = None;
    bench.review();
    assert!(bench.with(|hub, world| hub.unheard(world)).is_empty(), "and tells when it is back");
}

#[test]
fn nobody_is_told_that_he_listens_everywhere_while_the_map_may_be_old() {
    let mut bench = Bench::new();
    bench.listen(Kind::Pattern, "*");
    let stale = |hub: &mut Hub, world: &World<'_>| {
        let world = World { stale: true, topology: world.topology, now: world.now, is_down: world.is_down };
        hub.is_established(Kind::Pattern, b"*", &world)
    };
    assert!(!bench.with(stale));
}

#[test]
fn a_sharded_channel_follows_its_slot_to_another_shard() {
    let mut bench = Bench::new();
    bench.listen(Kind::Shard, LOW);
    assert_eq!(bench.hears(Kind::Shard, LOW, LOW), [1]);
    assert!(bench.hub.unsubscribed(id(1), LOW.as_bytes()), "nobody asked for that");
    assert!(bench.hears(Kind::Shard, LOW, LOW).is_empty());
    bench.topology = settled(0);
    assert_eq!(bench.review(), ["2: ssubscribe b"]);
    assert_eq!(bench.hears(Kind::Shard, LOW, LOW), [2]);
}

#[test]
fn a_sharded_channel_stays_with_a_master_that_becomes_a_replica() {
    let mut bench = Bench::new();
    bench.listen(Kind::Shard, LOW);
    bench.topology = failed_over();
    assert!(bench.review().is_empty());
    assert_eq!(bench.hears(Kind::Shard, LOW, LOW), [1]);
    let now = bench.now;
    bench.hub.lost(id(1), now);
    bench.with(Hub::settle);
    let homes = bench.with(|hub, world| hub.needed(world));
    assert!(homes.is_empty(), "what it told may be on its way to the new master");
    bench.now += SETTLE;
    assert_eq!(bench.review(), ["3: ssubscribe b"]);
}

#[test]
fn the_last_one_who_leaves_ends_the_subscription() {
    let mut bench = Bench::new();
    let (one, other) = (bench.listen(Kind::Channel, LOW), bench.listen(Kind::Channel, LOW));
    assert_eq!(bench.registry.receivers(Kind::Channel, LOW.as_bytes(), id(1), 1), 2);
    assert!(bench.hub.leave(Kind::Channel, &name(LOW), one).is_empty());
    let orders = bench.hub.leave(Kind::Channel, &name(LOW), other);
    assert_eq!(orders.len(), 1);
    assert!(bench.hub.is_leaving(Kind::Channel, &name(LOW)));
    assert_eq!(
        bench.registry.receivers(Kind::Channel, LOW.as_bytes(), id(1), 1),
        0,
        "the node counts it still"
    );
    for order in orders {
        assert_eq!(bench.confirm(order), "1: unsubscribe b");
    }
    assert!(!bench.hub.is_leaving(Kind::Channel, &name(LOW)) && bench.hub.is_empty());
    assert!(!bench.registry.is_used());
}

#[test]
fn what_a_node_refused_is_asked_for_again_and_not_taken_for_granted() {
    let mut bench = Bench::new();
    let client = bench.clients.insert(());
    bench.with(|hub, world| hub.expect(Kind::Shard, &name(LOW), client, world));
    let now = bench.now;
    bench.hub.ready(id(1), now);
    let (orders, _) = bench.with(|hub, world| hub.walk(world, usize::MAX));
    bench.hub.sent(orders[0].clone());
    bench.hub.refused(id(1), b"-MOVED 3300 127.0.0.1:7002\r\n");
    let (_, refused) = bench.hub.done(id(1)).expect("it was sent");
    assert!(refused.is_some_and(|error| error.starts_with(b"-MOVED")));
    assert!(!bench.with(|hub, world| hub.is_established(Kind::Shard, LOW.as_bytes(), world)));
    bench.hub.postpone(Kind::Shard, LOW.as_bytes(), now + Duration::from_millis(20));
    let (orders, later) = bench.with(|hub, world| hub.walk(world, usize::MAX));
    assert!(orders.is_empty() && later);
    bench.now += Duration::from_millis(20);
    assert_eq!(bench.review(), ["1: ssubscribe b"]);
    assert_eq!(bench.hub.waiters(Kind::Shard, LOW.as_bytes()), [client]);
}

#[test]
fn what_is_not_asked_for_yet_is_known() {
    let mut bench = Bench::new();
    let (client, now) = (bench.clients.insert(()), bench.now);
    bench.with(|hub, world| hub.expect(Kind::Channel, &name(LOW), client, world));
    let asked = |hub: &mut Hub, world: &World<'_>| hub.is_asked_for(Kind::Channel, &name(LOW), world);
    assert!(!bench.with(asked), "there is no connection");
    bench.hub.opening(id(1), now);
    assert!(bench.with(asked), "it will be asked for when there is one");
    bench.hub.ready(id(1), now);
    assert!(!bench.with(asked));
    let (orders, _) = bench.with(|hub, world| hub.walk(world, usize::MAX));
    assert!(bench.with(asked) && orders.len() == 1);
    bench.hub.lost(id(1), now);
    bench.hub.ready(id(1), now);
    assert!(!bench.with(asked), "that connection is gone");
}

#[test]
fn who_asked_for_a_name_twice_waits_for_it_until_both_are_answered() {
    let mut bench = Bench::new();
    let client = bench.clients.insert(());
    for _ in 0..2 {
        bench.with(|hub, world| hub.expect(Kind::Channel, &name(LOW), client, world));
    }
    assert!(bench.hub.leave_waiting(Kind::Channel, &name(LOW), client).is_empty());
    assert_eq!(bench.hub.waiters(Kind::Channel, LOW.as_bytes()), [client]);
    bench.hub.leave_waiting(Kind::Channel, &name(LOW), client);
    assert!(bench.hub.is_empty());
}

#[test]
fn names_of_one_slot_may_have_different_homes_after_a_failover() {
    let mut bench = Bench::new();
    bench.listen(Kind::Shard, LOW);
    bench.topology = failed_over();
    let other = format!("{{{LOW}}}");
    bench.listen(Kind::Shard, &other);
    let mut needed: Vec<_> = bench.with(|hub, world| hub.needed(world)).into_iter().collect();
    needed.sort_unstable();
    assert_eq!(bench.hears(Kind::Shard, LOW, LOW), [1]);
    assert_eq!(needed, [id(1), id(3)]);
}
