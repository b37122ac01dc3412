//! Putting a request on its connection, or finding out why it has to wait.

use portico_slots::{NodeIndex, Slot};

use super::quiet::QUIET;
use super::wait::shard_bit;
use super::{Engine, Fan};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::{Command, Flags};
use crate::config::PipelineOrder;
use crate::plan::Refusal;
use crate::session::{Client, ClientFlags, Pending, PendingFlags, Stall, Work};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Sent, or answered.
    Done,
    /// Cannot be sent yet; is looked at again later.
    Wait(Stall),
    /// Sent; nothing more of this client runs before it is answered.
    Block,
    /// Nothing more is read from this client.
    Close,
}

/// What sending needs to know of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// For decisions about its reply.
    pub flags: RequestFlags,
    /// It wakes or tells others.
    pub signal: bool,
    /// The hash of its keys if it has several in one slot, otherwise 0.
    pub keys: u32,
}

impl Traits {
    /// Those of a command of the table.
    #[inline]
    pub(super) fn of(command: &Command) -> Self {
        let mut flags = RequestFlags::default();
        if command.flags.has(Flags::READONLY) {
            flags = flags.with(RequestFlags::READONLY);
        }
        if command.is_script() {
            flags = flags.with(RequestFlags::SCRIPT);
        }
        Self { flags, signal: command.flags.has(Flags::SIGNAL), keys: 0 }
    }

    /// A question that may be asked twice.
    pub(super) const fn question() -> Self {
        Self { flags: RequestFlags::READONLY, signal: false, keys: 0 }
    }

    /// The same, of a request with several keys in one slot.
    pub(super) fn with_keys<'a>(mut self, keys: impl Iterator<Item = &'a [u8]>) -> Self {
        use std::hash::Hasher as _;
        let mut hasher = std::hash::DefaultHasher::new();
        let mut count = 0;
        for key in keys {
            hasher.write_usize(key.len());
            hasher.write(key);
            count += 1;
        }
        self.keys = if count > 1 { hasher.finish() as u32 | 1 } else { 0 };
        self
    }

    #[inline]
    fn pending(self) -> PendingFlags {
        let flags = if self.flags.has(RequestFlags::READONLY) {
            PendingFlags::default()
        } else {
            PendingFlags::WRITE
        };
        if self.keys == 0 { flags } else { flags.with(PendingFlags::MULTI_KEY) }
    }
}

/// Where a request would go.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: Slot,
    link: LinkKey,
    /// Some slot is being moved.
    guarded: bool,
    order: PipelineOrder,
    /// Bytes of replies to this client that may be on their way.
    share: u64,
}

/// Why a client's request has to wait before it may go to its place, if it has to. `open`: whether the slot is.
#[inline]
fn gate(client: &Client, place: Place, traits: Traits, open: impl FnOnce() -> bool) -> Option<Stall> {
    let work = client.work.as_deref()?;
    let outstanding = work.queue.outstanding_count();
    if outstanding == 0 {
        return None;
    }
    if outstanding >= Engine::MOST_OUTSTANDING
        || u64::from(outstanding) * u64::from(client.typical) > place.share
    {
        return Some(Stall::Order);
    }
    match place.order {
        PipelineOrder::Signal => {
            if traits.signal && client.writes > 0 && client.write_link != place.link {
                return Some(Stall::Order);
            }
        }
        PipelineOrder::Slot => {}
        PipelineOrder::Strict => {
            let mut others = work.queue.outstanding();
            if others.any(|(_, other)| other.link != place.link || other.flags.has(PendingFlags::FAN)) {
                return Some(Stall::Order);
            }
        }
    }
    if client.flags.has(ClientFlags::CAREFUL) || place.guarded || client.multi_key > 0 {
        return gate_carefully(client, work, place, traits, open());
    }
    None
}

/// A session's outstanding requests on one slot are all on one connection, and one at a time on an open slot.
///
/// Whether a slot is open is known only after something was refused there. A source that refuses a request with
/// several keys (one has moved) still runs a later one whose keys it has; so nothing is sent behind a request
/// with several keys, on its slot, but what is sure to be refused alike: the same keys. Reads pass each other.
#[cold]
fn gate_carefully(client: &Client, work: &Work, place: Place, traits: Traits, open: bool) -> Option<Stall> {
    if !work.parked.is_empty() {
        return Some(Stall::Order);
    }
    let careful = client.flags.has(ClientFlags::CAREFUL);
    let reads = traits.flags.has(RequestFlags::READONLY);
    let conflict = work.queue.outstanding().any(|(_, pending)| {
        let fan = pending.flags.has(PendingFlags::FAN);
        let same_slot = fan || pending.slot == place.slot;
        let passes = reads && !pending.flags.has(PendingFlags::WRITE)
            || traits.keys != 0 && pending.keys() == traits.keys;
        fan && (open || careful)
            || !fan && pending.slot == place.slot && (open || pending.link != place.link)
            || same_slot && pending.flags.has(PendingFlags::MULTI_KEY) && !passes
    });
    conflict.then_some(Stall::Order)
}

