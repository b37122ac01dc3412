//! Requests that are sent again: one at a time a client, in order, when nothing else of it is in flight.
//!
//! That is stricter than order needs and much simpler to hold to: a client with a request to be sent again sends
//! nothing new, so what was redirected, lost or pushed aside is applied in the order in which it was asked.

use std::time::{Duration, Instant};

use portico_resp::{Protocol, encode};
use portico_slots::{NodeId, Slot};

use super::Engine;
use super::guard::defect;
use super::wait::shard_bit;
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::plan::{Action, Event, Refusal};
use crate::session::{Attempt, ClientFlags, Parked, PendingFlags, Target};

/// A write of unknown outcome, which is told once its node can no longer run it: after the connection's successor
/// has killed it, or after the slot has another owner.
#[derive(Debug)]
pub(super) struct Orphan {
    entry: InFlight,
    node: NodeId,
    /// Told by then in any case.
    deadline: Instant,
}

impl Orphan {
    /// Who waits for it, and for which node.
    pub(super) fn wanted(&self) -> (InFlight, NodeId) {
        (self.entry, self.node)
    }
}

/// What is added when nothing could be done about it.
const STILL_OPEN: &str = ", and may still run when the node goes on";
/// Lets the next request use a slot that its node is importing.
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// The first pause before an open slot or a changing cluster is asked again.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
const LONG_PAUSE: Duration = Duration::from_millis(100);
/// A slot that a redirect showed to be open is treated so until the map was certainly read again.
const OPEN_FOR: Duration = Duration::from_secs(2);

impl Engine {
    /// A request is to be sent again as `action` says.
    pub(super) fn park(
        &mut self,
        entry: InFlight,
        request: Vec<u8>,
        action: Action,
        hops: u32,
        since: Instant,
    ) {
        let mut pause = Duration::ZERO;
        let (mut hops, mut entry) = (hops, entry);
        if action == Action::Load {
            entry.flags = entry.flags.with(RequestFlags::LOADED);
        }
        let map = |address| self.config.node_address_map.map(&address);
        let (target, open) = match action {
            Action::Follow { owner, .. } => {
                hops += 1;
                self.refresh_wanted = true;
                self.counters.moved += 1;
                (owner.map_or(Target::Owner, |address| Target::Node(map(address))), false)
            }
            Action::Ask { target, .. } => {
                hops += 1;
                self.counters.asked += 1;
                (target.map_or(Target::Owner, |address| Target::Asking(map(address))), true)
            }
            Action::Wait { refresh, open } => {
                self.refresh_wanted |= refresh;
                self.counters.tryagain += u64::from(open);
                if open {
                    hops = 0; // between source and target of an open slot it is the timeout that ends it
                }
                let waited = self.now.saturating_duration_since(since);
                pause = (waited / 4).clamp(SHORT_PAUSE, LONG_PAUSE);
                (Target::Owner, open)
            }
            Action::Load => (Target::Owner, false),
            Action::Reconnect => {
                self.refresh_wanted = true;
                pause = LONG_PAUSE;
                (Target::Owner, false)
            }
            Action::Resend | Action::Pass | Action::Refuse(_) => {
                self.refresh_wanted = true;
                (Target::Owner, false)
            }
        };
        let known = match &target {
            Target::Owner => true,
            Target::Node(address) | Target::Asking(address) => self.cluster.find(address).is_some(),
        };
        if hops > 0 && (hops > 2 || !known) {
            self.refresh_wanted = true;
            // The map has to be read again first (a new node, a hostname), or the nodes do not agree yet.
            pause = pause.max((SHORT_PAUSE * hops * hops).min(LONG_PAUSE));
        }
        if open {
            self.opened.insert(entry.slot, self.now + OPEN_FOR);
            self.guarded = true;
        }
        self.look_at_waiting |= !self.waiting.is_empty() && !entry.flags.has(RequestFlags::BLOCKING);
        let not_before = self.now + pause;
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        client.in_flight = client.in_flight.saturating_sub(1);
        client.flags.set(ClientFlags::CAREFUL);
        let Some(work) = client.work.as_deref_mut() else { return };
        if entry.part == InFlight::WHOLE
            && let Some(pending) = work.queue.get_mut(entry.seq)
        {
            pending.flags = pending.flags.with(PendingFlags::PARKED);
        }
        let first = work.queue.first();
        let order = |entry: &InFlight| (entry.seq.wrapping_sub(first), entry.part);
        let at = work.parked.partition_point(|parked| order(&parked.entry) < order(&entry));
        work.parked.insert(at, Parked { entry, request, target, hops, since, not_before });
        if !self.retrying.contains(&entry.client) {
            self.retrying.push(entry.client);
        }
        self.counters.retries += 1;
        self.next_tick = self.next_tick.min(not_before);
    }

    /// Sends again what may be sent now.
    pub(super) fn send_parked(&mut self) {
        let mut clients = std::mem::take(&mut self.retrying);
        clients.retain(|&key| self.for_client(key, |engine| engine.send_parked_of(key)) == Some(true));
        self.retrying.extend(clients);
    }

