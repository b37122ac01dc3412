//! A worker's subscriptions: its clients', and what has to be subscribed at the nodes for them.
//!
//! A channel is subscribed at one node, the source of its slot; a pattern at every master, and each message that it
//! matches is taken from the source of the message's channel. So all that is said on a channel comes on one
//! connection, in one order, whoever listens how. What nodes tell of their keys is taken from every master; a sharded
//! channel is subscribed at its slot's owner, which alone has its messages.
//!
//! What nobody listens to any more is unsubscribed at once, and the last one who left is told so when the node has
//! done it: a PUBLISH on another connection must not count what is gone.

mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use portico_slots::{NodeId, Role, SLOT_COUNT, Slot, Topology, slot};

use super::sources::Sources;
use super::{Heard, Kind, Name, Registry, is_of_keyspace, may_be_of_keyspace};
use crate::backend::ClientKey;

/// After a slot's source was lost, another node becomes it only when what the old one told has reached that too.
const SETTLE: Duration = Duration::from_millis(250);
/// A connection that has been missing for less is no gap worth telling of.
const GAP: Duration = Duration::from_secs(1);
/// Names in one command, at most.
const BATCH: usize = 100;

/// The cluster as it is now.
pub struct World<'a> {
    /// The map.
    pub topology: &'a Topology,
    /// The time.
    pub now: Instant,
    /// The map is to be read again before anybody is told that all masters are listened to.
    pub stale: bool,
    /// Whether a node cannot be reached, as far as is known.
    pub is_down: &'a dyn Fn(NodeId) -> bool,
}

impl World<'_> {
    fn owner(&self, slot: Slot) -> Option<NodeId> {
        self.topology.owner(slot).map(|index| self.topology.node(index).id)
    }

    fn follows(&self, node: NodeId, master: NodeId) -> bool {
        let index = self.topology.index_of(&node);
        index.is_some_and(|index| self.topology.node(index).role == Role::Replica { of: master })
    }

    fn has_failed(&self, node: NodeId) -> bool {
        let index = self.topology.index_of(&node);
        index.is_none_or(|index| self.topology.node(index).failed)
    }

    fn masters(&self) -> impl Iterator<Item = NodeId> {
        self.topology.masters().iter().map(|&index| self.topology.node(index).id)
    }
}

/// A command to be sent to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The node.
    pub node: NodeId,
    /// What kind of names.
    pub kind: Kind,
    /// It ends subscriptions.
    pub leave: bool,
    /// The names; sharded channels of one slot.
    pub names: Vec<Name>,
}

/// One channel or pattern that somebody listens to, or did a moment ago.
#[derive(Debug)]
struct Topic {
    slot: Slot,
    /// Subscribed at every master.
    everywhere: bool,
    /// Each master's own word counts: what happens to its keys is told by no other.
    of_keys: bool,
    listeners: BTreeSet<ClientKey>,
    /// How often each of them has asked for it.
    waiters: BTreeMap<ClientKey, u32>,
    /// A node refused it: not to be asked again before.
    not_before: Option<Instant>,
}

/// A name at one node.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// As the last command had it.
    wanted: bool,
    /// Commands that the node has not answered.
    outstanding: u32,
    /// The registry counts it.
    counted: bool,
}

/// The connection to one node.
#[derive(Debug)]
struct Upstream {
    ready: bool,
    /// Since when it is ready, or not.
    since: Instant,
    names: IndexMap<(Kind, Name), State>,
    commands: VecDeque<Order>,
    refused: Option<Vec<u8>>,
}

/// A worker's subscriptions.
#[derive(Debug)]
pub struct Hub {
    registry: Arc<Registry>,
    topics: [IndexMap<Name, Topic>; 3],
    /// How many names of each slot there are that are subscribed at one node, by kind.
    slots: [Vec<u32>; 3],
    /// How many of them are subscribed at every master.
    everywhere: usize,
    /// How many of them may be about keys.
    of_keys: usize,
    sources: Sources,
    upstreams: HashMap<NodeId, Upstream>,
    /// Topics that somebody waits for.
    waiting: [HashSet<Name>; 3],
    /// Who does, and for how many.
    waiters: BTreeMap<ClientKey, u32>,
    /// Names that are to be looked at, since something has changed.
    walk: walk::Walk,
}

