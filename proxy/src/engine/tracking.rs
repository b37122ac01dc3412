//! CLIENT TRACKING: the nodes track, each on a connection of the client's own, and no key is known here.
//!
//! A client that tracks leases a lane. Its CLIENT TRACKING is part of setting up each connection of the lane, and
//! all of its requests take them: so an invalidation cannot overtake the reply that it belongs to, and what the modes
//! mean is the nodes' own. With REDIRECT each connection has another beside it, of a second lane, to which the node
//! redirects what that client is to be told; what comes there is told to the client that was named.

use std::time::Instant;

use portico_resp::{Protocol, encode};
use portico_slots::{NodeId, NodeIndex, diff};
use slotmap::{Key as _, KeyData};

use super::send::{Flow, Traits};
use super::{Effect, Engine, Gather, LinkState, Question};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey};
use crate::local::{self, TrackingRequest};
use crate::plan::{Refusal, RequestArgs};
use crate::session::{ClientFlags, Hearer, Stall, Tracking, TrackingMode};
use crate::topology::Cluster;

const TRACKING_OFF: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n";
const NO_LANE: &[u8] =
    b"ERR Portico has no connections left for another client that tracks keys (max-leases)";

/// A CLIENT TRACKING that is not answered yet.
#[derive(Debug)]
pub(super) struct Enabling {
    seq: u32,
    request: TrackingRequest,
    /// Workers that have not said yet whether the client that is to be told is theirs.
    unheard: usize,
    hearer: Option<Hearer>,
    /// Connections are waited for until then.
    deadline: Instant,
    /// What connections are told that track already, when somebody listens for them.
    turns: Option<TrackingMode>,
}

