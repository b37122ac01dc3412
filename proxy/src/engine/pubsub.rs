//! SUBSCRIBE and its like, as clients send them.

use std::borrow::Cow;

use portico_resp::{Arg, Items, Protocol, encode, is_error, replies, request_ranges};
use portico_slots::{NodeId, slot};

use super::Engine;
use super::fan::Audience;
use super::hub::together;
use super::quiet::QUIET;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, Lane, RequestFlags};
use crate::command::{Args, Command, PubSub};
use crate::plan::{RequestArgs, Step, with_queued};
use crate::pubsub::{Kind, Name, confirmation, none_left};
use crate::session::{Client, ClientFlags, Exec, FanKind, Stall, Subscribing, Who};
use crate::topology::Cluster;

impl Engine {
    pub(super) fn pubsub(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        what: PubSub,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let who = match what {
            PubSub::Subscribe => return self.subscribe(key, Kind::Channel, &words),
            PubSub::Psubscribe => return self.subscribe(key, Kind::Pattern, &words),
            PubSub::Ssubscribe => return self.subscribe(key, Kind::Shard, &words),
            PubSub::Unsubscribe => return self.unsubscribe(key, Kind::Channel, &words),
            PubSub::Punsubscribe => return self.unsubscribe(key, Kind::Pattern, &words),
            PubSub::Sunsubscribe => return self.unsubscribe(key, Kind::Shard, &words),
            PubSub::Publish | PubSub::Spublish => {
                return self.publish_message(key, command, what, words.word(1), request);
            }
            PubSub::Channels => Who::Channels(Kind::Channel),
            PubSub::ShardChannels => Who::Channels(Kind::Shard),
            PubSub::Numsub => Who::Subscribers(Kind::Channel),
            PubSub::ShardNumsub => Who::Subscribers(Kind::Shard),
            PubSub::Numpat => Who::Patterns(self.living_nodes(key, cluster)),
        };
        let pattern = matches!(who, Who::Channels(_)).then(|| words.word(2).to_vec());
        let kind = FanKind::PubSub(who, pattern.filter(|_| words.count() > 2));
        let mut traits = Traits::question();
        traits.flags = traits.flags.with(RequestFlags::ANYWHERE);
        self.fan_nodes(key, cluster, (command.name, traits), Audience::Nodes, kind, request)
    }

    /// Who listens, and who asks: an agent asks for its owner.
    pub(super) fn listener_of(&self, key: ClientKey) -> ClientKey {
        let standing = self.clients.get(key).and_then(|client| client.standing.as_deref());
        standing.and_then(|standing| standing.owner).unwrap_or(key)
    }

