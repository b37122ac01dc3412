//! A leased connection changes hands only behind a mark: an ECHO of a number that has come back behind everything
//! that was sent on it.
//!
//! One reply to each request is no proof that nothing more comes: up to 7.0 a node answers twice when CLIENT UNBLOCK
//! meets a command that CLIENT PAUSE (or a failover) has postponed, first that it was unblocked and later what the
//! command says. So a mark follows every request that may wait, in the same write, and takes up what comes in between;
//! a lane that is given back is leased again when all of its connections have come back to their marks; and none while
//! a CLIENT UNBLOCK is on its way that could hit what comes next.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use portico_resp::{Protocol, encode, is_error};
use portico_slots::Slot;
use slotmap::SlotMap;

use super::block::{LOOK_AGAIN, ends_wait};
use super::lanes::LaneState;
use super::{Engine, Link, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey};
use crate::plan::{Event, can_put_back, put_back};
use crate::session::{ClientFlags, Task};

/// A mark that has not come back after so long keeps its lane from the others no longer: the connection is closed.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// What CLIENT UNBLOCK has a node answer.
const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked";

/// The numbers of marks: no client can have guessed one and put it where a reply would show it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    secret: RandomState,
    last: u64,
}

impl Marks {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.secret.hash_one(self.last)
    }
}

/// A lane that nobody leases, and on whose connections nothing can come any more. Only [`Clean::of`] makes one.
#[derive(Debug)]
struct Clean(Lane);

impl Clean {
    fn of(lane: Lane, state: &LaneState, links: &SlotMap<LinkKey, Link>) -> Option<Self> {
        let vacant = lane.is_leased() && state.holder.is_none();
        let clean = || state.links.iter().all(|&key| links.get(key).is_none_or(Link::is_clean));
        (vacant && clean()).then_some(Self(lane))
    }
}

/// The lanes that can be leased.
#[derive(Debug, Default)]
pub(super) struct SpareLanes(Vec<Clean>);

impl SpareLanes {
    fn add(&mut self, lane: Clean) {
        self.0.push(lane);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One that speaks a protocol.
    pub(super) fn take(&mut self, protocol: Protocol, lanes: &[LaneState]) -> Option<Lane> {
        let at = self.0.iter().rposition(|Clean(lane)| lanes[lane.index()].protocol == protocol)?;
        Some(self.0.remove(at).0)
    }

    /// Whichever there is.
    pub(super) fn take_any(&mut self) -> Option<Lane> {
        self.0.pop().map(|Clean(lane)| lane)
    }

    /// One of them was sent something.
    fn withdraw(&mut self, lane: Lane) {
        self.0.retain(|Clean(spare)| *spare != lane);
    }
}

/// A wait that the node ended with "unblocked", until the mark behind it has come back: more may come.
#[derive(Debug)]
pub struct Withdrawn {
    /// The request and what it was answered so far, if its client has not been told.
    held: Option<(InFlight, Vec<u8>)>,
    /// The command and the request, to put back what it takes all the same.
    name: &'static str,
    request: Vec<u8>,
    /// The mark has come back.
    marked: bool,
    /// When the node was last told to end it.
    asked: Instant,
}

impl Engine {
    /// Sends a mark.
    pub(super) fn push_mark(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.pipe.is_empty() {
            link.moved = self.now;
        }
        link.pipe.push_mark(self.marks.next());
        self.mark_link(key);
    }

    /// Sends a mark behind a client's last request before it gives its lane back.
    pub(super) fn mark_behind(&mut self, key: ClientKey, slot: Slot) {
        let lane = self.clients.get(key).map(|client| client.lane).filter(|lane| lane.is_leased());
        if let (Some(lane), Some(owner)) = (lane, self.cluster.topology.owner(slot)) {
            self.push_mark(self.routes[lane.index()][usize::from(owner)]);
        }
    }