    /// Sends a client's oldest parked request if nothing else of it is in flight. Returns whether it has more.
    fn send_parked_of(&mut self, key: ClientKey) -> bool {
        loop {
            let Some(client) = self.clients.get_mut(key) else { return false };
            let in_flight = client.in_flight;
            let lane = client.lane;
            let Some(work) = client.work.as_deref_mut() else { return false };
            let Some(parked) = work.parked.front() else {
                self.wake(key);
                return false;
            };
            if in_flight > 0 {
                return true;
            }
            if self.now < parked.not_before {
                self.next_tick = self.next_tick.min(parked.not_before);
                return true;
            }
            if parked.entry.flags.has(RequestFlags::BLOCKING) {
                let entry = parked.entry;
                if self.give_up_waiting(&entry) {
                    continue;
                }
            }
            let Some(parked) = self.oldest_parked(key) else { return false };
            let topology = &self.cluster.topology;
            let owner = topology.owner(parked.slot());
            let (slot, anywhere) = (parked.slot(), parked.entry.flags.has(RequestFlags::ANYWHERE));
            let (node, asking) = match &parked.target {
                Target::Owner => (owner, false),
                // Until the refresher has seen a new node, its word is taken from the map's next state.
                Target::Node(address) => (topology.find(address).or(owner), false),
                Target::Asking(address) => match topology.find(address) {
                    Some(node) => (Some(node), true),
                    None => (owner, false),
                },
            };
            let node =
                if anywhere && parked.target == Target::Owner { self.carrier(lane, slot) } else { node };
            let link = node.and_then(|node| self.route(lane, node));
            let Some(client) = self.clients.get_mut(key) else { return false };
            let Some(work) = client.work.as_deref_mut() else { return false };
            if let Some(link_key) = link {
                let Some(mut parked) = work.parked.pop_front() else { return false };
                defect(&parked.request);
                let block = client.standing.as_deref().and_then(|standing| standing.block.as_ref());
                let waits = block.filter(|_| parked.entry.flags.has(RequestFlags::BLOCKING));
                if let Some(again) = waits.and_then(|block| block.again(self.now)) {
                    parked.request = again;
                }
                let unsaid = asking && super::caching::without_caching(&mut parked);
                let mut entry = parked.entry;
                entry.flags = entry.flags.with(RequestFlags::RETRY).without(RequestFlags::SUBSCRIPTION);
                if entry.part == InFlight::WHOLE
                    && let Some(pending) = work.queue.get_mut(entry.seq)
                {
                    pending.link = link_key;
                    pending.flags = pending.flags.without(PendingFlags::PARKED);
                }
                let (hops, since) = (parked.hops, parked.since);
                work.attempt = Some(Attempt { seq: entry.seq, part: entry.part, hops, since });
                client.in_flight += 1;
                if let Some(node) = node
                    && !entry.flags.has(RequestFlags::READONLY)
                {
                    client.written |= shard_bit(node);
                }
                if parked.calls_script() {
                    self.give_scripts(link_key, &parked.request);
                }
                let Some(link) = self.links.get_mut(link_key) else { return true };
                link.patient = entry.flags.has(RequestFlags::BLOCKING);
                if link.pipe.is_empty() {
                    link.moved = self.now;
                }
                if asking {
                    link.pipe.push(ASKING, InFlight::ignored());
                }
                link.pipe.push(&parked.request, entry);
                self.mark_link(link_key);
                if entry.flags.has(RequestFlags::BLOCKING) {
                    self.push_mark(link_key);
                }
                if unsaid {
                    self.flush_soon(key, true);
                }
                return true;
            }
            self.refresh_wanted = true;
            let Some(parked) = work.parked.front() else { return false };
            if self.now < parked.since + self.config.failover_timeout {
                return true;
            }
            let entry = parked.entry;
            work.parked.pop_front();
            client.in_flight += 1; // what answers takes one off
            self.refuse_request(&entry, None, Refusal::TimedOut, self.now);
        }
    }

