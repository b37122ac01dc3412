//! SUBSCRIBE and its like, as clients send them.

use portico_resp::{Arg, encode};
use portico_slots::slot;

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, Lane, RequestFlags};
use crate::command::{Args, Command, PubSub};
use crate::plan::RequestArgs;
use crate::pubsub::{Kind, Name, confirmation, none_left};
use crate::session::{ClientFlags, FanKind, Stall, Subscribing, Task, Who};
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
                let mut traits = Traits::of(command);
                if self.shared.pubsub.is_used() {
                    traits.flags = traits.flags.with(RequestFlags::COUNTED);
                }
                return self.send(key, slot(words.word(1)), traits, request);
            }
            PubSub::Channels => Who::Channels(Kind::Channel),
            PubSub::ShardChannels => Who::Channels(Kind::Shard),
            PubSub::Numsub => Who::Subscribers(Kind::Channel),
            PubSub::ShardNumsub => Who::Subscribers(Kind::Shard),
            PubSub::Numpat => Who::Patterns(self.nodes_of(cluster, Audience::Nodes)),
        };
        let pattern = matches!(who, Who::Channels(_)).then(|| words.word(2).to_vec());
        let kind = FanKind::PubSub(who, pattern.filter(|_| words.count() > 2));
        let target = (command.name, Traits::question());
        self.fan_nodes(key, cluster, target, Audience::Nodes, kind, request)
    }

    /// Who listens, and who asks: an agent asks for its owner.
    fn listener_of(&self, key: ClientKey) -> ClientKey {
        let standing = self.clients.get(key).and_then(|client| client.standing.as_deref());
        match standing.and_then(|standing| standing.task.as_ref()) {
            Some(Task::Exec(exec)) => exec.owner,
            _ => key,
        }
    }

    fn is_waiting_for_replies(&self, key: ClientKey) -> bool {
        let work = self.clients.get(key).and_then(|client| client.work.as_deref());
        work.is_some_and(|work| work.queue.outstanding_count() > 0)
    }

    fn subscribe(&mut self, key: ClientKey, kind: Kind, words: &RequestArgs<'_>) -> Flow {
        if self.is_waiting_for_replies(key) {
            return Flow::Wait(Stall::Order); // messages may come from then on, and only then
        }
        let listener = self.listener_of(key);
        if listener != key && kind == Kind::Shard {
            return self.refuse(key, b"ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
        }
        let names: Vec<Name> = (1..words.count()).map(|at| words.word(at).into()).collect();
        let (mut orders, mut all) = (Vec::new(), true);
        self.with_hub(|hub, world| {
            for name in &names {
                if !hub.expect(kind, name, key, world) {
                    all = false;
                    hub.reconcile(kind, name, world, &mut orders);
                }
            }
        });
        let mut subscribing = Subscribing { seq: 0, kind, names, listener, since: self.now };
        if all {
            let reply = self.begin_listening(key, &subscribing);
            self.reply_now(key, &reply);
            return Flow::Done;
        }
        self.carry_out_orders(orders);
        self.alarm_hub();
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        subscribing.seq = seq;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        client.standing().subscribing = Some(subscribing);
        Flow::Block
    }

    /// The nodes have confirmed all that a client waits for.
    pub(super) fn subscribed(&mut self, key: ClientKey, subscribing: &Subscribing) {
        let reply = self.begin_listening(key, subscribing);
        self.settle(key, subscribing.seq, &reply);
    }

    /// Messages are for this client from now on. Returns the confirmations.
    fn begin_listening(&mut self, key: ClientKey, subscribing: &Subscribing) -> Vec<u8> {
        let (kind, listener) = (subscribing.kind, subscribing.listener);
        let mut reply = Vec::new();
        for name in &subscribing.names {
            self.hub.leave_waiting(kind, name, key);
            let Some(client) = self.clients.get_mut(listener) else { continue };
            client.flags.set(ClientFlags::SUBSCRIBED);
            let protocol = client.protocol();
            let subscriptions = &mut client.standing().subscriptions;
            subscriptions.add(kind, Name::clone(name));
            confirmation(kind.join(), name, subscriptions.count(kind), protocol, &mut reply);
            self.hub.listen(kind, name, listener);
        }
        reply
    }

    /// What a client waits for cannot be had.
    pub(super) fn refuse_subscription(&mut self, key: ClientKey, error: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(subscribing) = client.standing().subscribing.take() else { return };
        for name in &subscribing.names {
            self.hub.leave_waiting(subscribing.kind, name, key);
        }
        self.settle(key, subscribing.seq, error);
    }

    fn unsubscribe(&mut self, key: ClientKey, kind: Kind, words: &RequestArgs<'_>) -> Flow {
        if self.is_waiting_for_replies(key) {
            return Flow::Wait(Stall::Order);
        }
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
        for name in &names {
            if subscriptions.remove(kind, name) {
                self.hub.leave(kind, name, listener);
            }
            confirmation(kind.leave(), name, subscriptions.count(kind), protocol, &mut reply);
        }
        if subscriptions.is_empty() {
            client.flags.clear(ClientFlags::SUBSCRIBED);
        }
        self.reply_now(key, &reply);
        Flow::Done
    }

    /// PUBLISH of a client that is subscribed itself: its message is pushed before the reply.
    pub(super) fn publish_as_listener(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let slot = slot(RequestArgs::new(request, args).word(1));
        let through = self.publishes_through_hub(slot);
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let lane = client.lane;
        if through {
            client.lane = Lane::HUB;
            client.flags.set(ClientFlags::CAREFUL);
        }
        let flow = self.run(key, cluster, command, request, args);
        if let Some(client) = self.clients.get_mut(key) {
            client.lane = lane;
        }
        flow
    }

    /// A count of those who heard a message, as the client is to be told it.
    pub(super) fn receivers(&self, node: portico_slots::NodeId, request: &[u8], reply: &[u8]) -> Vec<u8> {
        let told = portico_resp::integer_reply(reply).unwrap_or(0);
        let count = crate::plan::with_queued(request, |args| {
            let kind = if args.is(0, "spublish") { Kind::Shard } else { Kind::Channel };
            self.shared.pubsub.receivers(kind, args.word(1), node, told)
        });
        let mut counted = Vec::new();
        encode::integer(&mut counted, count.unwrap_or(told));
        counted
    }

    /// RESET.
    pub(super) fn end_listening(&mut self, key: ClientKey) {
        self.forget_subscriptions(key);
        self.end_monitor(key);
    }
}