    /// Nobody leases a lane any more: it is spare once its connections are clean.
    pub(super) fn vacate(&mut self, lane: Lane) {
        self.lanes[lane.index()].settling = None;
        let mut at = self.lanes[lane.index()].links.len();
        while at > 0 {
            at -= 1;
            let key = self.lanes[lane.index()].links[at];
            let Some(link) = self.links.get(key) else { continue };
            match link.state {
                LinkState::Connecting | LinkState::Handshaking(_) => {}
                LinkState::Draining { .. } => self.close_link(key),
                LinkState::Ready if link.tainted => self.close_link(key),
                LinkState::Ready if link.pipe.is_marked() || link.pipe.ends_in_mark() => {}
                LinkState::Ready => self.push_mark(key),
            }
        }
        self.lanes[lane.index()].settling = Some(self.now);
        self.review_lane(lane);
    }

    /// A spare lane was sent something.
    pub(super) fn disturb(&mut self, lane: Lane) {
        self.spare_lanes.withdraw(lane);
        self.vacate(lane);
    }

    /// Something has come back on a lane, or one of its connections is lost: it may be spare now.
    pub(super) fn review_lane(&mut self, lane: Lane) {
        if self.lanes[lane.index()].settling.is_some()
            && let Some(clean) = Clean::of(lane, &self.lanes[lane.index()], &self.links)
        {
            self.lanes[lane.index()].settling = None;
            self.spare_lanes.add(clean);
        }
    }

    /// A lane must not be kept from others by one node that does not answer.
    pub(super) fn hurry_settling(&mut self) {
        let (now, links) = (self.now, &self.links);
        let late = |state: &&LaneState| state.settling.is_some_and(|since| now >= since + SETTLE_WITHIN);
        let unclean =
            |&key: &LinkKey| links.get(key).is_some_and(|link| !link.is_clean() && link.withdrawn.is_none());
        let late: Vec<LinkKey> = self
            .lanes
            .iter()
            .filter(late)
            .flat_map(|state| state.links.iter().copied())
            .filter(unclean)
            .collect();
        late.into_iter().for_each(|key| self.close_link(key));
    }

    /// A reply at a mark: its own, or one more to what was sent before it.
    pub(super) fn mark_reply(&mut self, key: LinkKey, reply: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.pipe.mark_came_back(reply) {
            if let Some(withdrawn) = link.withdrawn.as_mut() {
                withdrawn.marked = true;
            }
            return self.settled(key);
        }
        let Some(withdrawn) = link.withdrawn.as_mut() else {
            // One that is busy with a script has refused the mark.
            if !reply.starts_with(b"-BUSY ") {
                tracing::warn!("a node answered more than it was asked; its connection is closed");
            }
            return self.lose_link(key);
        };
        if reply.starts_with(UNBLOCKED) {
            return; // it was still postponed
        }
        if let Some((_, answer)) = withdrawn.held.as_mut() {
            *answer = reply.to_vec();
            return;
        }
        let requests = put_back(withdrawn.name, &withdrawn.request, reply);
        if !requests.is_empty() {
            let protocol = link.protocol;
            self.put_back(protocol, &requests);
        }
    }

    /// A request that may wait was answered. Returns whether its client is not to be told yet: more may come, or what
    /// it sends next on its connection may be hit by what was to end its wait.
    pub(super) fn holds_back(&mut self, key: LinkKey, entry: &InFlight, reply: &[u8]) -> bool {
        let (Some(link), Some(client)) = (self.links.get_mut(key), self.clients.get(entry.client)) else {
            return false;
        };
        let unblocked = reply.starts_with(UNBLOCKED);
        if !unblocked && link.unblocks == 0 || link.withdrawn.is_some() {
            return false;
        }
        let Some(block) = client.standing.as_deref().and_then(|standing| standing.block.as_ref()) else {
            return false;
        };
        let stays = client.flags.any(ClientFlags::WATCHING.with(ClientFlags::TRACKING));
        // Somebody asked that it wait no longer, and what may still come can be put back.
        let told = if unblocked { block.unblocked.is_some() && can_put_back(block.name) } else { true };
        if !unblocked && !stays {
            return false; // its lane waits for the mark
        }
        let held = (stays || !told).then(|| (*entry, reply.to_vec()));
        let holds = held.is_some();
        let (name, request) = (block.name, block.request.clone());
        link.withdrawn = Some(Box::new(Withdrawn { held, name, request, marked: false, asked: self.now }));
        self.withdrawn.push(key);
        holds
    }

