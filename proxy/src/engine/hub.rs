//! This worker's subscriptions at the nodes: one connection to each node that is needed, shared by all its clients.

use std::time::{Duration, Instant};

use portico_resp::{ErrorCode, encode};
use portico_slots::{NodeId, NodeIndex, Slot};

use super::{Engine, Link, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::PubSub;
use crate::plan::Refusal;
use crate::pubsub::{Hub, Kind, Name, Order, Told, World};
use crate::session::{ClientFlags, Subscribing};

/// How often the hub is looked at while something is amiss.
const REVIEW: Duration = Duration::from_millis(20);
/// Names that are looked at in one turn, after something has changed.
pub(super) const SLICE: usize = 500;
/// How often while it is merely waited for what nodes were asked: for those who wait too long.
const PATIENT_REVIEW: Duration = Duration::from_millis(500);
/// How often the map is read while anybody listens to what happens to keys.
const LOOK: Duration = Duration::from_millis(500);
/// A connection that nobody needs is closed after so long.
const KEEP_IDLE: Duration = Duration::from_secs(5);
/// A name that a node refused, other than for the time being, is asked for again so late.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Asked behind each command: its answer tells that the command is done with. Confirmations are pushes, and a refused
/// command has none; this is answered whatever state a node is in.
const MARK: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

impl Engine {
    /// What the hub says or does, in the cluster as it is.
    pub(super) fn with_hub<T>(&mut self, act: impl FnOnce(&mut Hub, &World<'_>) -> T) -> T {
        let (cluster, backoffs) = (&self.cluster, &self.backoffs);
        let topology = &cluster.topology;
        let is_down = |node: NodeId| {
            let failed = topology.index_of(&node).is_none_or(|index| topology.node(index).failed);
            failed || backoffs.contains_key(&(node, Lane::HUB))
        };
        let stale = self.fresh_map.is_some();
        act(&mut self.hub, &World { topology, now: self.now, stale, is_down: &is_down })
    }

    /// Sends what has to be subscribed or unsubscribed.
    pub(super) fn carry_out_orders(&mut self, orders: Vec<Order>) {
        for order in orders {
            let index = self.cluster.topology.index_of(&order.node);
            let link = index.and_then(|index| self.standing(Lane::HUB, index));
            let Some(link_key) = link else {
                self.hub.lost(order.node, self.now);
                continue;
            };
            let Some(link) = self.links.get_mut(link_key) else { continue };
            let verb = if order.leave { order.kind.leave() } else { order.kind.join() }.to_ascii_uppercase();
            let buffer = link.pipe.begin();
            let start = buffer.len();
            encode::array_header(buffer, order.names.len() + 1);
            encode::bulk(buffer, verb.as_bytes());
            order.names.iter().for_each(|name| encode::bulk(buffer, name));
            buffer.extend_from_slice(MARK);
            let flags = RequestFlags::SUBSCRIPTION
                .with(RequestFlags::GROUP)
                .with(RequestFlags::IGNORED)
                .with(RequestFlags::READONLY);
            if link.pipe.is_empty() {
                link.moved = self.now;
            }
            link.pipe.commit(start, InFlight { flags, ..InFlight::nobodys() });
            self.mark_link(link_key);
            self.hub.sent(order);
        }
    }

    /// Something about the hub is to be looked at soon.
    pub(super) fn alarm_hub(&mut self) {
        self.hub_anxious = true;
        self.next_review = self.now;
    }

    /// Nodes were asked for something that somebody waits for: so that nobody waits for ever.
    pub(super) fn watch_hub(&mut self) {
        if !std::mem::replace(&mut self.hub_anxious, true) {
            self.next_review = self.now + PATIENT_REVIEW.min(self.config.failover_timeout);
        }
    }

    /// Has everything subscribed where it has to be: opens connections, asks again, gives up. It looks at every name that
    /// a change of the cluster or of a connection concerns, some in each turn; SUBSCRIBE itself asks for what is its own.
    pub(super) fn review_hub(&mut self) {
        if !self.hub_anxious || self.now < self.next_review {
            return;
        }
        self.next_review = self.now + REVIEW;
        self.look_at_map();
        let needed = self.with_hub(|hub, world| {
            hub.settle(world);
            hub.needed(world)
        });
        let mut missing = false;
        for &node in &needed {
            let Some(index) = self.cluster.topology.index_of(&node) else { continue };
            if self.standing(Lane::HUB, index).is_none() {
                missing = true;
                self.hub.opening(node, self.now);
                self.route(Lane::HUB, index);
            }
        }
        let (orders, later) = self.with_hub(|hub, world| hub.walk(world, SLICE));
        let asks = later || !orders.is_empty();
        self.carry_out_orders(orders);
        let waiting = self.hub.all_waiters();
        waiting.iter().for_each(|client| self.admit_client(*client));
        self.part_with_silent(&waiting);
        self.give_up_subscribing(&waiting);
        self.tell_unheard();
        self.hub_anxious = missing || asks || self.fresh_map.is_some() || self.hub.is_unsettled();
        if self.hub.is_walking() {
            self.next_review = self.now;
        }
        if !waiting.is_empty() {
            self.watch_hub();
        }
    }

    /// A connection of the hub stands.
    pub(super) fn hub_ready(&mut self, node: NodeId) {
        self.hub.ready(node, self.now);
        self.give_notify_events(node);
        self.alarm_hub();
    }

    /// A connection of the hub is gone.
    pub(super) fn hub_lost(&mut self, node: NodeId) {
        self.hub.lost(node, self.now);
        self.alarm_hub();
        self.say_farewells();
    }

    /// A new map is in force.
    pub(super) fn hub_adopt(&mut self) {
        let topology = &self.cluster.topology;
        let of_no_use = |node: &NodeId, lane: Lane| {
            let index = topology.index_of(node);
            index.is_none_or(|index| {
                topology.node(index).failed || lane == Lane::MONITOR && !topology.masters().contains(&index)
            })
        };
        let gone: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(_, link)| link.lane.listens() && of_no_use(&link.node, link.lane))
            .map(|(key, _)| key)
            .collect();
        gone.into_iter().for_each(|key| self.close_link(key));
        if !self.hub.is_empty() {
            self.hub.map_changed();
            self.alarm_hub();
        }
    }

    /// Once a second: closes connections that nobody has needed for a while.
    pub(super) fn sweep_hub(&mut self) {
        if !self.unheard.is_empty() {
            self.tell_unheard();
        }
        let now = self.now;
        let mut unused: Vec<(LinkKey, NodeId)> = self
            .links
            .iter()
            .filter(|(_, link)| link.lane == Lane::HUB && matches!(link.state, LinkState::Ready))
            .filter(|(_, link)| link.pipe.is_empty() && now >= link.moved + KEEP_IDLE)
            .map(|(key, link)| (key, link.node))
            .collect();
        if unused.is_empty() {
            return;
        }
        let needed = self.with_hub(|hub, world| hub.needed(world));
        unused.retain(|(_, node)| !needed.contains(node));
        for (key, node) in unused {
            self.close_link(key);
            self.hub.forget(node);
        }
    }

    /// A reply on a connection of the hub, other than to a client's PUBLISH.
    pub(super) fn subscription_reply(&mut self, key: LinkKey, reply: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        let node = link.node;
        if portico_resp::is_error(reply) {
            return self.hub.refused(node, reply);
        }
        link.pipe.end_group();
        let Some((order, refused)) = self.hub.done(node) else { return };
        match refused {
            _ if order.leave => {}
            None => self.admit(order.names.iter().map(|name| (order.kind, name))),
            Some(error) => self.refused_order(&order, &error),
        }
        self.say_farewell(order.names.into_iter().map(|name| (order.kind, name)));
    }

    /// A node refused a command: asked again elsewhere or later, or those who wait for it are told.
    fn refused_order(&mut self, order: &Order, error: &[u8]) {
        use ErrorCode as E;
        self.alarm_hub();
        self.next_review = self.now + REVIEW;
        let passing = matches!(
            ErrorCode::parse(error),
            Some(E::Moved { .. } | E::Ask { .. } | E::TryAgain | E::ClusterDown | E::Loading | E::MasterDown)
        );
        self.refresh_wanted |= passing;
        let pause = if passing { REVIEW } else { REFUSED_PAUSE };
        for name in &order.names {
            self.hub.postpone(order.kind, name, self.now + pause);
        }
        if !passing {
            let waiters = order.names.iter().flat_map(|name| self.hub.waiters(order.kind, name));
            let waiters: std::collections::BTreeSet<ClientKey> = waiters.collect();
            waiters.into_iter().for_each(|client| self.refuse_subscription(client, error));
        }
    }

    /// Those who wait for these names listen from now on, if all that they wait for is subscribed.
    pub(super) fn admit<'a>(&mut self, names: impl Iterator<Item = (Kind, &'a Name)>) {
        let waiters: std::collections::BTreeSet<ClientKey> = self.with_hub(|hub, world| {
            let established = names.filter(|(kind, name)| hub.is_established(*kind, name, world));
            established.flat_map(|(kind, name)| hub.waiters(kind, name)).collect()
        });
        waiters.into_iter().for_each(|client| self.admit_client(client));
    }

    /// A client that waits listens from now on to what is subscribed, in the order in which it asked.
    fn admit_client(&mut self, client: ClientKey) {
        while let Some(mut subscribing) = self.first_subscribing(client) {
            if !self.with_hub(|hub, world| is_through(&mut subscribing, hub, world)) {
                if let Some(client) = self.clients.get_mut(client) {
                    client.standing().subscribing.push_front(subscribing);
                }
                break;
            }
            self.subscribed(client, &subscribing);
        }
    }

    /// Takes out what a client waited for first.
    fn first_subscribing(&mut self, key: ClientKey) -> Option<Subscribing> {
        self.clients.get_mut(key)?.standing.as_deref_mut()?.subscribing.pop_front()
    }

    /// Masters of which it is not heard what happens to their keys, although somebody here listens to that: the log and
    /// INFO are told.
    fn tell_unheard(&mut self) {
        let unheard = self.with_hub(|hub, world| hub.unheard(world));
        for &node in unheard.difference(&self.unheard) {
            let node = self.name_of(node);
            tracing::warn!(%node, "what happens to a master's keys is not heard by those who listen to that");
        }
        for &node in self.unheard.difference(&unheard) {
            let node = self.name_of(node);
            tracing::info!(%node, "what happens to a master's keys is heard again, or nobody listens to that");
        }
        self.shared.set_unheard(self.worker, unheard.len());
        self.unheard = unheard;
    }

    /// Somebody has waited for half of the time that he may: connections on which nothing comes are given up, so that
    /// messages are taken from nodes that answer.
    fn part_with_silent(&mut self, waiting: &[ClientKey]) {
        let patience = self.config.failover_timeout / 2;
        if !waiting.iter().any(|key| self.has_waited(*key, patience)) {
            return;
        }
        let topology = &self.cluster.topology;
        let listens = |link: &Link| link.lane == Lane::HUB && matches!(link.state, LinkState::Ready);
        let is_silent = |link: &Link| {
            listens(link)
                && topology.index_of(&link.node).is_some_and(|node| !self.may_answer(Lane::HUB, node))
        };
        let silent = self.links.iter().filter(|(_, link)| is_silent(link));
        for (key, node) in silent.map(|(key, link)| (key, link.node)).collect::<Vec<_>>() {
            self.counters.links_given_up += 1;
            self.lose_link(key);
            self.back_off(node, Lane::HUB);
        }
    }

    /// Whether a client has waited for a subscription for so long.
    fn has_waited(&self, key: ClientKey, time: Duration) -> bool {
        let standing = self.clients.get(key).and_then(|client| client.standing.as_deref());
        let since = standing.and_then(|standing| standing.subscribing.front()).map(|s| s.since);
        since.is_some_and(|since| self.now >= since + time)
    }

    /// Those who have waited for longer than a request waits for its slot are told so.
    fn give_up_subscribing(&mut self, waiting: &[ClientKey]) {
        for &key in waiting
            .iter()
            .filter(|key| self.has_waited(**key, self.config.failover_timeout))
            .collect::<Vec<_>>()
        {
            let standing = self.clients.get(key).and_then(|client| client.standing.as_deref());
            let Some(late) = standing.and_then(|standing| standing.subscribing.front()) else { continue };
            let lacking = late.names.get(late.established).or(late.names.first());
            let slot = lacking.map_or(0, |name| portico_slots::slot(name));
            let text = if lacking.is_some_and(|name| self.hub.is_of_keys(late.kind, name)) {
                let limit = self.config.failover_timeout.as_millis();
                format!(
                    "CLUSTERDOWN Not every master could be subscribed at for {limit} ms (failover-timeout), so that not \
                     all that happens to keys would be heard. The command did not run"
                )
            } else {
                self.refusal_text(Refusal::TimedOut, &InFlight { slot, ..InFlight::nobodys() })
            };
            let mut error = Vec::new();
            encode::error(&mut error, text);
            self.refuse_subscription(key, &error);
        }
    }

    /// A push on a connection of the hub.
    pub(super) fn hub_pushed(&mut self, key: LinkKey, push: &[u8]) {
        let Some(link) = self.links.get(key) else { return };
        let node = link.node;
        match Told::read(push) {
            Told::Message(heard) => {
                if self.hub.accepts(&heard, node, &self.cluster.topology) {
                    let mut listeners = std::mem::take(&mut self.listeners);
                    listeners.clear();
                    listeners.extend(self.hub.listeners(heard.kind, heard.name));
                    // It was published behind their SUBSCRIBE: they hear it behind the confirmation.
                    let mut waiters = self.hub.waiters(heard.kind, heard.name);
                    waiters.retain(|waiter| {
                        let client = self.clients.get(*waiter);
                        let agent = client.is_none_or(|client| client.flags.has(ClientFlags::AGENT));
                        !agent && !listeners.contains(waiter)
                    });
                    listeners.append(&mut waiters);
                    self.tell_all(&listeners, push);
                    self.listeners = listeners;
                }
            }
            Told::Unsubscribed(name) => {
                if self.hub.unsubscribed(node, name) {
                    self.refresh_wanted = true;
                    self.alarm_hub();
                }
            }
            Told::Other => {}
        }
    }

    /// The node from which messages on channels of this slot are taken, and the connection on which they come. Sharded
    /// ones are at their slot's owner and nowhere else.
    pub(super) fn way_of_messages(&self, what: PubSub, slot: Slot) -> Option<(NodeIndex, LinkKey)> {
        let topology = &self.cluster.topology;
        let node = match what {
            PubSub::Spublish => topology.owner(slot)?,
            _ => topology.index_of(&self.hub.source(slot)?)?,
        };
        Some((node, self.standing(Lane::HUB, node)?))
    }

    /// What nodes tell of their keys has to come from all masters, and nothing tells of a master that took over without
    /// a sound: before the first who listens to that is told that he does, the map is read again, and from then on
    /// often. Returns whether that began now.
    pub(super) fn want_fresh_map(&mut self) -> bool {
        let wanted =
            self.fresh_map.is_none() && self.hub.listens_everywhere() && self.now >= self.map_read + LOOK;
        if wanted {
            self.fresh_map = Some(FreshMap {
                read: self.shared.map_reads.next(),
                seen: false,
                deadline: self.now + self.config.connect_timeout,
            });
            self.refresh_wanted = true;
        }
        wanted
    }

    /// Whether the map that was wanted is in force, or is not to be had.
    fn look_at_map(&mut self) {
        let Some(wanted) = &mut self.fresh_map else { return };
        let read = self.shared.map_reads.is_done(wanted.read);
        if wanted.seen || self.now >= wanted.deadline {
            self.map_read = self.now;
            self.fresh_map = None;
        } else {
            wanted.seen = read; // from the next turn on it is in force
        }
    }

    /// While anybody listens to what happens to keys, the map is read often.
    pub(super) fn keep_map_fresh(&mut self) {
        if self.hub.listens_everywhere() && self.now >= self.map_read + LOOK {
            self.map_read = self.now;
            self.refresh_wanted = true;
        }
    }

    /// A master that was not there when notify-keyspace-events was set is told of it before it is listened to.
    fn give_notify_events(&mut self, node: NodeId) {
        let Some(index) = self.cluster.topology.index_of(&node) else { return };
        let missing = self.shared.settings.missing_at(self.cluster.topology.node(index).process());
        let events = missing.into_iter().find(|(name, _)| name == "notify-keyspace-events");
        let Some((_, value)) = events else { return };
        let Some(link) = self.standing(Lane::HUB, index) else { return };
        let mut request = Vec::new();
        encode::command(&mut request, &[b"CONFIG", b"SET", b"notify-keyspace-events", &value]);
        self.tell_node(link, &request);
    }

    /// A client is gone, or forgets all: it listens to nothing any more. Returns what it listened to.
    pub(super) fn forget_subscriptions(&mut self, key: ClientKey) -> Vec<(Kind, Name)> {
        let Some(client) = self.clients.get_mut(key) else { return Vec::new() };
        client.flags.clear(ClientFlags::SUBSCRIBED);
        let Some(standing) = client.standing.as_deref_mut() else { return Vec::new() };
        let subscriptions = std::mem::take(&mut standing.subscriptions);
        let mut orders = Vec::new();
        for subscribing in std::mem::take(&mut standing.subscribing) {
            for name in &subscribing.names {
                orders.extend(self.hub.leave_waiting(subscribing.kind, name, key));
            }
        }
        let names: Vec<_> = subscriptions.all().map(|(kind, name)| (kind, Name::clone(name))).collect();
        for (kind, name) in &names {
            orders.extend(self.hub.leave(*kind, name, key));
        }
        self.carry_out_orders(together(orders));
        names
    }
}

