//! Clients that wait: nothing else of them runs before they are answered, but they are read on, so that one that
//! goes away is noticed at once.
//!
//! BLPOP and its like wait on a connection of the client's own. They stop waiting by CLIENT UNBLOCK, sent on
//! Portico's own connection to the node: when their client is gone (what came all the same is put back), when another
//! client asks for it, and when they wait at the wrong place because their slot opens or moves; then they are sent
//! again for the time that is left.

use std::time::{Duration, Instant};

use portico_resp::{Arg, Items, bulk_reply, encode, is_null, replies};
use portico_slots::{NodeId, Slot};

use super::Engine;
use super::send::{Flow, Traits};
use super::turn::SILENT;
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::Command;
use crate::plan::{
    Action, Event, Facts, Patience, RequestArgs, Timeout, decide, nil, put_back, reads_from_the_end,
};
use crate::session::{Block, Client, ClientFlags, Stall, Task, Unblock};
use crate::topology::Cluster;

/// While a slot is open, a client blocked at its source is asked so often whether it should wait at its target. Whoever
/// could not be asked within its time is asked so much later: a connection may be on its way.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A request whose client half-closes its connection so soon behind it may not have reached its node yet.
const AT_ONCE: Duration = Duration::from_millis(50);
/// A wait may be on its way from one node to another for so long and still be said to have waited.
const ON_THE_WAY: Duration = Duration::from_secs(1);

impl Engine {
    /// Nothing more of this client runs before its outstanding requests are answered. Returns whether there are any.
    pub(super) fn block(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        client.stall = None;
        if client.is_answered() {
            self.unblock(key); // answered already
            return false;
        }
        client.flags.set(ClientFlags::BLOCKED.with(ClientFlags::STALLED));
        true
    }