    /// Whatever a wait could still be answered has come, if nothing is on its way any more that could end the next.
    fn settled(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        let lane = link.lane;
        if link.unblocks == 0
            && let Some(withdrawn) = link.withdrawn.take_if(|withdrawn| withdrawn.marked)
        {
            self.withdrawn.retain(|of| *of != key);
            let node = link.node;
            if link.tainted {
                self.close_link(key);
            }
            if let Some((entry, answer)) = withdrawn.held {
                if is_error(&answer) {
                    self.decide(entry, Some(node), Event::Error(&answer), &[]);
                } else {
                    self.tell_waited(&entry, &answer);
                }
            }
        }
        self.review_lane(lane);
    }

    /// A connection is lost before the mark on it has come back: what was not told is told, or asked again.
    pub(super) fn withdrawn_lost(&mut self, key: LinkKey, link: &mut Link) {
        let Some(withdrawn) = link.withdrawn.take() else { return };
        self.withdrawn.retain(|of| *of != key);
        let Some((entry, answer)) = withdrawn.held else { return };
        if ends_wait(&answer) {
            let event = if withdrawn.marked {
                Event::Error(&answer)
            } else {
                Event::Lost { sent: true, overtaken: false }
            };
            self.decide(entry, Some(link.node), event, &[]);
        } else if is_error(&answer) {
            self.decide(entry, Some(link.node), Event::Error(&answer), &[]);
        } else {
            self.tell_waited(&entry, &answer);
        }
    }

    /// Has the node end the wait on a connection with an error. Without a connection of Portico's own to it that has to
    /// be tried again: if the wait ended with its connection, an element that comes at that moment would be nobody's.
    pub(super) fn unblock_link(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key).filter(|link| link.unblocks == 0) else { return };
        let (node, id) = (link.node, link.identity.client_id.to_string());
        let Some(index) = self.cluster.topology.index_of(&node) else { return };
        let Some(control) = self.route(Lane::CONTROL, index) else { return };
        let mut request = Vec::new();
        encode::command(&mut request, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), b"ERROR"]);
        self.tell_node_as(control, &request, InFlight::unblock(key));
        if let Some(link) = self.links.get_mut(key) {
            link.unblocks += 1;
        }
    }

    /// A CLIENT UNBLOCK was answered, or its connection is lost: then it may still run, until that is killed.
    pub(super) fn unblock_done(&mut self, about: LinkKey, certainly: bool) {
        let Some(link) = self.links.get_mut(about) else { return };
        link.unblocks = link.unblocks.saturating_sub(1);
        link.tainted |= !certainly;
        let (lane, tainted) = (link.lane, link.tainted);
        if tainted && self.lanes[lane.index()].settling.is_some() {
            return self.close_link(about);
        }
        self.settled(about);
    }

    /// Waits that went on after "unblocked", since they were postponed, are told again.
    pub(super) fn tend_withdrawn(&mut self) {
        for at in 0..self.withdrawn.len() {
            let key = self.withdrawn[at];
            let Some(withdrawn) = self.links.get_mut(key).and_then(|link| link.withdrawn.as_mut()) else {
                continue;
            };
            if !withdrawn.marked && self.now >= withdrawn.asked + LOOK_AGAIN {
                withdrawn.asked = self.now;
                self.unblock_link(key);
            }
        }
    }

    /// What a wait took that nobody waits for any more goes back, by an agent of nobody's.
    fn put_back(&mut self, protocol: Protocol, requests: &[u8]) {
        let agent = self.hire_for_nobody(protocol);
        self.instruct(agent, requests);
        self.keep_on(agent, Some(Task::PutBack(None)));
    }

    /// Whether no CLIENT UNBLOCK is on its way that could hit what a client sends next on a lane of its own.
    pub(super) fn is_undisturbed(&self, client: ClientKey) -> bool {
        let lane = self.clients.get(client).map(|client| client.lane).filter(|lane| lane.is_leased());
        let mut links = lane.into_iter().flat_map(|lane| &self.lanes[lane.index()].links);
        links.all(|&key| self.links.get(key).is_none_or(|link| link.unblocks == 0))
    }
}