    fn is_waiting_for_replies(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| !client.is_answered())
    }

    fn subscribe(&mut self, key: ClientKey, kind: Kind, words: &RequestArgs<'_>) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let before = client.standing().subscribing.len();
        if client.work.as_deref().is_some_and(|work| work.queue.outstanding_count() as usize > before) {
            return Flow::Wait(Stall::Order); // messages may come from then on, and only then
        }
        let listener = self.listener_of(key);
        if listener != key && kind == Kind::Shard {
            return self.refuse(key, b"ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
        }
        let names: Vec<Name> = (1..words.count()).map(|at| words.word(at).into()).collect();
        self.spent += 2 * names.len();
        let (mut orders, mut all, mut asked) = (Vec::new(), true, true);
        self.with_hub(|hub, world| {
            for name in &names {
                if !hub.expect(kind, name, key, world) {
                    all = false;
                    hub.reconcile(kind, name, world, &mut orders);
                    asked &= hub.is_asked_for(kind, name, world);
                }
            }
        });
        let mut subscribing = Subscribing { seq: 0, kind, names, established: 0, listener, since: self.now };
        if all && before == 0 {
            let reply = self.begin_listening(key, &subscribing);
            self.confirm_now(key, &reply);
            return Flow::Done;
        }
        self.carry_out_orders(orders);
        if self.want_fresh_map() || !asked {
            self.alarm_hub();
        }
        self.watch_hub();
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        subscribing.seq = seq;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        client.standing().subscribing.push_back(subscribing);
        client.flags.set(ClientFlags::SUBSCRIBING);
        Flow::Done
    }

    /// The nodes have confirmed all that a client waits for.
    pub(super) fn subscribed(&mut self, key: ClientKey, subscribing: &Subscribing) {
        let reply = self.begin_listening(key, subscribing);
        self.confirm(key, subscribing.seq, &reply);
        self.end_subscribing(key);
        if self.clients.get(key).is_some_and(|client| client.flags.has(ClientFlags::HOLDS)) {
            self.tell_held(key);
        }
    }

    /// Tells a client, of which nothing is outstanding, a confirmation: that is no reply, and comes even to those who
    /// want none.
    pub(super) fn confirm_now(&mut self, key: ClientKey, confirmation: &[u8]) {
        if self.clients.get(key).is_some_and(|client| client.flags.any(QUIET)) {
            self.tell(key, confirmation, confirmation);
        }
        self.reply_now(key, confirmation);
    }

    /// As [`Engine::confirm_now`], of a request that waited.
    pub(super) fn confirm(&mut self, key: ClientKey, seq: u32, confirmation: &[u8]) {
        let work = self.clients.get(key).and_then(|client| client.work.as_deref());
        let silent = work.is_some_and(|work| work.queue.oldest_is_silent());
        self.settle(key, seq, confirmation);
        if silent {
            self.tell(key, confirmation, confirmation);
        }
    }

    /// Messages are for this client from now on. Returns the confirmations.
    fn begin_listening(&mut self, key: ClientKey, subscribing: &Subscribing) -> Vec<u8> {
        let (kind, listener) = (subscribing.kind, subscribing.listener);
        let mut reply = Vec::new();
        for name in &subscribing.names {
            let Some(client) = self.clients.get_mut(listener) else { continue };
            client.flags.set(ClientFlags::SUBSCRIBED);
            let protocol = client.protocol();
            let subscriptions = &mut client.standing().subscriptions;
            subscriptions.add(kind, Name::clone(name));
            confirmation(kind.join(), name, subscriptions.count(kind), protocol, &mut reply);
            self.hub.listen(kind, name, listener);
        }
        self.stop_expecting(key, subscribing);
        reply
    }

    /// What a client waits for cannot be had.
    pub(super) fn refuse_subscription(&mut self, key: ClientKey, error: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        for subscribing in std::mem::take(&mut client.standing().subscribing) {
            self.stop_expecting(key, &subscribing);
            self.settle(key, subscribing.seq, error);
        }
        self.end_subscribing(key);
    }

    fn end_subscribing(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.standing().subscribing.is_empty()
        {
            client.flags.clear(ClientFlags::SUBSCRIBING);
        }
    }

    fn stop_expecting(&mut self, key: ClientKey, subscribing: &Subscribing) {
        let names = subscribing.names.iter();
        let orders = names.flat_map(|name| self.hub.leave_waiting(subscribing.kind, name, key)).collect();
        self.carry_out_orders(together(orders));
    }

    fn unsubscribe(&mut self, key: ClientKey, kind: Kind, words: &RequestArgs<'_>) -> Flow {
        if self.is_waiting_for_replies(key) {
            return Flow::Wait(Stall::Order);
        }
        self.spent += 2 * words.count();
        let listener = self.listener_of(key);
        let Some(client) = self.clients.get_mut(listener) else { return Flow::Close };
        let protocol = client.protocol();
        let subscriptions = &mut client.standing().subscriptions;
        let names: Vec<Name> = match words.count() {
            1 => subscriptions.of(kind).cloned().collect(),
            count => (1..count).map(|at| words.word(at).into()).collect(),
        };
        let mut reply = Vec::new();
        if names.is_empty() {
            none_left(kind, subscriptions.count(kind), protocol, &mut reply);
        }
        let mut orders = Vec::new();
        for name in &names {
            if subscriptions.remove(kind, name) {
                orders.extend(self.hub.leave(kind, name, listener));
            }
            confirmation(kind.leave(), name, subscriptions.count(kind), protocol, &mut reply);
        }
        if subscriptions.is_empty() {
            client.flags.clear(ClientFlags::SUBSCRIBED);
        }
        self.carry_out_orders(together(orders));
        self.answer_when_left(key, names.into_iter().map(|name| (kind, name)).collect(), &reply)
    }

    /// A message goes the way on which it comes back, if there is one: to the node that messages on its channel are
    /// taken from, on the hub's connection. So it is heard before the reply to it, and messages of one client on several
    /// channels in the order in which it sent them, as from one server. It touches no keys, so that this is not the way
    /// of the client's other requests does not matter.
    fn publish_message(
        &mut self,
        key: ClientKey,
        command: &Command,
        what: PubSub,
        channel: &[u8],
        request: &[u8],
    ) -> Flow {
        let mut traits = Traits::of(command);
        if self.shared.pubsub.is_used() {
            traits.flags = traits.flags.with(RequestFlags::COUNTED);
        }
        let anywhere = what == PubSub::Publish;
        if anywhere {
            traits.flags = traits.flags.with(RequestFlags::ANYWHERE);
        }
        let slot = slot(channel);
        if !self.hub.is_empty()
            && let Some((node, link)) = self.way_of_messages(what, slot)
            && (!anywhere || self.may_answer(Lane::HUB, node))
            && let Some(client) = self.clients.get(key)
        {
            if client.writes > 0 && client.write_link != link {
                return Flow::Wait(Stall::Order);
            }
            traits.flags = traits.flags.with(RequestFlags::SUBSCRIPTION);
            return self.send_by(key, slot, Some(Lane::HUB), node, traits, request);
        }
        if self.hub.is_awaited(channel) {
            return Flow::Wait(Stall::Backpressure); // whoever said SUBSCRIBE before this is to hear it
        }
        let Some(lane) = self.clients.get(key).map(|client| client.lane) else { return Flow::Close };
        match self.carrier(lane, slot).filter(|_| anywhere) {
            Some(node) => self.send_by(key, slot, None, node, traits, request),
            None => self.send(key, slot, traits, request),
        }
    }

    /// The replies to a step of an EXEC: a node does not know that it is asked for a RESP2 client that listens by now, to
    /// which PING is answered otherwise.
    pub(super) fn pongs_of<'a>(&self, exec: &Exec, told: &'a [u8]) -> Cow<'a, [u8]> {
        let owner = self.clients.get(exec.owner);
        let listens =
            |owner: &Client| owner.flags.has(ClientFlags::SUBSCRIBED) && owner.protocol() == Protocol::Resp2;
        let Some(Step::Group(_, commands)) = exec.steps.get(exec.begun.wrapping_sub(1)) else {
            return told.into();
        };
        let reply = replies(told).last().unwrap_or_default();
        let Some(items) = Items::new(reply).filter(|_| owner.is_some_and(listens)) else {
            return told.into();
        };
        let mut changed = Vec::new();
        encode::array_header(&mut changed, commands.len());
        for (item, &at) in items.zip(commands) {
            let request = &exec.transaction.requests[exec.transaction.ranges[at].clone()];
            let message = |args: &RequestArgs<'_>| args.is(0, "ping").then(|| args.word(1).to_vec());
            match with_queued(request, message).flatten() {
                Some(message) if !is_error(item) => {
                    encode::array_header(&mut changed, 2);
                    encode::bulk(&mut changed, b"pong");
                    encode::bulk(&mut changed, &message);
                }
                _ => changed.extend_from_slice(item),
            }
        }
        changed.into()
    }

    /// EXEC's reply with the counts of those who heard the messages in the transaction.
    pub(super) fn exec_receivers(&self, node: NodeId, request: &[u8], reply: Vec<u8>) -> Vec<u8> {
        let Some(items) = Items::new(&reply).filter(|_| self.shared.pubsub.is_used()) else { return reply };
        let publishes = |request: &[u8]| {
            let is = |args: &RequestArgs<'_>| args.is(0, "publish") || args.is(0, "spublish");
            with_queued(request, is).unwrap_or(false)
        };
        let queued: Vec<_> = request_ranges(request).into_iter().skip(1).collect();
        let mut counted = Vec::new();
        encode::array_header(&mut counted, queued.len().saturating_sub(1));
        for (item, range) in items.zip(queued) {
            let request = &request[range];
            if item.starts_with(b":") && publishes(request) {
                counted.extend_from_slice(&self.receivers(node, request, item));
            } else {
                counted.extend_from_slice(item);
            }
        }
        counted
    }

    /// A count of those who heard a message, as the client is to be told it.
    pub(super) fn receivers(&self, node: NodeId, request: &[u8], reply: &[u8]) -> Vec<u8> {
        let told = portico_resp::integer_reply(reply).unwrap_or(0);
        let count = with_queued(request, |args| {
            let kind = if args.is(0, "spublish") { Kind::Shard } else { Kind::Channel };
            self.shared.pubsub.receivers(kind, args.word(1), node, told)
        });
        let mut counted = Vec::new();
        encode::integer(&mut counted, count.unwrap_or(told));
        counted
    }

    /// RESET, or the client is gone. Returns what it listened to.
    pub(super) fn end_listening(&mut self, key: ClientKey) -> Vec<(Kind, Name)> {
        self.end_monitor(key);
        self.forget_subscriptions(key)
    }
}