impl Engine {
    /// Unanswered bytes on one connection above which its clients wait.
    pub(super) const MOST_ON_LINK: usize = 8 << 20;
    /// Requests of one client that may be outstanding; more of its pipeline stays unread.
    pub(super) const MOST_OUTSTANDING: u32 = 4096;
    /// Bytes of replies to one client that may be on their way, but for its oldest request's.
    const SHARE: u64 = 1 << 20;
    /// Bytes of replies on one connection above which each client has one request on its way.
    const MOST_EXPECTED: u64 = 8 << 20;
    /// Bytes that a client has not read above which none of its reads is sent.
    pub(super) const MOST_UNREAD: usize = 1 << 20;
    /// A client that waits goes on below this many.
    pub(super) const RESUME_AT: u32 = Self::MOST_OUTSTANDING / 2;

    /// Sends a request to its slot's owner.
    #[inline]
    pub(super) fn send(&mut self, key: ClientKey, slot: Slot, traits: Traits, request: &[u8]) -> Flow {
        let Some(owner) = self.cluster.topology.owner(slot) else { return self.unreachable(key, slot) };
        self.send_by(key, slot, None, owner, traits, request)
    }

    /// Sends a request to a node, on a lane other than its client's if one is given.
    #[inline]
    pub(super) fn send_by(
        &mut self,
        key: ClientKey,
        slot: Slot,
        lane: Option<Lane>,
        owner: NodeIndex,
        traits: Traits,
        request: &[u8],
    ) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if traits.flags.has(RequestFlags::READONLY) && client.untold() > Self::MOST_UNREAD {
            return Flow::Wait(Stall::Unread);
        }
        let lane = lane.unwrap_or(client.lane);
        let link_key = self.routes[lane.index()][usize::from(owner)];
        let Some(link) = self.links.get_mut(link_key) else {
            self.route(lane, owner);
            return self.unreachable_node(key, slot, Some(owner));
        };
        if link.pipe.outstanding_bytes() > Self::MOST_ON_LINK {
            return Flow::Wait(Stall::Backpressure);
        }
        let open = || self.cluster.topology.is_open(slot) || self.opened.contains_key(&slot);
        // On a connection with much on its way, a client has one request.
        let share = if link.expected() < Self::MOST_EXPECTED { Self::SHARE } else { 0 };
        let (guarded, order) = (self.guarded, self.config.pipeline_order);
        let place = Place { slot, link: link_key, guarded, order, share };
        if let Some(stall) = gate(client, place, traits, open) {
            return Flow::Wait(stall);
        }
        let Some(work) = client.work.as_deref_mut() else { return Flow::Close };
        let flags = traits.pending();
        let seq = work.queue.push(Pending::sent(link_key, slot, flags).with_keys(traits.keys));
        client.multi_key += u32::from(traits.keys != 0);
        if flags.has(PendingFlags::WRITE) {
            if client.writes == 0 {
                client.write_link = link_key;
            } else if client.write_link != link_key {
                client.write_link = LinkKey::default();
            }
            client.writes += 1;
            client.written |= shard_bit(owner);
        }
        client.in_flight += 1;
        if link.pipe.is_empty() {
            link.moved = self.now;
        }
        let entry = InFlight { client: key, seq, part: InFlight::WHOLE, len: 0, slot, flags: traits.flags };
        link.pipe.push(request, entry);
        if !std::mem::replace(&mut link.dirty, true) {
            self.dirty_links.push(link_key);
        }
        Flow::Done
    }

    /// Whether a slot is being moved, as far as is known.
    pub(super) fn is_open(&self, slot: Slot) -> bool {
        self.cluster.topology.is_open(slot) || self.opened.contains_key(&slot)
    }

    /// Nobody takes requests for `slot` now: waits up to the failover timeout, then says so.
    #[cold]
    pub(super) fn unreachable(&mut self, key: ClientKey, slot: Slot) -> Flow {
        self.unreachable_node(key, slot, self.cluster.topology.owner(slot))
    }

    /// The same of a node that is wanted in the owner's place.
    fn unreachable_node(&mut self, key: ClientKey, slot: Slot, node: Option<NodeIndex>) -> Flow {
        self.refresh_wanted = true;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let waiting = match client.stall {
            Some((Stall::Unreachable, since)) => since,
            _ => self.now,
        };
        // Not every request of a pipeline waits its own turn for a master that is long gone.
        let topology = &self.cluster.topology;
        let lane = client.lane;
        let trouble = node.map(|node| topology.node(node).id);
        let trouble = trouble.and_then(|node| self.backoffs.get(&(node, lane)));
        if let Some((at, text)) = trouble.and_then(|backoff| backoff.busy.as_ref())
            && *at >= waiting
        {
            let text = text.clone();
            self.reply_error(key, text); // as the node would have answered
            return Flow::Done;
        }
        let trouble = trouble.map(|backoff| backoff.since);
        let since = trouble.map_or(waiting, |trouble| trouble.min(waiting));
        if self.now.saturating_duration_since(since) < self.config.failover_timeout {
            return Flow::Wait(Stall::Unreachable);
        }
        let text = self.refusal_text(Refusal::TimedOut, &InFlight { slot, ..InFlight::nobodys() });
        self.reply_error(key, &text);
        Flow::Done
    }

    /// Whether a request that goes to several connections may go now.
    pub(super) fn gate_fan(
        &self,
        key: ClientKey,
        traits: Traits,
        slots: impl Iterator<Item = Slot>,
    ) -> Option<Stall> {
        let client = self.clients.get(key)?;
        let reads = traits.flags.has(RequestFlags::READONLY);
        if reads && client.untold() > Self::MOST_UNREAD {
            return Some(Stall::Unread);
        }
        let work = client.work.as_deref()?;
        let outstanding = work.queue.outstanding_count();
        if outstanding == 0 {
            return None;
        }
        let waits = client.flags.has(ClientFlags::CAREFUL)
            || u64::from(outstanding) * u64::from(client.typical) > Self::SHARE
            || client.multi_key > 0 && !(reads && client.writes == 0)
            || outstanding >= Self::MOST_OUTSTANDING
            || self.config.pipeline_order == PipelineOrder::Strict
            || traits.signal && client.writes > 0 && self.config.pipeline_order != PipelineOrder::Slot
            || self.guarded && slots.into_iter().any(|slot| self.is_open(slot));
        waits.then_some(Stall::Order)
    }

    /// A request that was sent is answered before its client's next one is sent. An agent's next step waits anyway.
    pub(super) fn until_answered(&self, key: ClientKey, flow: Flow) -> Flow {
        let agent = self.clients.get(key).is_some_and(|client| client.flags.has(ClientFlags::AGENT));
        if flow == Flow::Done && !agent { Flow::Block } else { flow }
    }

    /// Registers a request that goes to several connections; its parts are sent with [`Engine::send_part`].
    pub(super) fn begin_fan(&mut self, key: ClientKey, fan: Box<Fan>, traits: Traits) -> Option<u32> {
        let client = self.clients.get_mut(key)?;
        let work = client.work.as_deref_mut()?;
        let flags = traits.pending().with(PendingFlags::FAN);
        let seq = work.queue.push(Pending::sent(LinkKey::default(), 0, flags));
        client.multi_key += u32::from(traits.keys != 0);
        if flags.has(PendingFlags::WRITE) {
            client.write_link = LinkKey::default();
            client.writes += 1;
        }
        work.fans.push_back((seq, fan));
        Some(seq)
    }

    /// Registers a request that is answered with [`Engine::settle`], be it before [`Engine::run_quietly`] could say that
    /// the answer is not wanted.
    pub(super) fn begin_wait(&mut self, key: ClientKey, traits: Traits) -> Option<u32> {
        let client = self.clients.get_mut(key)?;
        let mut flags = traits.pending().with(PendingFlags::FAN);
        if client.flags.any(QUIET) {
            flags = flags.with(PendingFlags::SILENT);
        }
        Some(client.work.as_deref_mut()?.queue.push(Pending::sent(LinkKey::default(), 0, flags)))
    }

    /// Sends one part of a registered request. `encode` appends its bytes.
    pub(super) fn send_part(
        &mut self,
        link_key: LinkKey,
        mut entry: InFlight,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let (Some(client), Some(link)) = (self.clients.get_mut(entry.client), self.links.get_mut(link_key))
        else {
            return;
        };
        client.in_flight += 1;
        if link.pipe.is_empty() {
            link.moved = self.now;
        }
        let buffer = link.pipe.begin();
        let start = buffer.len();
        encode(buffer);
        entry.len = 0;
        link.pipe.commit(start, entry);
        if !std::mem::replace(&mut link.dirty, true) {
            self.dirty_links.push(link_key);
        }
    }

    /// The connection to a node that takes requests, or why it has to be waited for.
    pub(super) fn ready(
        &mut self,
        key: ClientKey,
        node: Option<NodeIndex>,
        slot: Slot,
    ) -> Result<LinkKey, Flow> {
        let Some(client) = self.clients.get(key) else { return Err(Flow::Close) };
        let lane = client.lane;
        let link = node.and_then(|node| self.route(lane, node));
        let Some(link) = link else { return Err(self.unreachable_node(key, slot, node)) };
        if self.links.get(link).is_some_and(|link| link.pipe.outstanding_bytes() > Self::MOST_ON_LINK) {
            return Err(Flow::Wait(Stall::Backpressure));
        }
        Ok(link)
    }

    /// As [`Engine::ready`], for what has to be asked of each of several nodes: nobody waits for one that is gone for good.
    pub(super) fn ready_unless_lost(
        &mut self,
        key: ClientKey,
        node: NodeIndex,
        slot: Slot,
    ) -> Result<LinkKey, Flow> {
        let Some(client) = self.clients.get(key) else { return Err(Flow::Close) };
        if !self.is_lost(client.lane, node) {
            return self.ready(key, Some(node), slot);
        }
        self.route(client.lane, node); // so that it is known when it is back
        let text = self.refusal_text(Refusal::ShardLost, &InFlight { slot, ..InFlight::nobodys() });
        Err(self.refuse(key, text.as_bytes()))
    }
}
