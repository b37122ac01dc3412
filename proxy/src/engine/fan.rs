//! Requests that go to several nodes: their parts out, the parts' replies in, one reply to the client.

use portico_resp::{Arg, Protocol, encode, integer_reply, is_error};
use portico_slots::{NodeId, NodeIndex, Slot};

use super::impatient::keep_answers;
use super::send::{Flow, Traits};
use super::wait::shard_bit;
use super::{Engine, Question};
use crate::backend::{ClientKey, InFlight, RequestFlags};
use crate::command::Command;
use crate::local;
use crate::plan::{Action, Layout, Merge, Part, Split, merge, merge_exists, split, tell_settings};
use crate::session::{Fan, FanKind, PendingFlags, Unsent};
use crate::topology::Cluster;

/// Which nodes a whole-keyspace command goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All masters at once.
    Masters,
    /// All masters, one after another and the source of an open slot before its target, so that a key that is
    /// being moved is not missed between the two.
    MastersInTurn,
    /// Masters and replicas.
    Nodes,
    /// The masters whose bits are set ([`shard_bit`]).
    Shards(u64),
}

/// What goes before a part's request, for the slot that stands for its node.
type Prefix<'p> = &'p dyn Fn(Slot, &mut Vec<u8>);

impl Engine {
    pub(super) fn new_fan(
        &mut self,
        name: &'static str,
        kind: FanKind,
        protocol: Protocol,
        flags: RequestFlags,
    ) -> Box<Fan> {
        let mut fan = self.pool.fans.pop().unwrap_or_default();
        fan.parts.clear();
        fan.later.clear();
        fan.request.clear();
        fan.unsent = None;
        (fan.name, fan.kind, fan.protocol, fan.flags, fan.remaining) = (name, kind, protocol, flags, 0);
        fan
    }

    /// A command with independent keys: one part a slot.
    pub(super) fn fan_keys(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
        (layout, rule): (Layout, Merge),
    ) -> Flow {
        let traits = Traits::of(command);
        let mut groups = std::mem::take(&mut self.split);
        split(request, args, layout, &mut groups);
        self.spent += args.len() / 4;
        let flow = match groups.single() {
            Some(slot) => {
                let keys = layout.keys(args).map(|arg| arg.of(request));
                self.send(key, slot, traits.with_keys(keys), request)
            }
            None if self.config.cross_slot == crate::config::CrossSlot::Refuse => {
                self.reply_error(key, local::CROSSSLOT);
                Flow::Done
            }
            None => self.fan_groups(key, cluster, command, request, args, &mut groups, (layout, rule)),
        };
        self.split = groups;
        flow
    }

    #[expect(clippy::too_many_arguments, reason = "a request is its bytes, its arguments and its groups")]
    fn fan_groups(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
        groups: &mut Split,
        (layout, rule): (Layout, Merge),
    ) -> Flow {
        let mut traits = Traits::of(command);
        traits.keys = u32::from(groups.parts().any(|(_, keys)| keys.len() > 1));
        if let Some(stall) = self.gate_fan(key, traits, groups.parts().map(|(slot, _)| slot)) {
            return Flow::Wait(stall);
        }
        // Nothing is sent before every part can be.
        for (slot, _) in groups.parts() {
            if let Err(flow) = self.ready(key, cluster.topology.owner(slot), slot) {
                return flow;
            }
        }
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let (protocol, prefix) = (client.protocol(), self.prefix);
        let flags = if prefix.is_empty() { traits.flags } else { traits.flags.with(RequestFlags::GROUP) };
        let mut fan = self.new_fan(command.name, FanKind::Merge(rule), protocol, flags);
        fan.parts.order.extend(groups.order());
        for (_, keys) in groups.parts() {
            fan.parts.parts.push(Part { keys: keys.len() as u32, ..Part::default() });
        }
        fan.remaining = fan.parts.parts.len();
        if fan.remaining > Unsent::MOST_SENT {
            let groups = std::mem::take(groups);
            let (request, args) = (request.to_vec(), args.to_vec());
            fan.unsent = Some(Box::new(Unsent { request, args, groups, layout, prefix, part: 0, at: 0 }));
            let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
            self.send_unsent(key, seq);
            return self.until_answered(key, Flow::Done); // what comes behind must not overtake the rest
        }
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        for (part, (slot, keys)) in groups.parts().enumerate() {
            let entry = InFlight { client: key, seq, part: part as u32, len: 0, slot, flags };
            let encode = |out: &mut Vec<u8>| {
                out.extend_from_slice(prefix);
                Split::encode(request, args, layout, keys, out);
            };
            self.send_to_node(entry, cluster.topology.owner(slot), encode);
        }
        Flow::Done
    }