    /// A blocked client was answered: it goes on with what it sent meanwhile.
    #[cold]
    pub(super) fn unblock(&mut self, key: ClientKey) {
        self.end_trial(key);
        self.waiting.remove(key);
        self.stop_waiting_on(key);
        self.show_exec(key);
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::BLOCKED);
        if let Some(standing) = client.standing.as_deref_mut() {
            standing.block = None;
            if std::mem::take(&mut standing.leaving) {
                self.end_watch(key);
            }
        }
        self.leave_lane(key);
        self.wake(key);
    }

    /// Sends a request on a connection of its client's own, to which nothing more is sent before it is answered.
    fn send_alone(&mut self, key: ClientKey, slot: Slot, traits: Traits, request: &[u8]) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        if !client.is_answered() {
            return Flow::Wait(Stall::Order); // it takes another way
        }
        if !self.take_lane(key) {
            return Flow::Wait(Stall::Backpressure);
        }
        let flow = self.send(key, slot, traits, request);
        if flow != Flow::Done {
            return flow;
        }
        if self.clients.get(key).is_some_and(Client::is_answered) {
            self.leave_lane(key); // refused
            return flow;
        }
        Flow::Block
    }

    /// A command that may wait, with all its keys in `slot`.
    pub(super) fn begin_block(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        slot: Slot,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let traits = Traits::of(command);
        let Some(timeout) = Timeout::of(command.name, &words) else {
            return self.send_alone(key, slot, traits, request); // a module's: nobody knows for how long
        };
        let patience = timeout.read(&words);
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        if !client.is_answered() {
            return Flow::Wait(Stall::Order); // it takes another way
        }
        let began = match client.stall {
            Some((Stall::Backpressure | Stall::Unreachable, since)) => since,
            _ => self.now,
        };
        let deadline = match patience {
            Patience::Endless | Patience::AsSaid => None,
            Patience::For(time) => began.checked_add(time),
        };
        if deadline.is_some_and(|deadline| deadline + LOOK_AGAIN <= self.now) {
            // "Nothing came" would be said of a list that nobody has looked at.
            self.leave_lane(key);
            let text = self.could_not_ask(key, slot, began);
            return self.refuse(key, text.as_bytes());
        }
        if !self.take_lane(key) {
            return Flow::Wait(Stall::Backpressure);
        }
        let mut flags = traits.flags.with(RequestFlags::BLOCKING);
        let ends = reads_from_the_end(command.name, &words);
        let mut bytes = Vec::new();
        if !ends.is_empty() {
            // In case it has to be asked again, where the streams ended when it was asked first.
            flags = flags.with(RequestFlags::GROUP);
            ends.iter().for_each(|(_, stream)| encode::command(&mut bytes, &[b"XINFO", b"STREAM", stream]));
        }
        if let Some(deadline) = deadline.filter(|_| began < self.now) {
            let left = Patience::For(deadline.saturating_duration_since(self.now));
            bytes.extend_from_slice(&timeout.rewrite(request, left, &[]));
        } else {
            bytes.extend_from_slice(request);
        }
        let flow = self.send(key, slot, Traits { flags, ..traits }, &bytes);
        if flow != Flow::Done {
            return flow;
        }
        let looked = self.now.checked_sub(LOOK_AGAIN).unwrap_or(self.now);
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if client.is_answered() {
            self.leave_lane(key);
            return Flow::Done; // refused
        }
        let lane = client.lane;
        let block = Block {
            name: command.name,
            request: request.to_vec(),
            timeout: Some(timeout),
            deadline,
            slot,
            ends: ends.into_iter().map(|(at, _)| (at, None)).collect(),
            unblocked: None,
            looked,
            began: self.now,
            waited: None,
            in_doubt: false,
            left: false,
        };
        client.standing().block = Some(block);
        self.waiting.insert(key, deadline.is_some());
        if let Some(owner) = cluster.topology.owner(slot) {
            self.waits_on(self.routes[lane.index()][usize::from(owner)]);
            self.route(Lane::CONTROL, owner);
        }
        Flow::Block
    }

    /// The connection may stay silent; what follows on it is behind a mark.
    pub(super) fn waits_on(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            link.patient = true;
            self.push_mark(key);
        }
    }

    fn stop_waiting_on(&mut self, key: ClientKey) {
        let Some(lane) = self.clients.get(key).map(|client| client.lane).filter(|lane| lane.is_leased())
        else {
            return;
        };
        for at in 0..self.routes[lane.index()].len() {
            if let Some(link) = self.links.get_mut(self.routes[lane.index()][at]) {
                link.patient = false;
            }
        }
    }

    /// Where a stream that a blocked request reads from its end ends now.
    pub(super) fn note_end(&mut self, key: ClientKey, index: usize, reply: &[u8]) {
        let Some(standing) = self.clients.get_mut(key).and_then(|client| client.standing.as_deref_mut())
        else {
            return;
        };
        let Some((_, end)) = standing.block.as_mut().and_then(|block| block.ends.get_mut(index)) else {
            return;
        };
        if reply.starts_with(b"-ERR no such key") {
            *end = Some(b"0-0".to_vec());
            return;
        }
        let items: Vec<&[u8]> = Items::new(reply).into_iter().flatten().collect();
        let id = items.chunks_exact(2).find(|pair| bulk_reply(pair[0]) == Some(b"last-generated-id"));
        *end = id.and_then(|pair| bulk_reply(pair[1])).map(<[u8]>::to_vec);
    }

    /// A blocked request was refused, unblocked or lost: sent again for the time that is left, or answered.
    pub(super) fn block_interrupted(
        &mut self,
        entry: InFlight,
        node: Option<NodeId>,
        event: Event<'_>,
        hops: u32,
    ) {
        self.stop_waiting_on(entry.client);
        let now = self.now;
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        let cancelled = client.flags.has(ClientFlags::AGENT);
        let Some(block) = client.standing().block.as_mut() else { return };
        let unblocked = matches!(event, Event::Error(line) if ends_wait(line));
        if unblocked {
            block.waited = Some(now);
        }
        let takes = !entry.flags.has(RequestFlags::READONLY);
        block.in_doubt |= takes && matches!(event, Event::Lost { sent: true, .. });
        let block = block.clone();
        if unblocked && block.left && !cancelled {
            return self.close_client(entry.client); // as Redis closes who would have to wait
        }
        match (event, block.timeout, block.unblocked) {
            // WAIT: nobody can tell any more what the replicas have; of a shard that nothing was written to, nobody asked.
            (Event::Error(line), None, Some(Unblock::Error)) if unblocked => {
                return self.answer(&entry, line);
            }
            (Event::Lost { .. }, None, _) if client.written == 0 => return self.answer(&entry, b""),
            (_, None, _) => {
                let none: &[u8] = if block.name == "wait" { b":0\r\n" } else { b"*2\r\n:0\r\n:0\r\n" };
                return self.answer(&entry, none);
            }
            (Event::Error(line), _, Some(Unblock::Error)) if unblocked && !cancelled => {
                return self.tell_waited(&entry, line);
            }
            (_, _, asked) if cancelled || unblocked && (asked.is_some() || block.is_over(now)) => {
                return self.nothing_came(&entry);
            }
            _ if block.in_doubt && block.is_over(now) => return self.nothing_came(&entry),
            _ => {}
        }
        let facts = Facts { slot: entry.slot, readonly: true, hops_left: 1, ..Facts::default() };
        let action = if unblocked { Action::Resend } else { decide(event, facts) };
        match (action, event) {
            (Action::Pass, Event::Error(line)) => self.answer(&entry, line),
            (Action::Refuse(refusal), _) => self.refuse_request(&entry, node, refusal, now),
            (action, _) => {
                let flags = entry.flags.without(RequestFlags::GROUP);
                // However long it has waited, only now is it on its way again.
                self.park(InFlight { flags, ..entry }, block.request, action, hops, now);
            }
        }
    }

    /// Answers a wait in which nothing came.
    fn nothing_came(&mut self, entry: &InFlight) {
        let Some(client) = self.clients.get(entry.client) else { return };
        self.tell_waited(entry, &nil(client.protocol()));
    }

    /// Answers a wait; not with nothing, if it may have taken something.
    pub(super) fn tell_waited(&mut self, entry: &InFlight, reply: &[u8]) {
        let client = self.clients.get(entry.client);
        let block = client.and_then(|client| client.standing.as_deref()?.block.as_ref());
        let in_doubt = block.is_some_and(|block| block.in_doubt);
        if !in_doubt || !is_null(reply) && !ends_wait(reply) {
            return self.answer(entry, reply);
        }
        self.counters.unknown_outcomes += 1;
        self.answer(entry, IN_DOUBT);
    }

    /// Why a wait is over that was never asked for, or not any more.
    fn could_not_ask(&self, key: ClientKey, slot: Slot, since: Instant) -> String {
        let time = self.now.saturating_duration_since(since).as_millis();
        let stall = self.clients.get(key).and_then(|client| client.stall).map(|(stall, _)| stall);
        if stall == Some(Stall::Backpressure) {
            return format!(
                "ERR Portico had no connection left for {time} ms for another client that waits (max-leases). The \
                 command did not run"
            );
        }
        let place = self.slot_name(slot);
        format!("CLUSTERDOWN No master for {place} could be reached for {time} ms. The command did not run")
    }

    /// A client that waits has sent its last byte. As to Redis it is gone if it has to wait on; what is there at once
    /// it is told, if it has not waited before.
    pub(super) fn wait_ended(&mut self, key: ClientKey) {
        let at_once = self.waiting_links(key).next().is_some();
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return };
        let block = client.standing.as_deref_mut().and_then(|standing| standing.block.as_mut());
        match block.filter(|block| at_once && !block.left && now < block.began + AT_ONCE) {
            Some(block) => {
                block.left = true;
                client.flags.set(ClientFlags::ENDED);
                self.end_wait(key);
            }
            None => self.close_client(key),
        }
    }

    /// A parked request that waits may be over before it can be sent. Returns whether it was answered.
    pub(super) fn give_up_waiting(&mut self, entry: &InFlight) -> bool {
        let now = self.now;
        let Some(client) = self.clients.get(entry.client) else { return false };
        let protocol = client.protocol();
        let Some(block) = client.standing.as_deref().and_then(|standing| standing.block.as_ref()) else {
            return false;
        };
        if block.left {
            self.close_client(entry.client);
            return true;
        }
        let late = block.deadline.filter(|&deadline| now >= deadline + LOOK_AGAIN);
        let reply = match (block.unblocked, late) {
            (Some(Unblock::Error), _) => UNBLOCKED.to_vec(),
            (Some(Unblock::Timeout), _) => nil(protocol),
            (None, None) => return false,
            (None, _) if block.in_doubt => nil(protocol),
            // The end of its time was lost on the way to another node.
            (None, Some(deadline)) if block.waited.is_some_and(|until| deadline < until + ON_THE_WAY) => {
                nil(protocol)
            }
            (None, Some(_)) => {
                let since = block.waited.unwrap_or(block.began);
                let mut reply = Vec::new();
                encode::error(&mut reply, self.could_not_ask(entry.client, entry.slot, since));
                reply
            }
        };
        let Some(client) = self.clients.get_mut(entry.client) else { return false };
        if let Some(work) = client.work.as_deref_mut() {
            work.parked.pop_front();
            client.in_flight += 1; // what answers takes one off
        }
        self.tell_waited(entry, &reply);
        true
    }

    /// The connections that a blocked client's request waits on: one, but for WAIT.
    fn waiting_links(&self, key: ClientKey) -> impl Iterator<Item = LinkKey> {
        let lane = self.clients.get(key).map(|client| client.lane).filter(|lane| lane.is_leased());
        let routes = lane.map_or(&[][..], |lane| &self.routes[lane.index()]);
        routes.iter().copied().filter(|&link| self.links.get(link).is_some_and(|link| link.patient))
    }

    /// Has the nodes end a client's wait with an error.
    fn end_wait(&mut self, key: ClientKey) {
        for link in self.waiting_links(key).collect::<Vec<_>>() {
            self.unblock_link(link);
        }
    }

    /// CLIENT UNBLOCK, asked of this worker. Returns whether the client was blocked.
    pub(super) fn unblock_client(&mut self, id: u64, how: Unblock) -> bool {
        let clients = &mut self.clients;
        let found = self.waiting.iter().find(|&key| clients.get(key).is_some_and(|client| client.id == id));
        let Some(key) = found else { return false };
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(block) = client.standing().block.as_mut() else { return false };
        if block.unblocked.is_some() {
            return false;
        }
        block.unblocked = Some(how);
        self.end_wait(key);
        self.next_tick = self.now; // if it is on no connection now
        true
    }

    /// A client that waits is gone. Returns whether it is still needed: its place is an agent's from now on, who puts
    /// back what came all the same.
    pub(super) fn cancel_block(&mut self, key: ClientKey) -> bool {
        if self.waiting_links(key).next().is_none() {
            self.waiting.remove(key);
            return false;
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        let standing = client.standing();
        let Some(block) = standing.block.as_ref().filter(|block| block.timeout.is_some()) else {
            return false;
        };
        standing.task = Some(Task::PutBack(Some((block.name, block.request.clone()))));
        client.flags.set(ClientFlags::AGENT);
        self.waiting.leave(key);
        if let Some(work) = client.work.as_deref_mut() {
            work.out.clear();
            work.told = 0;
            work.input.clear();
            work.scanner = None;
        }
        self.end_wait(key);
        true
    }

    /// A wait was cancelled, and this is what it was answered.
    pub(super) fn put_back_step(
        &mut self,
        agent: ClientKey,
        taken: Option<(&'static str, Vec<u8>)>,
        told: &[u8],
    ) -> Option<Task> {
        let (name, request) = taken?;
        let reply = replies(told).last()?;
        let requests = put_back(name, &request, reply);
        if requests.is_empty() {
            return None;
        }
        self.instruct(agent, &requests);
        Some(Task::PutBack(None))
    }

    /// Clients that wait where their keys are not any more, or may not be, are sent to where they are; and those that
    /// are to wait no longer are told again.
    pub(super) fn move_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = self.now;
        let (mut astray, mut late) = (Vec::new(), Vec::new());
        for key in self.waiting.iter() {
            let Some(client) = self.clients.get(key) else { continue };
            let Some(block) = client.standing.as_deref().and_then(|standing| standing.block.as_ref()) else {
                continue;
            };
            if block.timeout.is_none() && block.deadline.is_some_and(|deadline| now >= deadline + SILENT) {
                // A node answers WAIT in its time, unless it has stopped.
                let asked = |link: &LinkKey| self.links.get(*link).is_some_and(|link| !link.pipe.is_empty());
                late.extend(self.waiting_links(key).filter(asked));
                continue;
            }
            let Some(link) = self.waiting_links(key).next().and_then(|link| self.links.get(link)) else {
                continue;
            };
            if client.flags.has(ClientFlags::AGENT) || block.unblocked.is_some() || block.left {
                // CLIENT UNBLOCK may have overtaken what it was to end.
                if now >= block.looked + LOOK_AGAIN {
                    astray.push(key);
                }
                continue;
            }
            if block.timeout.is_none() {
                continue;
            }
            let topology = &self.cluster.topology;
            let here = topology.index_of(&link.node);
            let owns = topology.owner(block.slot) == here;
            let open = self.is_open(block.slot);
            // It belongs at the owner of a slot that stays, or at the target of one that goes; at the source only if
            // the source says so.
            if !owns && !open || owns && open && now >= block.looked + LOOK_AGAIN {
                astray.push(key);
            }
        }
        for link in late {
            self.lose_link(link);
        }
        for key in astray {
            if let Some(block) = self.clients.get_mut(key).and_then(|client| client.standing().block.as_mut())
            {
                block.looked = now;
            }
            self.end_wait(key);
        }
    }
}

const IN_DOUBT: &[u8] =
    b"-UNKNOWN the connection to the node was lost while the command waited on it: an element may \
                          have been taken\r\n";
const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

/// Whether a wait was ended by CLIENT UNBLOCK, or because a master became a replica, and not by what it waited for.
pub(super) fn ends_wait(line: &[u8]) -> bool {
    line.starts_with(b"-UNBLOCKED client unblocked") || line.starts_with(b"-UNBLOCKED force unblock")
}