impl Engine {
    /// CLIENT TRACKING ON or OFF.
    pub(super) fn track(&mut self, key: ClientKey, words: &RequestArgs<'_>) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        if !client.is_answered() {
            return Flow::Wait(Stall::Order); // its next requests take another way
        }
        let request = TrackingRequest::read(words);
        let (redirect, own) = (request.redirect, client.id);
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        let deadline = self.after(self.config.failover_timeout);
        let mut enabling = Enabling { seq, request, unheard: 0, hearer: None, deadline, turns: None };
        match redirect.map(u64::try_from) {
            Some(Ok(id)) if id != own && id > 0 => {
                enabling.unheard = self.shared.workers;
                self.enabling.insert(key, enabling);
                let question = Question::Hearer(id).into();
                self.shared.ask_all();
                self.effects.push(Effect::Gather(Gather { worker: self.worker, client: key, seq, question }));
            }
            redirect => {
                let own = redirect == Some(Ok(own));
                enabling.hearer = own.then_some(Hearer { worker: self.worker, client: key });
                self.enabling.insert(key, enabling);
                self.switch_tracking(key);
            }
        }
        if self.enabling.contains_key(&key) { Flow::Block } else { Flow::Done }
    }

    /// Another client wants what it is told of keys told to the one with this number. Empty if it is not here.
    pub(super) fn find_hearer(&mut self, id: u64) -> Vec<u8> {
        let found = self.clients().find(|(_, client)| client.id == id).map(|(key, _)| key);
        let Some((key, client)) = found.and_then(|key| Some((key, self.clients.get_mut(key)?))) else {
            return Vec::new();
        };
        client.standing().hears = true;
        key.data().as_ffi().to_string().into_bytes()
    }

    /// A worker's answer to [`Question::Hearer`].
    pub(super) fn heard_of(&mut self, key: ClientKey, seq: u32, worker: usize, answer: &[u8]) {
        let Some(enabling) = self.enabling.get_mut(&key).filter(|enabling| enabling.seq == seq) else {
            return;
        };
        if let Some(client) = std::str::from_utf8(answer).ok().and_then(|text| text.parse().ok()) {
            let client = KeyData::from_ffi(client).into();
            enabling.hearer = Some(Hearer { worker, client });
        }
        enabling.unheard -= 1;
        if enabling.unheard > 0 {
            return;
        }
        self.switch_tracking(key);
    }

    /// What CLIENT TRACKING asks for is known: does it, and answers once it is done.
    fn switch_tracking(&mut self, key: ClientKey) {
        let (Some(enabling), Some(client)) = (self.enabling.get(&key), self.clients.get(key)) else { return };
        let hearer = enabling.hearer;
        if enabling.request.redirect.is_some() && hearer.is_none() {
            return self.tracking_answer(key, Err(local::NO_SUCH_CLIENT));
        }
        match enabling.request.check(client.tracking().map(|tracking| &tracking.mode)) {
            Err(error) => self.tracking_answer(key, Err(&error)),
            Ok(None) => {
                self.end_tracking(key);
                self.tracking_answer(key, Ok(()));
            }
            Ok(Some(mode)) => match self.begin_tracking(key, mode, hearer) {
                Some(()) => self.tracking_progress(key),
                None => self.tracking_answer(key, Err(NO_LANE)),
            },
        }
    }

    fn tracking_answer(&mut self, key: ClientKey, answer: Result<(), &[u8]>) {
        let Some(enabling) = self.enabling.remove(&key) else { return };
        let mut reply = b"+OK\r\n".to_vec();
        if let Err(error) = answer {
            reply.clear();
            encode::error(&mut reply, error);
            self.counters.errors += 1;
        }
        self.settle(key, enabling.seq, &reply);
    }

    /// Has the nodes track from now on. None: there are no connections left for that.
    fn begin_tracking(&mut self, key: ClientKey, mode: TrackingMode, hearer: Option<Hearer>) -> Option<()> {
        let before = self.clients.get(key)?.tracking().map(|tracking| tracking.mode.clone());
        if !self.take_lane(key) {
            return None;
        }
        let client = self.clients.get(key)?;
        let lane = client.lane;
        if before.is_none() && !client.flags.has(ClientFlags::WATCHING) {
            // Others left them there; on new ones it is known whether a node lets Portico track.
            self.close_lane(lane);
        }
        if mode.redirect > 0 && self.lanes[lane.index()].listener.is_none() {
            let Some(listener) = self.lease(Protocol::Resp3, key) else {
                self.leave_lane(key);
                return None;
            };
            if before.is_none() {
                self.close_lane(lane); // connections (a watch's) that nobody listens for
            }
            self.lanes[lane.index()].listener = Some(listener);
            self.lanes[listener.index()].listens_for = Some(lane);
        }
        let mut command = Vec::new();
        if mode.redirect == 0 {
            mode.command(None, &mut command);
            self.tell_lane(lane, &command);
            // What was tracked so far stays so, and is told on the connections themselves from now on.
            if let Some(listener) = self.lanes[lane.index()].listener.take() {
                self.give_back(listener);
            }
        } else if before.as_ref().is_some_and(|before| before.redirect == 0) {
            // What was tracked so far stays so, and is told elsewhere once somebody listens there.
            self.await_listeners(lane, mode.clone(), key);
        } else if before
            .as_ref()
            .is_some_and(|before| *before != TrackingMode { redirect: before.redirect, ..mode.clone() })
        {
            self.tell_redirected(lane, &mode);
        }
        let mut mode = mode;
        mode.prefixes.extend(before.map(|before| before.prefixes).unwrap_or_default());
        self.lanes[lane.index()].tracks = Some(Box::new(mode.clone()));
        let client = self.clients.get_mut(key)?;
        if client.flags.set(ClientFlags::TRACKING) {
            self.shared.tracking_began();
        }
        let tracking = Tracking { mode, hearer, broken: false, flush: false, behind: false };
        client.standing().tracking = Some(Box::new(tracking));
        self.trackers.insert(key);
        for at in 0..self.cluster.topology.masters().len() {
            self.route(lane, self.cluster.topology.masters()[at]);
        }
        Some(())
    }

    /// Connections that track already are to have their invalidations told elsewhere.
    fn await_listeners(&mut self, lane: Lane, mode: TrackingMode, key: ClientKey) {
        let Some(listener) = self.lanes[lane.index()].listener else { return };
        for link in self.links_of(lane) {
            let Some(at) = self.links.get(link) else { continue };
            match self.cluster.topology.index_of(&at.node) {
                Some(index) if matches!(at.state, LinkState::Ready) => {
                    self.route(listener, index);
                }
                _ => self.lose_link(link),
            }
        }
        if let Some(enabling) = self.enabling.get_mut(&key) {
            enabling.turns = Some(mode);
        }
    }

    /// Somebody listens at a node: what is tracked there so far is told there from now on.
    fn turn_to_listener(&mut self, lane: Lane, node: NodeIndex) {
        let id = self.listener_id(lane, self.cluster.topology.node(node).id);
        let enabling = self.tracker(lane).and_then(|key| self.enabling.get(&key));
        let mode = enabling.and_then(|enabling| enabling.turns.as_ref());
        if let (Some(mode), Some(id), Some(link)) = (mode, id, self.standing(lane, node)) {
            let mut command = Vec::new();
            mode.command(Some(id), &mut command);
            self.tell_node(link, &command);
        }
    }

    /// Other options, on connections that track already.
    fn tell_redirected(&mut self, lane: Lane, mode: &TrackingMode) {
        for link in self.links_of(lane) {
            let Some(node) = self.links.get(link).map(|link| link.node) else { continue };
            match (self.listener_id(lane, node), self.links.get_mut(link)) {
                (Some(listener), Some(link)) if matches!(link.state, LinkState::Ready) => {
                    let mut command = Vec::new();
                    mode.command(Some(listener), &mut command);
                    link.pipe.push(&command, InFlight::ignored());
                }
                _ => self.lose_link(link),
            }
            self.mark_link(link);
        }
    }

    /// The number that the listener of a lane has at a node.
    fn listener_id(&self, lane: Lane, node: NodeId) -> Option<u64> {
        let listener = self.lanes[lane.index()].listener?;
        let link = self.standing(listener, self.cluster.topology.index_of(&node)?)?;
        Some(self.links.get(link)?.identity.client_id)
    }

    /// What has a node track on a new connection, if that is what the connection is for.
    pub(super) fn track_request(&self, key: LinkKey) -> Option<Vec<u8>> {
        let link = self.links.get(key)?;
        let mode = self.lanes[link.lane.index()].tracks.as_deref()?;
        let mut command = Vec::new();
        mode.command(self.listener_id(link.lane, link.node), &mut command);
        Some(command)
    }

    /// Answers CLIENT TRACKING ON when enough connections stand: one, and with BCAST one to each master.
    fn tracking_progress(&mut self, key: ClientKey) {
        let Some(enabling) = self.enabling.get(&key).filter(|enabling| enabling.unheard == 0) else { return };
        let over = self.now >= enabling.deadline;
        let Some(client) = self.clients.get(key) else { return };
        let bcast = client.tracking().is_some_and(|tracking| tracking.mode.bcast);
        let lane = client.lane;
        let listener = self.lanes[lane.index()].listener;
        let stands = |master: &NodeIndex| self.standing(lane, *master).is_some();
        let heard = |master: &NodeIndex| listener.is_none_or(|lane| self.standing(lane, *master).is_some());
        let masters = self.cluster.topology.masters();
        let ready = masters.iter().filter(|master| stands(master) && heard(master)).count();
        let wanted = if bcast { masters.len().max(1) } else { 1 };
        let deaf = masters.iter().filter(|master| stands(master) && !heard(master));
        let deaf: Vec<LinkKey> = deaf.filter_map(|&master| self.standing(lane, master)).collect();
        if over {
            deaf.iter().for_each(|&link| self.lose_link(link));
        }
        if ready >= wanted && deaf.is_empty() || over && ready > 0 {
            self.tracking_answer(key, Ok(()));
        } else if over {
            self.end_tracking(key);
            let slot = masters_slot(&self.cluster);
            let text = self.refusal_text(Refusal::TimedOut, &InFlight { slot, ..InFlight::nobodys() });
            self.tracking_answer(key, Err(text.as_bytes()));
        }
    }

    /// A node does not let Portico track.
    pub(super) fn tracking_refused(&mut self, lane: Lane, why: &str) {
        let Some(key) = self.tracker(lane).filter(|key| self.enabling.contains_key(key)) else { return };
        self.end_tracking(key);
        self.tracking_answer(key, Err(why.as_bytes()));
    }

    /// The client that tracks on a lane.
    pub(super) fn tracker(&self, lane: Lane) -> Option<ClientKey> {
        let holder = self.lanes[lane.index()].holder?;
        let client = self.clients.get(holder)?;
        let owner = client.standing.as_deref().and_then(|standing| standing.owner);
        let key = if client.flags.has(ClientFlags::AGENT) { owner? } else { holder };
        self.trackers.contains(&key).then_some(key)
    }

    /// A connection stands.
    pub(super) fn tracking_joined(&mut self, lane: Lane, node: NodeId) {
        if let Some(tracked) = self.lanes[lane.index()].listens_for {
            if let Some(index) = self.cluster.topology.index_of(&node) {
                self.turn_to_listener(tracked, index);
                self.route(tracked, index);
            }
            if let Some(key) = self.tracker(tracked) {
                self.tracking_progress(key);
            }
            return;
        }
        let Some(key) = self.tracker(lane) else { return };
        if self.enabling.contains_key(&key) {
            self.tracking_progress(key);
        } else if self.clients.get(key).and_then(|client| client.tracking()).is_some_and(|it| it.mode.bcast) {
            // What changed there before, nobody was told.
            self.flush_soon(key, false);
        }
    }

    /// A connection that stood is lost, and with it what the node knew of what was read on it.
    pub(super) fn tracking_lost(&mut self, lane: Lane, node: NodeId) {
        if let Some(tracked) = self.lanes[lane.index()].listens_for {
            for key in self.links_of(tracked) {
                if self.links.get(key).is_some_and(|link| link.node == node) {
                    self.close_link(key); // nobody listens for it
                }
            }
        } else if let Some(key) = self.tracker(lane) {
            self.flush_soon(key, false);
        }
    }

    /// A new map is in force. A key that did not exist where it was read is not missed when its slot moves, and then
    /// made elsewhere without a word.
    pub(super) fn retrack(&mut self, before: &Cluster) {
        if self.trackers.is_empty() {
            return;
        }
        let changes = diff(&before.topology, &self.cluster.topology);
        let moved = changes.moved.iter().any(|(_, from, _)| from.is_some()) || !changes.opened.is_empty();
        if moved {
            let trackers: Vec<ClientKey> = self.trackers.iter().copied().collect();
            trackers.into_iter().for_each(|key| self.flush_soon(key, true));
        }
        self.tend_tracking();
    }

    /// Whoever is told of all keys has a connection to every master, also without asking for anything.
    pub(super) fn tend_tracking(&mut self) {
        if self.trackers.is_empty() {
            return;
        }
        let trackers: Vec<ClientKey> = self.trackers.iter().copied().collect();
        for key in trackers {
            self.tracking_progress(key);
            let Some(client) = self.clients.get(key) else { continue };
            let lane = client.lane;
            if lane.is_leased() && client.tracking().is_some_and(|tracking| tracking.mode.bcast) {
                for at in 0..self.cluster.topology.masters().len() {
                    self.route(lane, self.cluster.topology.masters()[at]);
                }
            }
        }
    }

    /// CLIENT TRACKING OFF, RESET.
    pub(super) fn end_tracking(&mut self, key: ClientKey) {
        if !self.forget_tracking(key) {
            return;
        }
        let Some(client) = self.clients.get(key) else { return };
        let lane = client.lane;
        if !lane.is_leased() {
            return;
        }
        if !client.flags.has(ClientFlags::WATCHING) {
            return self.leave_lane(key);
        }
        self.tell_lane(lane, TRACKING_OFF);
        self.lanes[lane.index()].tracks = None;
        if let Some(listener) = self.lanes[lane.index()].listener.take() {
            self.give_back(listener);
        }
    }

    /// The client is told of nothing any more; its lane is as it was. Returns whether it tracked.
    pub(super) fn forget_tracking(&mut self, key: ClientKey) -> bool {
        if !self.trackers.remove(&key) {
            return false;
        }
        self.shared.tracking_ended();
        if let Some(client) = self.clients.get_mut(key) {
            client.flags.clear(ClientFlags::TRACKING);
            let standing = client.standing();
            standing.tracking = None;
            standing.caching = None;
        }
        true
    }
}

fn masters_slot(cluster: &Cluster) -> portico_slots::Slot {
    let first: Option<NodeIndex> = cluster.topology.masters().first().copied();
    first.and_then(|master| cluster.topology.first_slot(master)).unwrap_or(0)
}