    /// A split request that is not answered yet.
    pub(super) fn fan_of(&mut self, client: ClientKey, seq: u32) -> Option<&mut Fan> {
        let work = self.clients.get_mut(client)?.work.as_deref_mut()?;
        let index = work.fan_of(seq)?;
        Some(&mut work.fans[index].1)
    }

    /// Sends the next parts of a request that has very many, if it is their time.
    fn send_unsent(&mut self, client: ClientKey, seq: u32) {
        let Some(fan) = self.fan_of(client, seq) else { return };
        let flags = fan.flags;
        for (part, slot, request) in fan.next_parts() {
            let entry = InFlight { client, seq, part, len: 0, slot, flags };
            self.send_to_node(entry, self.cluster.topology.owner(slot), |out| {
                out.extend_from_slice(&request);
            });
        }
    }

    /// A command for the whole keyspace: one part a node.
    pub(super) fn fan_nodes(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        (name, traits): (&'static str, Traits),
        audience: Audience,
        kind: FanKind,
        request: &[u8],
    ) -> Flow {
        self.fan_prefixed(key, cluster, (name, traits), audience, kind, (&|_, _| {}, request))
    }

    /// A request for these nodes, a part each, once every part can be sent; or why it has to wait.
    fn fan_over(
        &mut self,
        key: ClientKey,
        (name, traits): (&'static str, Traits),
        kind: FanKind,
        targets: &[(NodeIndex, Slot)],
    ) -> Result<Box<Fan>, Flow> {
        if let Some(stall) = self.gate_fan(key, traits, std::iter::empty()) {
            return Err(Flow::Wait(stall));
        }
        if targets.is_empty() {
            return Err(self.unreachable(key, 0));
        }
        for &(node, slot) in targets {
            self.ready_unless_lost(key, node, slot)?;
        }
        let Some(client) = self.clients.get(key) else { return Err(Flow::Close) };
        let mut fan = self.new_fan(name, kind, client.protocol(), traits.flags);
        fan.parts.parts.resize(targets.len(), Part::default());
        fan.remaining = targets.len();
        Ok(fan)
    }

    /// A request of its own for each of several nodes, and one reply.
    pub(super) fn fan_requests(
        &mut self,
        key: ClientKey,
        (name, traits): (&'static str, Traits),
        kind: FanKind,
        requests: Vec<(NodeIndex, Slot, Vec<u8>)>,
    ) -> Flow {
        let targets: Vec<(NodeIndex, Slot)> = requests.iter().map(|&(node, slot, _)| (node, slot)).collect();
        let fan = match self.fan_over(key, (name, traits), kind, &targets) {
            Ok(fan) => fan,
            Err(flow) => return flow,
        };
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        for (part, (node, slot, request)) in requests.into_iter().enumerate() {
            let entry = InFlight { client: key, seq, part: part as u32, len: 0, slot, flags: traits.flags };
            self.send_to_node(entry, Some(node), |out| out.extend_from_slice(&request));
        }
        Flow::Done
    }

    /// As [`Engine::fan_nodes`], with something before the request that depends on the slot that stands for the node.
    pub(super) fn fan_prefixed(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        (name, traits): (&'static str, Traits),
        audience: Audience,
        kind: FanKind,
        (prefix, request): (Prefix<'_>, &[u8]),
    ) -> Flow {
        let mut targets = audience.members(cluster);
        if traits.flags.has(RequestFlags::ANYWHERE) {
            self.keep_living(key, &mut targets);
        }
        let mut fan = match self.fan_over(key, (name, traits), kind, &targets) {
            Ok(fan) => fan,
            Err(flow) => return flow,
        };
        if audience == Audience::MastersInTurn {
            let id = |node: NodeIndex| cluster.topology.node(node).id;
            fan.later
                .extend(targets.iter().zip(0..).skip(1).map(|(&(node, slot), part)| (id(node), slot, part)));
            fan.request.extend_from_slice(request);
            targets.truncate(1);
        }
        self.send_parts(key, fan, traits, targets, (prefix, request))
    }

    /// Registers a request that goes to several nodes, and sends each its part.
    pub(super) fn send_parts(
        &mut self,
        key: ClientKey,
        fan: Box<Fan>,
        traits: Traits,
        targets: Vec<(NodeIndex, Slot)>,
        (prefix, request): (Prefix<'_>, &[u8]),
    ) -> Flow {
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        for (part, (node, slot)) in targets.into_iter().enumerate() {
            let entry = InFlight { client: key, seq, part: part as u32, len: 0, slot, flags: traits.flags };
            self.send_to_node(entry, Some(node), |out| {
                prefix(slot, out);
                out.extend_from_slice(request);
            });
        }
        Flow::Done
    }

    /// Sends a part to its node; parks it if that is gone or cannot be reached. `encode` appends its bytes.
    pub(super) fn send_to_node(
        &mut self,
        entry: InFlight,
        node: Option<NodeIndex>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(client) = self.clients.get(entry.client) else { return };
        let lane = client.lane;
        if let Some(node) = node
            && !entry.flags.has(RequestFlags::READONLY)
            && let Some(client) = self.clients.get_mut(entry.client)
        {
            client.written |= shard_bit(node);
        }
        match node.and_then(|node| self.route(lane, node)) {
            Some(link) => self.send_part(link, entry, encode),
            None => {
                let mut part = Vec::new();
                encode(&mut part);
                self.park_part(entry, part);
            }
        }
    }

    /// A part whose node cannot be reached just now: it was never sent.
    fn park_part(&mut self, entry: InFlight, request: Vec<u8>) {
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        client.in_flight += 1; // what parks takes one off
        self.park(entry, request, Action::Resend, 0, self.now);
    }

    /// A part's reply: kept, or if it was the last, the reason for the one reply.
    pub(super) fn part_answered(&mut self, entry: &InFlight, reply: &[u8]) {
        let limit = self.config.client_output_buffer_limit.normal.hard();
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        let Some(work) = client.work.as_deref_mut() else { return };
        let Some(index) = work.fan_of(entry.seq) else { return };
        let fan = &mut work.fans[index].1;
        fan.parts.answer(entry.part as usize, reply);
        fan.remaining = fan.remaining.saturating_sub(1);
        if fan.parts.replies.len() as u64 > limit {
            return self.over_limit(entry.client);
        }
        if fan.unsent.is_some() {
            return self.send_unsent(entry.client, entry.seq);
        }
        if let Some((node, slot, part)) = fan.later.pop_front() {
            let request = fan.request.clone();
            let next = InFlight { part, slot, ..*entry };
            return self.send_next(next, node, &request);
        }
        if fan.remaining == 0 {
            self.finish_fan(entry, index);
        }
    }

    /// Asks the next of the nodes that are asked one after another.
    pub(super) fn send_next(&mut self, mut entry: InFlight, node: NodeId, request: &[u8]) {
        entry.flags = entry.flags.without(RequestFlags::RETRY);
        let node = self.cluster.topology.index_of(&node);
        self.send_to_node(entry, node, |out| out.extend_from_slice(request));
    }

    pub(super) fn finish_fan(&mut self, entry: &InFlight, index: usize) {
        let key = entry.client;
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return;
        };
        let Some((seq, mut fan)) = work.fans.remove(index) else { return };
        let mut made = std::mem::take(&mut self.made);
        made.clear();
        let failed = fan.parts.iter().any(is_error);
        match fan.kind.clone() {
            FanKind::RandomSizes if !failed => {
                if let Some(next) = self.choose_random(entry, &mut fan) {
                    let request = fan.request.clone();
                    let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut())
                    else {
                        return;
                    };
                    work.fans.insert(index, (seq, fan));
                    self.made = made;
                    return self.send_next(next.1, next.0, &request);
                }
                encode::null(&mut made, fan.protocol);
            }
            FanKind::Info(question) => {
                if self.one_info(&fan, &question, &mut made).is_none() {
                    made.extend_from_slice(
                        fan.parts.iter().find(|reply| is_error(reply)).unwrap_or_default(),
                    );
                }
            }
            FanKind::Scan(cursor) if !failed => {
                let walk = self.scan_step(&fan, cursor, &mut made);
                if let Some(keys) = walk {
                    self.made = made;
                    return self.confirm_scan(entry, index, (seq, fan), cursor, keys);
                }
            }
            FanKind::ScanConfirm(cursor, keys) if !failed => {
                let told = if self.is_unchanged(cursor, &fan) { 0 } else { cursor.encode() };
                super::scan::tell(told, &keys, &mut made);
            }
            FanKind::ScriptsExist(_) | FanKind::ScriptLoad
                if !fan.request.is_empty() && !keep_answers(&mut fan.parts) =>
            {
                self.made = made;
                return self.ask_patiently(key, index, (seq, fan));
            }
            FanKind::ScriptLoad => merge(Merge::Same, fan.name, &fan.parts, fan.protocol, &mut made),
            FanKind::ScriptsExist(known) if !fan.parts.iter().any(is_error) => {
                merge_exists(&known, &fan.parts, &mut made);
            }
            FanKind::ScriptFlush => {
                // Scripts that came while the nodes were being emptied may be gone again.
                self.shared.scripts.doubt();
                merge(Merge::Same, fan.name, &fan.parts, fan.protocol, &mut made);
            }
            FanKind::Users if !failed => {
                let told = fan.parts.iter().next().map(|reply| local::without_hashes(reply, &self.config));
                made.extend(told.unwrap_or_default());
            }
            FanKind::ConfigGet(_) if fan.parts.iter().all(<[u8]>::is_empty) => {
                self.made = made;
                return self.ask_patiently(key, index, (seq, fan));
            }
            FanKind::ConfigGet(asked) if !failed => {
                tell_settings(&asked, &fan.parts, fan.protocol, &mut made);
            }
            FanKind::ConfigSet(change) if !failed => {
                self.shared.settings.remember(&change.nodes, &change.told);
                if !change.own.is_empty() {
                    self.shared.settings.change(&change.own);
                    self.made = made;
                    return self.workers_too(entry, index, (seq, fan), Question::Settings);
                }
                merge(Merge::Same, fan.name, &fan.parts, fan.protocol, &mut made);
            }
            FanKind::ConfigRewrite if !failed => local::rewritten(&self.shared.settings.changed(), &mut made),
            FanKind::ConfigResetStat if !failed => {
                self.made = made;
                return self.workers_too(entry, index, (seq, fan), Question::ResetStat);
            }
            FanKind::FunctionsChanged => {
                self.shared.scripts.functions.change();
                merge(Merge::Same, fan.name, &fan.parts, fan.protocol, &mut made);
            }
            FanKind::Workers(told) => Self::tell_gathered(told, &fan, &mut made),
            FanKind::PubSub(who, pattern) if !failed => {
                self.tell_who(&fan.parts, &who, pattern.as_deref(), &mut made);
            }
            FanKind::Merge(rule) => merge(rule, fan.name, &fan.parts, fan.protocol, &mut made),
            _ => merge(Merge::First, fan.name, &fan.parts, fan.protocol, &mut made),
        }
        if self.pool.fans.len() < super::Pool::MOST && fan.parts.replies.capacity() < 1 << 20 {
            self.pool.fans.push(fan);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.learn(made.len());
        }
        if let Some(client) = self.clients.get_mut(key)
            && let Some(work) = client.work.as_deref_mut()
            && let Some(pending) = work.queue.complete(seq, &made, &mut work.out)
        {
            debug_assert!(pending.flags.has(PendingFlags::FAN));
            self.completed(key, pending);
        }
        self.made = made;
        if self.made.capacity() > 1 << 20 {
            self.made = Vec::new();
        }
    }

    /// RANDOMKEY, second step: a master chosen by its number of keys. None when there are no keys.
    fn choose_random(&mut self, entry: &InFlight, fan: &mut Fan) -> Option<(NodeId, InFlight)> {
        let sizes: Vec<u64> =
            fan.parts.iter().map(|reply| integer_reply(reply).unwrap_or(0).unsigned_abs()).collect();
        let total: u64 = sizes.iter().sum();
        self.counters.requests += 1; // also moves the dice
        let mut dice = (self.jitter() * total as f64) as u64;
        let chosen = sizes.iter().position(|&size| {
            let here = dice < size;
            dice = dice.saturating_sub(size);
            here
        })?;
        let topology = &self.cluster.topology;
        let &node = topology.masters().get(chosen)?;
        fan.kind = FanKind::Merge(Merge::First);
        fan.parts.clear();
        fan.parts.parts.push(Part::default());
        fan.remaining = 1;
        encode::command(&mut fan.request, &[b"RANDOMKEY"]);
        let slot = topology.first_slot(node).unwrap_or(0);
        Some((topology.node(node).id, InFlight { part: 0, slot, ..*entry }))
    }
}

impl Audience {
    /// The nodes, each with the slot that stands for it when it has to be asked again.
    pub(super) fn members(self, cluster: &Cluster) -> Vec<(NodeIndex, Slot)> {
        let topology = &cluster.topology;
        let slot = |master| topology.first_slot(master).unwrap_or(0);
        let mut members: Vec<_> = topology.masters().iter().map(|&master| (master, slot(master))).collect();
        match self {
            Self::Masters => {}
            Self::Shards(bits) => members.retain(|&(node, _)| bits & shard_bit(node) != 0),
            Self::MastersInTurn => {
                // Sources first; where two nodes exchange slots nothing can be first, and a key may be missed.
                let target = |node| topology.open_slots().iter().any(|open| open.target == node);
                members.sort_by_key(|&(node, _)| target(node));
            }
            Self::Nodes => {
                for &master in topology.masters() {
                    let replicas =
                        topology.replicas_of(master).filter(|&replica| !topology.node(replica).failed);
                    members.extend(replicas.map(|replica| (replica, slot(master))));
                }
            }
        }
        members
    }
}
