//! WAIT and WAITAOF: asked of every shard that the client has written to; the smallest count is the answer.
//!
//! A node counts for a connection, from what that connection last did. So the client waits on connections of its
//! own, after its writes were answered, and each first does something that sets its offset.

use std::sync::Arc;
use std::time::Duration;

use portico_resp::encode;
use portico_slots::{NodeIndex, Slot, Topology, slot};

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, RequestFlags};
use crate::command::{Args, Command};
use crate::local;
use crate::plan::{Merge, RequestArgs};
use crate::session::{Block, Client, ClientFlags, FanKind, Stall};
use crate::topology::Cluster;

/// The bit that stands for a node in [`Client::written`](crate::session::Client): with more than 64 nodes several
/// share one, and WAIT asks more of them than it had to.
pub(super) fn shard_bit(node: NodeIndex) -> u64 {
    1 << (u32::from(node) % u64::BITS)
}

/// A key of Portico's own in a slot. It takes a millisecond to find; who says WAIT waits for replicas anyway.
fn key_in(wanted: Slot) -> String {
    let mut names = (0u32..).map(|number| format!("portico:wait:{number}"));
    names.find(|name| slot(name.as_bytes()) == wanted).unwrap_or_default()
}

/// The same WAIT with the shortest time.
fn hurried(words: &RequestArgs<'_>) -> Vec<u8> {
    let last = words.count() - 1;
    let words: Vec<&[u8]> = (0..=last).map(|at| if at == last { b"1" } else { words.word(at) }).collect();
    let mut out = Vec::new();
    encode::command(&mut out, &words);
    out
}

impl Engine {
    pub(super) fn wait(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        let counts: Option<Vec<i64>> =
            (1..command.arity.unsigned_abs() as usize).map(|at| words.integer(at)).collect();
        if counts.is_none_or(|counts| counts.iter().any(|&count| count < 0)) {
            return self.send_anywhere(key, cluster, Traits::question(), request); // the node has the error for it
        }
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if !client.is_answered() {
            return Flow::Wait(Stall::Order);
        }
        let is_wait = command.name == "wait";
        let agent = client.flags.has(ClientFlags::AGENT);
        if client.flags.has(ClientFlags::WRITES_LOST) {
            // A shard has another master since: nobody knows what reached the replicas.
            client.flags.clear(ClientFlags::WRITES_LOST);
            self.reply_now(key, if is_wait { b":0\r\n" } else { b"*2\r\n:0\r\n:0\r\n" });
            return Flow::Done;
        }
        let audience = match client.written {
            0 => self.living_shards(key, cluster),
            written => Audience::Shards(written),
        };
        if !self.take_lane(key) || !self.is_undisturbed(key) {
            return Flow::Wait(Stall::Backpressure);
        }
        // From 7.2 only a write sets a connection's offset, before that anything does.
        let writes = local::at_least(&cluster.version, (7, 2));
        // Inside a transaction nothing blocks; 0 would be for ever.
        let request = if agent { hurried(words) } else { request.to_vec() };
        let prefix = |slot, out: &mut Vec<u8>| match writes {
            true => encode::command(out, &[b"SET", key_in(slot).as_bytes(), b"", b"PX", b"1"]),
            false => encode::command(out, &[b"PING"]),
        };
        let traits = Traits {
            flags: RequestFlags::READONLY.with(RequestFlags::BLOCKING).with(RequestFlags::GROUP),
            ..Traits::question()
        };
        let kind = FanKind::Merge(if is_wait { Merge::Least } else { Merge::All });
        let flow =
            self.fan_prefixed(key, cluster, (command.name, traits), audience, kind, (&prefix, &request));
        if flow != Flow::Done {
            return flow;
        }
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if client.is_answered() {
            self.leave_lane(key);
            return Flow::Done; // refused
        }
        let lane = client.lane;
        let time = if agent { Some(1) } else { words.integer(words.count() - 1) };
        let time = time.and_then(|time| u64::try_from(time).ok()).filter(|&time| time > 0);
        let deadline = time.and_then(|time| now.checked_add(Duration::from_millis(time)));
        client.standing().block = Some(Block {
            name: command.name,
            request: Vec::new(),
            timeout: None,
            deadline,
            slot: 0,
            ends: Vec::new(),
            unblocked: None,
            looked: now,
            began: now,
            waited: None,
            in_doubt: false,
            left: false,
        });
        self.waiting.insert(key, deadline.is_some());
        for (node, _) in audience.members(cluster) {
            self.waits_on(self.routes[lane.index()][usize::from(node)]);
        }
        Flow::Block
    }

    /// Who has written nothing waits for no shard in particular: for those that live.
    fn living_shards(&self, key: ClientKey, cluster: &Cluster) -> Audience {
        let mut masters = Audience::Masters.members(cluster);
        self.keep_living(key, &mut masters);
        match masters.iter().fold(0, |shards, &(master, _)| shards | shard_bit(master)) {
            0 => Audience::Masters,
            shards => Audience::Shards(shards),
        }
    }

    /// A new map is in force: who has written to which of its nodes.
    pub(super) fn renumber_written(&mut self, before: &Cluster) {
        if let Some(places) = Places::between(&before.topology, &self.cluster.topology) {
            self.clients.values_mut().for_each(|client| places.renumber(client));
        }
    }

    /// Serves a client that another worker gave away, which saw the nodes as in `map`.
    pub fn take_over(&mut self, mut client: Client, map: &Arc<Cluster>) -> ClientKey {
        if client.written != 0
            && !Arc::ptr_eq(map, &self.cluster)
            && let Some(places) = Places::between(&map.topology, &self.cluster.topology)
        {
            places.renumber(&mut client);
        }
        self.add_client(client)
    }
}

/// Which bit stands for a master in one map, and which in another; none if it is no master there.
struct Places(Vec<(u64, Option<u64>)>);

impl Places {
    /// None: they are all where they were.
    fn between(old: &Topology, new: &Topology) -> Option<Self> {
        let same = old.nodes().len() == new.nodes().len()
            && old
                .nodes()
                .iter()
                .zip(new.nodes())
                .all(|(a, b)| a.id == b.id && a.is_master() == b.is_master());
        let place = |index: NodeIndex| {
            let now = new.index_of(&old.node(index).id).filter(|&index| new.node(index).is_master());
            (shard_bit(index), now.map(shard_bit))
        };
        (!same).then(|| Self((0..old.nodes().len() as NodeIndex).map(place).collect()))
    }

    fn renumber(&self, client: &mut Client) {
        let mut written = 0;
        for (_, now) in self.0.iter().filter(|(bit, _)| client.written & bit != 0) {
            match now {
                Some(now) => written |= now,
                None => {
                    client.flags.set(ClientFlags::WRITES_LOST);
                }
            }
        }
        client.written = written;
    }
}