/// Whether all names of a request are subscribed. Those that were are not looked at again before the last is too.
fn is_through(subscribing: &mut Subscribing, hub: &Hub, world: &World<'_>) -> bool {
    let Subscribing { kind, names, established, .. } = subscribing;
    let first_lacking =
        |from: usize| names[from..].iter().position(|name| !hub.is_established(*kind, name, world));
    let lacking = match first_lacking(*established) {
        Some(at) => Some(*established + at),
        None => first_lacking(0), // what was subscribed may have been lost since
    };
    *established = lacking.unwrap_or(names.len());
    lacking.is_none()
}

/// A map that is to be read before somebody is told that he listens to all masters.
#[derive(Debug)]
pub(super) struct FreshMap {
    /// Which reading of it.
    read: u64,
    /// It was published.
    seen: bool,
    /// Not waited for any longer: then nobody answers.
    deadline: Instant,
}

/// Orders of the same kind to one node as one; sharded channels of several slots cannot be in one command.
pub(super) fn together(orders: Vec<Order>) -> Vec<Order> {
    let mut fewer: Vec<Order> = Vec::new();
    for mut order in orders {
        let same = |other: &&mut Order| {
            other.kind != Kind::Shard
                && (other.node, other.kind, other.leave) == (order.node, order.kind, order.leave)
        };
        match fewer.iter_mut().rev().take(16).find(same) {
            Some(other) => other.names.append(&mut order.names),
            None => fewer.push(order),
        }
    }
    fewer
}