    /// A node is silent: what any node may answer is answered by another, if there is one that may.
    pub(super) fn ask_others(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key) else { return };
        let (lane, node) = (link.lane, link.node);
        if !self.cluster.topology.masters().iter().any(|&master| self.may_answer(lane, master)) {
            return;
        }
        let Some(link) = self.links.get_mut(key) else { return };
        let lost = Event::Lost { sent: true, overtaken: false };
        for (entry, request) in link.pipe.take_questions() {
            self.for_client(entry.client, |engine| engine.decide(entry, Some(node), lost, &request));
        }
    }

    fn oldest_parked(&self, key: ClientKey) -> Option<&Parked> {
        self.clients.get(key)?.work.as_deref()?.parked.front()
    }

    /// Answers a request with an error of Portico's own; what may still run is told only when it no longer can.
    ///
    /// `since`: when it was sent; the failover timeout runs from then.
    pub(super) fn refuse_request(
        &mut self,
        entry: &InFlight,
        node: Option<NodeId>,
        refusal: Refusal,
        since: Instant,
    ) {
        if let (Refusal::OutcomeUnknown, Some(node)) = (refusal, node) {
            self.counters.unknown_outcomes += 1;
            let deadline = since + self.config.failover_timeout;
            self.orphans.push(Orphan { entry: *entry, node, deadline });
            if self.cannot_run_any_more(entry, node) {
                self.settle_orphans(Some(node));
            }
            return;
        }
        let text = self.refusal_text(refusal, entry);
        let mut reply = Vec::new();
        encode::error(&mut reply, &text);
        self.answer(entry, &reply);
    }

    /// Whether a connection stands to the node that has killed its predecessor, or the slot is another's.
    fn cannot_run_any_more(&self, entry: &InFlight, node: NodeId) -> bool {
        let topology = &self.cluster.topology;
        let Some(index) = topology.index_of(&node) else { return true };
        // A message is heard whoever owns the slot by then.
        let elsewhere = || topology.owner(entry.slot).is_some_and(|owner| topology.node(owner).id != node);
        self.routes[self.lane_of(entry).index()][usize::from(index)] != Default::default()
            || !entry.flags.has(RequestFlags::ANYWHERE) && elsewhere()
    }

    /// The lane that a request was sent on.
    pub(super) fn lane_of(&self, entry: &InFlight) -> Lane {
        if entry.flags.has(RequestFlags::SUBSCRIPTION) {
            return Lane::HUB;
        }
        self.clients.get(entry.client).map_or(Lane::shared(Protocol::Resp2), |client| client.lane)
    }

    /// Whether it is a message, sent to a node that the cluster has given up. That cannot be fenced, and no slot's new owner
    /// makes an end of the message: to wait for longer would tell its sender no more.
    fn is_message_to_failed(&self, orphan: &Orphan) -> bool {
        let topology = &self.cluster.topology;
        let failed = |node: &NodeId| topology.index_of(node).is_some_and(|index| topology.node(index).failed);
        orphan.entry.flags.has(RequestFlags::ANYWHERE) && failed(&orphan.node)
    }

    /// Tells the outcome unknown where nothing can run any more. `fenced` is a node whose lost connections are
    /// known to be dead.
    pub(super) fn settle_orphans(&mut self, fenced: Option<NodeId>) {
        if self.orphans.is_empty() {
            return;
        }
        let orphans = std::mem::take(&mut self.orphans);
        for orphan in orphans {
            let settled = fenced == Some(orphan.node) || self.cannot_run_any_more(&orphan.entry, orphan.node);
            if settled || self.now >= orphan.deadline || self.is_message_to_failed(&orphan) {
                let mut text = self.refusal_text(Refusal::OutcomeUnknown, &orphan.entry);
                if !settled {
                    text.push_str(STILL_OPEN);
                }
                let mut reply = Vec::new();
                encode::error(&mut reply, &text);
                self.for_client(orphan.entry.client, |engine| engine.answer(&orphan.entry, &reply));
            } else {
                self.orphans.push(orphan);
            }
        }
    }

    /// A slot and the shard that it is missed with: where its master is, as far as is known, and what else that has.
    pub(super) fn slot_name(&self, slot: Slot) -> String {
        let topology = &self.cluster.topology;
        let Some(owner) = topology.owner(slot) else { return format!("slot {slot}") };
        let (address, count) = (&topology.node(owner).address, topology.slot_counts()[usize::from(owner)]);
        format!("slot {slot} ({address}, {count} slots)")
    }

    /// The error that a client is given, with its code.
    pub(super) fn refusal_text(&self, refusal: Refusal, entry: &InFlight) -> String {
        let slot = entry.slot;
        match refusal {
            Refusal::OutcomeUnknown => {
                "UNKNOWN the connection to the node was lost after the command was sent: it may or may not have run"
                    .to_owned()
            }
            Refusal::ReadLost => {
                "UNKNOWN the connection to the node was lost before it answered, with a later write of this client \
                 behind the command: send it again"
                    .to_owned()
            }
            Refusal::TooManyRedirections => format!(
                "CLUSTERDOWN Too many cluster redirections for slot {slot} (max-redirections {}): the nodes do not agree who serves it",
                self.config.max_redirections
            ),
            Refusal::TimedOut => format!(
                "CLUSTERDOWN No master for {} could be reached for {} ms (failover-timeout). The command did not run",
                self.slot_name(slot),
                self.config.failover_timeout.as_millis()
            ),
            Refusal::ShardLost => format!(
                "CLUSTERDOWN The master of {} has failed, and there is no replica to take its place. The command did not run",
                self.slot_name(slot)
            ),
            Refusal::Streamed => {
                "TRYAGAIN The slot moved while a value over 1 MB was being sent. The command did not run: send it again"
                    .to_owned()
            }
            Refusal::StreamLost => {
                "TRYAGAIN The connection to the node was lost while a value over 1 MB was being sent. The command did \
                 not run: send it again"
                    .to_owned()
            }
            Refusal::NodeCredentials => {
                "ERR Portico's own credentials are refused by the cluster (node-username, node-password)".to_owned()
            }
        }
    }
}
