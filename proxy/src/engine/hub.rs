//! This worker's subscriptions at the nodes: one connection to each node that is needed, shared by all its clients.

use std::time::Duration;

use portico_resp::{ErrorCode, encode};
use portico_slots::NodeId;

use super::{Engine, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::plan::Refusal;
use crate::pubsub::{Hub, Kind, Name, Order, Told, World};
use crate::session::ClientFlags;

/// How often the hub is looked at while something is amiss.
const REVIEW: Duration = Duration::from_millis(20);
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
        act(&mut self.hub, &World { topology, now: self.now, is_down: &is_down })
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
            let verb = if order.leave { order.kind.leave() } else { order.kind.join() };
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
        self.next_tick = self.now;
    }

    /// Has everything subscribed where it has to be: opens connections, asks again, gives up.
    pub(super) fn review_hub(&mut self) {
        if !self.hub_anxious || self.now < self.next_review {
            return;
        }
        self.next_review = self.now + REVIEW;
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
        let orders = self.with_hub(|hub, world| hub.reconcile_all(world));
        let asks = !orders.is_empty();
        self.carry_out_orders(orders);
        let waited = self.hub.waited_for();
        self.admit(waited.iter().map(|(kind, name)| (*kind, name)));
        self.give_up_subscribing(&waited);
        self.hub_anxious = missing || asks || !waited.is_empty() || self.hub.is_unsettled();
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
        gone.into_iter().for_each(|key| self.lose_link(key));
        if !self.hub.is_empty() {
            self.alarm_hub();
        }
    }

    /// Once a second: ends what nobody listens to any more, and closes connections that nobody needs.
    pub(super) fn sweep_hub(&mut self) {
        let orders = self.hub.sweep();
        self.carry_out_orders(orders);
        let needed = self.with_hub(|hub, world| hub.needed(world));
        let unused: Vec<(LinkKey, NodeId)> = self
            .links
            .iter()
            .filter(|(_, link)| link.lane == Lane::HUB && matches!(link.state, LinkState::Ready))
            .filter(|(_, link)| link.pipe.is_empty() && !needed.contains(&link.node))
            .map(|(key, link)| (key, link.node))
            .collect();
        for (key, node) in unused {
            self.lose_link(key);
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
            None if order.leave => {}
            None => self.admit(order.names.iter().map(|name| (order.kind, name))),
            Some(error) => self.refused_order(&order, &error),
        }
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
        for client in waiters {
            let Some(standing) = self.clients.get_mut(client).map(|client| client.standing()) else {
                continue;
            };
            let Some(subscribing) = standing.subscribing.take() else { continue };
            let all = self.with_hub(|hub, world| {
                subscribing.names.iter().all(|name| hub.is_established(subscribing.kind, name, world))
            });
            if all {
                self.subscribed(client, &subscribing);
            } else if let Some(client) = self.clients.get_mut(client) {
                client.standing().subscribing = Some(subscribing);
            }
        }
    }

    /// Those who have waited for longer than a request waits for its slot are told so.
    fn give_up_subscribing(&mut self, waited: &[(Kind, Name)]) {
        let mut late = Vec::new();
        for (kind, name) in waited {
            for key in self.hub.waiters(*kind, name) {
                let standing = self.clients.get(key).and_then(|client| client.standing.as_deref());
                let since = standing.and_then(|standing| standing.subscribing.as_ref()).map(|s| s.since);
                if since.is_some_and(|since| self.now >= since + self.config.failover_timeout) {
                    late.push((key, portico_slots::slot(name)));
                }
            }
        }
        for (key, slot) in late {
            let text = self.refusal_text(Refusal::TimedOut, &InFlight { slot, ..InFlight::nobodys() });
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

    /// Whether a PUBLISH goes the way on which its message comes, so that a subscriber hears what it says itself before
    /// the reply, as from one server.
    pub(super) fn publishes_through_hub(&self, slot: portico_slots::Slot) -> bool {
        let owner = self.cluster.topology.owner(slot);
        owner.is_some_and(|owner| {
            self.hub.is_source(slot, self.cluster.topology.node(owner).id)
                && self.standing(Lane::HUB, owner).is_some()
        })
    }

    /// A master that was not there when notify-keyspace-events was set is told of it.
    fn give_notify_events(&mut self, node: NodeId) {
        let Some(index) = self.cluster.topology.index_of(&node) else { return };
        let run_id = self.cluster.topology.node(index).run_id.as_deref();
        let Some(value) = self.shared.notify_events_for(node.as_str(), run_id) else { return };
        let Some(link) = self.standing(Lane::HUB, index) else { return };
        let mut request = Vec::new();
        encode::command(&mut request, &[b"CONFIG", b"SET", b"notify-keyspace-events", &value]);
        if let Some(link) = self.links.get_mut(link) {
            link.pipe.push(&request, InFlight { flags: RequestFlags::IGNORED, ..InFlight::nobodys() });
        }
        self.mark_link(link);
    }

    /// A client is gone, or forgets all: it listens to nothing any more.
    pub(super) fn forget_subscriptions(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::SUBSCRIBED);
        let Some(standing) = client.standing.as_deref_mut() else { return };
        let subscriptions = std::mem::take(&mut standing.subscriptions);
        let subscribing = standing.subscribing.take();
        for (kind, name) in subscriptions.all() {
            self.hub.leave(kind, name, key);
        }
        if let Some(subscribing) = subscribing {
            subscribing.names.iter().for_each(|name| self.hub.leave(subscribing.kind, name, key));
        }
    }
}