impl Hub {
    /// A hub without subscriptions, which tells `registry` what it has.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            topics: Default::default(),
            slots: Default::default(),
            everywhere: 0,
            of_keys: 0,
            sources: Sources::default(),
            upstreams: HashMap::new(),
            waiting: Default::default(),
            waiters: BTreeMap::new(),
            walk: walk::Walk::default(),
        }
    }

    /// Whether nothing is subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.iter().all(IndexMap::is_empty)
    }

    /// How many channels and patterns are subscribed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.iter().map(IndexMap::len).sum()
    }

    /// A client wants to listen. Returns whether it can at once.
    pub fn expect(&mut self, kind: Kind, name: &Name, client: ClientKey, world: &World<'_>) -> bool {
        if self.is_empty() {
            self.sources.clear();
            self.settle(world);
        }
        let (everywhere_number, of_keys_number) = (&mut self.everywhere, &mut self.of_keys);
        let slots = &mut self.slots[kind.index()];
        let topic = self.topics[kind.index()].entry(Name::clone(name)).or_insert_with(|| {
            let of_keys = match kind {
                Kind::Channel => is_of_keyspace(name),
                Kind::Pattern => may_be_of_keyspace(name),
                Kind::Shard => false,
            };
            let everywhere = kind == Kind::Pattern || of_keys;
            *everywhere_number += usize::from(everywhere);
            *of_keys_number += usize::from(of_keys);
            let slot = slot(name);
            if !everywhere {
                slots.resize(usize::from(SLOT_COUNT), 0);
                slots[usize::from(slot)] += 1;
            }
            let (listeners, waiters) = (BTreeSet::new(), BTreeMap::new());
            Topic { slot, everywhere, of_keys, listeners, waiters, not_before: None }
        });
        *topic.waiters.entry(client).or_default() += 1;
        *self.waiters.entry(client).or_default() += 1;
        self.waiting[kind.index()].insert(Name::clone(name));
        self.is_established(kind, name, world)
    }

    /// Whether clients wait until they can hear what is published on a channel.
    #[must_use]
    pub fn is_awaited(&self, channel: &[u8]) -> bool {
        let [channels, patterns, shards] = &self.waiting;
        channels.contains(channel)
            || shards.contains(channel)
            || patterns.iter().any(|pattern| super::glob::matches(pattern, channel))
    }

    /// A client listens from now on.
    pub fn listen(&mut self, kind: Kind, name: &Name, client: ClientKey) {
        let Some(topic) = self.topics[kind.index()].get_mut(name) else { return };
        if topic.listeners.insert(client) {
            self.registry.client(kind, name, true);
        }
    }

    /// A client does not listen any more. Returns what has to be sent if it was the last.
    pub fn leave(&mut self, kind: Kind, name: &Name, client: ClientKey) -> Vec<Order> {
        if let Some(topic) = self.topics[kind.index()].get_mut(name)
            && topic.listeners.remove(&client)
        {
            self.registry.client(kind, name, false);
        }
        self.end_unused(kind, name)
    }

    /// A client does not wait for a name any more, since it listens or since it gave up: as often as it was expected.
    pub fn leave_waiting(&mut self, kind: Kind, name: &Name, client: ClientKey) -> Vec<Order> {
        let Some(topic) = self.topics[kind.index()].get_mut(name) else { return Vec::new() };
        let one_less = |waiters: &mut BTreeMap<ClientKey, u32>| {
            if let Some(times) = waiters.get_mut(&client) {
                *times -= 1;
                if *times == 0 {
                    waiters.remove(&client);
                }
            }
        };
        if topic.waiters.contains_key(&client) {
            one_less(&mut topic.waiters);
            one_less(&mut self.waiters);
        }
        if topic.waiters.is_empty() {
            self.waiting[kind.index()].remove(name);
        }
        self.end_unused(kind, name)
    }

    /// Unsubscribes a name if nobody listens to it, or waits for it, any more.
    fn end_unused(&mut self, kind: Kind, name: &Name) -> Vec<Order> {
        let topics = &mut self.topics[kind.index()];
        if topics.get(name).is_none_or(|topic| !(topic.listeners.is_empty() && topic.waiters.is_empty())) {
            return Vec::new();
        }
        if let Some(topic) = topics.swap_remove(name) {
            self.everywhere -= usize::from(topic.everywhere);
            self.of_keys -= usize::from(topic.of_keys);
            if !topic.everywhere {
                self.slots[kind.index()][usize::from(topic.slot)] -= 1;
            }
        }
        let key = (kind, Name::clone(name));
        let mut orders = Vec::new();
        for (&node, upstream) in &mut self.upstreams {
            if let Some(state) = upstream.names.get_mut(&key).filter(|state| state.wanted) {
                state.wanted = false;
                state.outstanding += 1;
                orders.push(Order { node, kind, leave: true, names: vec![Name::clone(name)] });
            }
        }
        orders
    }

    /// Whether a node was told that a name is not wanted any more, and has not said that it is done with that.
    #[must_use]
    pub fn is_leaving(&self, kind: Kind, name: &Name) -> bool {
        let key = (kind, Name::clone(name));
        self.upstreams.values().any(|upstream| upstream.names.get(&key).is_some_and(|state| !state.wanted))
    }

    /// Who listens.
    pub fn listeners(&self, kind: Kind, name: &[u8]) -> impl Iterator<Item = ClientKey> {
        self.topics[kind.index()].get(name).into_iter().flat_map(|topic| topic.listeners.iter().copied())
    }

    /// Those who wait for a name and listen to nothing else, if it can be listened to now.
    #[must_use]
    pub fn waiters(&self, kind: Kind, name: &[u8]) -> Vec<ClientKey> {
        let topic = self.topics[kind.index()].get(name);
        topic.map_or_else(Vec::new, |topic| topic.waiters.keys().copied().collect())
    }

    /// Who waits for anything.
    #[must_use]
    pub fn all_waiters(&self) -> Vec<ClientKey> {
        self.waiters.keys().copied().collect()
    }

    /// The nodes at which a topic has to be subscribed.
    fn homes(&self, kind: Kind, name: &Name, topic: &Topic, world: &World<'_>) -> Vec<NodeId> {
        match kind {
            _ if topic.everywhere => self.everywhere(world),
            Kind::Shard => self.home_of_shard(name, topic, world).into_iter().collect(),
            _ => self.sources.of(topic.slot).into_iter().collect(),
        }
    }

    /// The slot's owner; or the node at which the channel is subscribed, if that has become a replica of the owner:
    /// there its messages come as before, while the owner may still be given some that were heard already.
    fn home_of_shard(&self, name: &Name, topic: &Topic, world: &World<'_>) -> Option<NodeId> {
        let owner = world.owner(topic.slot)?;
        let key = (Kind::Shard, Name::clone(name));
        let listens = |upstream: &Upstream| upstream.names.get(&key).is_some_and(|state| state.wanted);
        for (&node, upstream) in &self.upstreams {
            if node == owner || !world.follows(node, owner) {
                continue;
            }
            if upstream.ready && listens(upstream) {
                return Some(node);
            }
            if !upstream.ready && world.now < upstream.since + SETTLE {
                return None;
            }
        }
        Some(owner)
    }

    /// Whether one of the nodes that are listened to, or were a moment ago, is a replica of a slot's owner.
    fn has_replica(&self, slot: Slot, world: &World<'_>) -> bool {
        let follows = |owner: NodeId| self.upstreams.keys().any(|&node| world.follows(node, owner));
        world.owner(slot).is_some_and(follows)
    }

    fn everywhere(&self, world: &World<'_>) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = world.masters().chain(self.sources.nodes()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Whether all has been asked of the nodes so that a name is subscribed wherever it has to be, or is about to be:
    /// while a connection is being made, all names are looked at again and again.
    #[must_use]
    pub fn is_asked_for(&self, kind: Kind, name: &Name, world: &World<'_>) -> bool {
        let Some(topic) = self.topics[kind.index()].get(name) else { return true };
        let key = (kind, Name::clone(name));
        let asked = |upstream: &Upstream| {
            !upstream.ready || upstream.names.get(&key).is_some_and(|state| state.wanted)
        };
        let homes = self.homes(kind, name, topic, world);
        !homes.is_empty() && homes.iter().all(|node| self.upstreams.get(node).is_some_and(asked))
    }

    /// Whether a name is subscribed wherever it has to be and can be.
    #[must_use]
    pub fn is_established(&self, kind: Kind, name: &[u8], world: &World<'_>) -> bool {
        let Some((name, topic)) = self.topics[kind.index()].get_key_value(name) else { return false };
        let key = (kind, Name::clone(name));
        let confirmed = |node: &NodeId| {
            let state = self.upstreams.get(node).and_then(|upstream| upstream.names.get(&key));
            state.is_some_and(|state| state.wanted && state.outstanding == 0)
        };
        // Another master has the same messages, but nobody else tells of a master's keys: only one that the cluster has
        // given up has none to tell of.
        let excused = |node: &NodeId| match topic.of_keys {
            true => world.has_failed(*node),
            false => topic.everywhere && (world.is_down)(*node),
        };
        let homes = self.homes(kind, name, topic, world);
        homes.iter().any(confirmed)
            && !(topic.everywhere && world.stale)
            && homes.iter().all(|node| confirmed(node) || excused(node))
    }

    /// Masters of which nobody hears what happens to their keys, although somebody listens to that.
    #[must_use]
    pub fn unheard(&self, world: &World<'_>) -> BTreeSet<NodeId> {
        let lacks = |node: &NodeId| {
            let upstream = self.upstreams.get(node);
            upstream.is_some_and(|upstream| !upstream.ready && world.now >= upstream.since + GAP)
        };
        world.masters().filter(|node| self.of_keys > 0 && lacks(node)).collect()
    }

    /// Whether what a node pushed is to be heard. All others say it too, or it is late.
    #[must_use]
    pub fn accepts(&self, heard: &Heard<'_>, node: NodeId, topology: &Topology) -> bool {
        if heard.kind == Kind::Shard {
            let Some((name, _)) = self.topics[Kind::Shard.index()].get_key_value(heard.name) else {
                return false;
            };
            let upstream = self.upstreams.get(&node);
            let state = upstream.and_then(|upstream| upstream.names.get(&(Kind::Shard, Name::clone(name))));
            return state.is_some_and(|state| state.wanted);
        }
        if is_of_keyspace(heard.channel) {
            // A replica tells of its keys too, once more.
            return topology.index_of(&node).is_some_and(|index| topology.masters().contains(&index));
        }
        self.sources.of(slot(heard.channel)) == Some(node)
    }

    /// The node from which messages on a slot's channels are taken.
    #[must_use]
    pub fn source(&self, slot: Slot) -> Option<NodeId> {
        self.sources.of(slot)
    }

    /// Whether anybody listens to what all masters say.
    #[must_use]
    pub fn listens_everywhere(&self) -> bool {
        self.everywhere > 0
    }

    /// Whether a name may be about keys: each master has to be listened to.
    #[must_use]
    pub fn is_of_keys(&self, kind: Kind, name: &[u8]) -> bool {
        self.topics[kind.index()].get(name).is_some_and(|topic| topic.of_keys)
    }

    /// A connection to a node is being made.
    pub fn opening(&mut self, node: NodeId, now: Instant) {
        self.upstreams.entry(node).or_insert_with(|| Upstream {
            ready: false,
            since: now,
            names: IndexMap::new(),
            commands: VecDeque::new(),
            refused: None,
        });
    }

    /// A connection to a node stands.
    pub fn ready(&mut self, node: NodeId, now: Instant) {
        self.opening(node, now);
        self.doubt(&Kind::ALL);
        if let Some(upstream) = self.upstreams.get_mut(&node) {
            (upstream.ready, upstream.since) = (true, now);
        }
    }

    /// The connection to a node is gone, and what was subscribed on it.
    pub fn lost(&mut self, node: NodeId, now: Instant) {
        let Some(upstream) = self.upstreams.get_mut(&node) else { return };
        for ((kind, name), state) in upstream.names.drain(..) {
            if state.counted {
                self.registry.upstream(kind, &name, node, false);
            }
        }
        upstream.commands.clear();
        upstream.refused = None;
        if std::mem::take(&mut upstream.ready) {
            upstream.since = now;
        }
        self.doubt(&Kind::ALL);
    }

    /// Nothing is wanted of a node any more.
    pub fn forget(&mut self, node: NodeId) {
        self.upstreams.remove(&node);
    }

    /// The node refused the oldest command that it has not answered.
    pub fn refused(&mut self, node: NodeId, error: &[u8]) {
        if let Some(upstream) = self.upstreams.get_mut(&node) {
            upstream.refused = Some(error.to_vec());
        }
    }

    /// The node is done with the oldest command. Returns it, and the error if it was refused.
    pub fn done(&mut self, node: NodeId) -> Option<(Order, Option<Vec<u8>>)> {
        let upstream = self.upstreams.get_mut(&node)?;
        let order = upstream.commands.pop_front()?;
        let refused = upstream.refused.take();
        for name in &order.names {
            let key = (order.kind, Name::clone(name));
            let Some(state) = upstream.names.get_mut(&key) else { continue };
            state.outstanding = state.outstanding.saturating_sub(1);
            if state.outstanding > 0 {
                continue;
            }
            if refused.is_some() && !order.leave {
                state.wanted = false;
            }
            if state.wanted != state.counted {
                state.counted = state.wanted;
                self.registry.upstream(order.kind, name, node, state.wanted);
            }
            if !state.wanted {
                upstream.names.swap_remove(&key);
            }
        }
        Some((order, refused))
    }

    /// A name that a node refused is not asked for again before this time.
    pub fn postpone(&mut self, kind: Kind, name: &[u8], until: Instant) {
        if let Some(topic) = self.topics[kind.index()].get_mut(name) {
            topic.not_before = Some(until);
            self.walk.postponed(kind, name.into());
        }
    }

    /// A node says that a sharded channel is not subscribed to any more. Returns whether nobody had asked it for that:
    /// the slot is another node's.
    pub fn unsubscribed(&mut self, node: NodeId, name: &[u8]) -> bool {
        let Some(upstream) = self.upstreams.get_mut(&node) else { return false };
        let Some((name, _)) = self.topics[Kind::Shard.index()].get_key_value(name) else { return false };
        let first =
            upstream.commands.iter().find(|order| order.kind == Kind::Shard && order.names.contains(name));
        if first.is_some_and(|order| order.leave) {
            return false;
        }
        let key = (Kind::Shard, Name::clone(name));
        let Some(state) = upstream.names.get_mut(&key) else { return false };
        state.wanted = false;
        if std::mem::take(&mut state.counted) {
            self.registry.upstream(Kind::Shard, name, node, false);
        }
        if state.outstanding == 0 {
            upstream.names.swap_remove(&key);
        }
        self.walk.postponed(Kind::Shard, key.1);
        true
    }

    /// Finds a source for slots that have none, or whose source was lost.
    pub fn settle(&mut self, world: &World<'_>) {
        let stays = |upstream: &Upstream| upstream.ready || world.now < upstream.since + SETTLE;
        let upstreams = &self.upstreams;
        let stays = |node| upstreams.get(&node).is_some_and(stays);
        let changed = self.sources.settle(world.topology, stays, world.is_down);
        let stays = |upstream: &Upstream| upstream.ready || world.now < upstream.since + SETTLE;
        let unsettled = self.is_unsettled();
        let needed = self.needed(world);
        self.upstreams.retain(|node, upstream| stays(upstream) || needed.contains(node));
        self.note_changes(changed, unsettled, world);
    }

    /// Whether some node was lost lately, so that who takes its place is not decided.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.upstreams.values().any(|upstream| !upstream.ready)
    }

    /// What has to be sent so that one name is subscribed where it has to be, and nowhere else.
    pub fn reconcile(&mut self, kind: Kind, name: &Name, world: &World<'_>, orders: &mut Vec<Order>) {
        let Some(topic) = self.topics[kind.index()].get(name) else { return };
        let homes = self.homes(kind, name, topic, world);
        let postponed = topic.not_before.is_some_and(|time| time > world.now);
        let key = (kind, Name::clone(name));
        for (&node, upstream) in self.upstreams.iter_mut().filter(|(_, upstream)| upstream.ready) {
            let wanted = upstream.names.get(&key).is_some_and(|state| state.wanted);
            let home = homes.contains(&node);
            if wanted == home || home && postponed {
                continue;
            }
            let state = upstream.names.entry((kind, Name::clone(name))).or_default();
            state.wanted = home;
            state.outstanding += 1;
            let fits = |order: &&mut Order| {
                (order.node, order.kind, order.leave) == (node, kind, !home)
                    && order.names.len() < BATCH
                    && (kind != Kind::Shard
                        || order.names.first().is_some_and(|other| slot(other) == topic.slot))
            };
            match orders.iter_mut().rev().take(16).find(fits) {
                Some(order) => order.names.push(Name::clone(name)),
                None => orders.push(Order { node, kind, leave: !home, names: vec![Name::clone(name)] }),
            }
        }
    }

    /// A command was put on the connection to its node.
    pub fn sent(&mut self, order: Order) {
        if let Some(upstream) = self.upstreams.get_mut(&order.node) {
            upstream.commands.push_back(order);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests;
