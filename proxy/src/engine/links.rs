//! Opening, setting up, losing and retiring connections to nodes; the map that a new topology brings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_resp::Protocol;
use portico_slots::{NodeId, NodeIndex, Slot};

use super::link::Silence;
use super::turn::SILENT;
use super::{Effect, Engine, Link, LinkState};
use crate::backend::{
    ClientKey, Fence, Handshake, HandshakeError, Identity, InFlight, Lane, LinkKey, Pipe, RequestFlags,
};
use crate::plan::Event;
use crate::session::ClientFlags;
use crate::topology::Cluster;

/// When a node that could not be connected to is tried again.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    /// When the trouble began.
    pub(super) since: Instant,
    /// What the node last said of the script that keeps it busy, and when.
    pub(super) busy: Option<(Instant, String)>,
    until: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A node that was demoted has this long to answer what it was sent before.
const DEMOTED_GRACE: Duration = Duration::from_secs(1);
/// Connections that a successor has to kill, at most; more would mean that none was ever killed.
const MOST_FENCES: usize = 64;

/// A node as the log names it: by its address, or its id when it is not in the map any more.
fn address_of(cluster: &Cluster, node: NodeId) -> String {
    let index = cluster.topology.index_of(&node);
    index.map_or_else(|| node.to_string(), |index| cluster.topology.node(index).address.to_string())
}

impl Engine {
    /// A node as the log names it.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        address_of(&self.cluster, node)
    }

    /// The node at the other end of a connection, as the log names it.
    #[must_use]
    pub fn peer_of(&self, key: LinkKey) -> String {
        self.links.get(key).map_or_else(String::new, |link| address_of(&self.cluster, link.node))
    }

    /// A new map is in force.
    pub fn adopt(&mut self, cluster: Arc<Cluster>) {
        let topology = &cluster.topology;
        self.guarded = topology.has_open() || !self.opened.is_empty();
        for routes in &mut self.routes {
            routes.clear();
            routes.resize(topology.nodes().len(), LinkKey::default());
        }
        let now = self.now;
        for (key, link) in &mut self.links {
            let index = topology.index_of(&link.node);
            let serves = index.is_some_and(|index| {
                let node = topology.node(index);
                // A master that was replaced while it was down is still called one.
                node.is_master() && !(node.failed && topology.first_slot(index).is_none())
            });
            if let LinkState::Draining { returns: true, .. } = link.state
                && link.passing.is_none()
                && !serves
            {
                link.state = LinkState::Draining { since: now, returns: false };
            }
            if matches!(link.state, LinkState::Ready) {
                let route = index.map(|index| &mut self.routes[link.lane.index()][usize::from(index)]);
                match route {
                    // A lease ends with its request, which is told if the slot is not there any more.
                    Some(_) if link.leased_to.is_some() => {}
                    // A replica keeps an idle connection for what goes to all nodes.
                    // What a node tells of by itself it also tells as a replica.
                    Some(route)
                        if *route == LinkKey::default()
                            && (serves || link.pipe.is_empty() || link.lane.listens()) =>
                    {
                        *route = key;
                    }
                    _ => link.state = LinkState::Draining { since: now, returns: false },
                }
            }
            // Whoever has a request on the wire to a former owner looks before sending more to that slot.
            for entry in link.pipe.in_flight() {
                let owner = topology.owner(entry.slot).map(|owner| topology.node(owner).id);
                if owner != Some(link.node)
                    && let Some(client) = self.clients.get_mut(entry.client)
                {
                    client.flags.set(ClientFlags::CAREFUL);
                }
            }
        }
        let gone: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(_, link)| Self::is_of_no_use(&cluster, link))
            .map(|(key, _)| key)
            .collect();
        let before = std::mem::replace(&mut self.cluster, cluster);
        self.break_moved_watches(&before);
        self.renumber_written(&before);
        self.retrack(&before);
        for key in gone {
            self.close_link(key);
        }
        self.settle_orphans(None);
        self.move_waiting();
        self.hub_adopt();
        self.wake_stalled();
        self.next_tick = self.now;
    }

    /// Whether a connection leads to a node that has left the cluster, or that the cluster has given up.
    fn is_of_no_use(cluster: &Cluster, link: &Link) -> bool {
        let drains = matches!(link.state, LinkState::Draining { returns: false, .. });
        let Some(index) = cluster.topology.index_of(&link.node) else {
            // What it was sent before, it still answers: that it is not the one to ask.
            return !drains || link.pipe.is_empty();
        };
        cluster.topology.node(index).failed && drains
    }

    /// Whether no trouble with a node is known: the cluster does not miss it, it can be connected to as far as that was
    /// tried, and it is not silent on the connection of this lane.
    pub(super) fn may_answer(&self, lane: Lane, index: NodeIndex) -> bool {
        let node = self.cluster.topology.node(index);
        !node.failed && !node.suspected && !self.is_in_trouble(lane, index)
    }

    /// Whether a node could not be connected to when that was tried last, or is silent on the connection of this lane.
    pub(super) fn is_in_trouble(&self, lane: Lane, index: NodeIndex) -> bool {
        if self.backoffs.contains_key(&(self.cluster.topology.node(index).id, lane)) {
            return true;
        }
        let link = self.links.get(self.routes[lane.index()][usize::from(index)]);
        link.is_some_and(|link| !link.pipe.is_empty() && !link.patient && self.now >= link.moved + SILENT)
    }

    /// Whether a master is gone for good as far as can be told: the cluster has given it up, it does not answer, and there is
    /// no replica to take its place.
    pub(super) fn is_lost(&self, lane: Lane, index: NodeIndex) -> bool {
        let topology = &self.cluster.topology;
        topology.node(index).failed
            && topology.replicas_of(index).all(|replica| topology.node(replica).failed)
            && self.is_in_trouble(lane, index)
    }

    /// The node that carries a message on a channel of this slot: the slot's owner, and while that does not answer another
    /// master, since every message reaches every node.
    pub(super) fn carrier(&mut self, lane: Lane, slot: Slot) -> Option<NodeIndex> {
        let owner = self.cluster.topology.owner(slot);
        if let Some(owner) = owner {
            if self.may_answer(lane, owner) {
                return Some(owner);
            }
            self.route(lane, owner); // so that it is known when it is back
        }
        let masters = self.cluster.topology.masters();
        let first = owner.and_then(|owner| masters.iter().position(|&master| master == owner)).unwrap_or(0);
        let mut others = masters.iter().cycle().skip(first + 1).take(masters.len()).copied();
        others.find(|&other| self.may_answer(lane, other)).or(owner)
    }

    /// The connection that takes new requests for `node`; opens one if there is none.
    #[inline]
    pub(super) fn route(&mut self, lane: Lane, node: NodeIndex) -> Option<LinkKey> {
        let key = self.routes[lane.index()][usize::from(node)];
        if key != LinkKey::default() {
            return Some(key);
        }
        self.open_in_lane(lane, node);
        None
    }

    #[cold]
    fn open_in_lane(&mut self, lane: Lane, index: NodeIndex) {
        let node = self.cluster.topology.node(index).id;
        if let Some(listener) = self.lanes[lane.index()].listener
            && self.standing(listener, index).is_none()
        {
            // What is tracked has to have somewhere to be told.
            self.route(listener, index);
            return;
        }
        let coming = self.lanes[lane.index()].opening.contains(&node);
        let waits = self.backoffs.get(&(node, lane)).is_some_and(|b| b.until > self.now);
        if !coming && !waits {
            self.open(node, self.lanes[lane.index()].protocol, lane, None);
        }
    }

    /// Opens a connection to a node.
    pub(super) fn open(
        &mut self,
        node: NodeId,
        protocol: Protocol,
        lane: Lane,
        leased_to: Option<ClientKey>,
    ) -> Option<LinkKey> {
        let index = self.cluster.topology.index_of(&node)?;
        let Some(Some(socket)) = self.cluster.sockets.get(usize::from(index)).copied() else {
            self.refresh_wanted = true;
            return None;
        };
        let key = self.links.insert(Link {
            node,
            protocol,
            lane,
            state: LinkState::Connecting,
            pipe: Pipe::default(),
            leased_to,
            identity: Identity::default(),
            moved: self.now,
            typical: 0,
            passing: None,
            throttled: false,
            scripts: std::collections::HashSet::new(),
            patient: false,
            unblocks: 0,
            silence: Silence::default(),
            tainted: false,
            withdrawn: None,
            dirty: false,
        });
        let lane = &mut self.lanes[lane.index()];
        lane.links.push(key);
        if leased_to.is_none() {
            lane.opening.push(node);
        }
        self.watchful = true;
        self.effects.push(Effect::OpenLink(key, socket));
        Some(key)
    }

    /// The socket is connected: introduces itself. `own_address` is what the socket says of itself.
    pub fn link_open(&mut self, key: LinkKey, own_address: String) {
        let purpose = self.track_request(key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.moved = self.now;
        let fences = match link.leased_to {
            Some(_) => &[][..],
            None => self.fences.get(&link.node).map_or(&[][..], Vec::as_slice),
        };
        let mut hello = Vec::new();
        self.shared.own_addresses.add(&own_address);
        let mut handshake =
            Handshake::begin(link.protocol, &self.credentials, own_address, fences, &mut hello);
        if link.leased_to.is_none()
            && let Some(request) = purpose
        {
            handshake.ask(&request, &mut hello);
        }
        link.pipe.begin().extend_from_slice(&hello);
        link.state = LinkState::Handshaking(handshake);
        self.mark_link(key);
    }

    /// Sends a request of Portico's own, whose reply is of no interest.
    pub(super) fn tell_node(&mut self, key: LinkKey, request: &[u8]) {
        self.tell_node_as(key, request, InFlight::ignored());
    }

    /// Sends a request of Portico's own.
    pub(super) fn tell_node_as(&mut self, key: LinkKey, request: &[u8], entry: InFlight) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.pipe.is_empty() {
            link.moved = self.now;
        }
        link.pipe.push(request, entry);
        let (lane, leased_to) = (link.lane, link.leased_to);
        self.mark_link(key);
        if lane.is_leased() && leased_to.is_none() && self.lanes[lane.index()].holder.is_none() {
            self.disturb(lane);
        }
    }

    pub(super) fn mark_link(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key)
            && !std::mem::replace(&mut link.dirty, true)
        {
            self.dirty_links.push(key);
        }
    }

    /// A reply while the connection is being set up.
    pub(super) fn handshake_reply(&mut self, key: LinkKey, reply: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        let LinkState::Handshaking(handshake) = &mut link.state else { return };
        match handshake.reply(reply) {
            Ok(None) => {}
            Ok(Some(identity)) => {
                if let Some(refused) = handshake.unfenced.take() {
                    let node = address_of(&self.cluster, link.node);
                    tracing::warn!(%node, refused, "a node does not let Portico kill its own lost connections: give its user +client|kill");
                }
                let (busy, killed) = (handshake.busy.take(), std::mem::take(&mut handshake.fences));
                self.shared.own_addresses.add(&identity.address);
                link.identity = identity;
                let node = link.node;
                if let Some(text) = &busy
                    && link.lane != Lane::CONTROL
                {
                    // Nobody could have it killed: tried again when somebody asks, who is told what the node says.
                    let at = (node, link.lane);
                    self.lose_link(key);
                    if let Some(backoff) = self.backoffs.get_mut(&at) {
                        backoff.busy = Some((self.now, text.clone()));
                        backoff.until = self.now + FIRST_PAUSE;
                    }
                    return;
                }
                let busy = busy.is_some();
                if !busy && let Some(fences) = self.fences.get_mut(&node) {
                    fences.retain(|fence| !killed.contains(fence));
                }
                self.link_ready(key, busy);
            }
            Err(error) => {
                let (node, lane) = (link.node, link.lane);
                if let HandshakeError::Purpose(text) = &error {
                    self.tracking_refused(lane, text);
                }
                if self.should_report(node) {
                    let node = address_of(&self.cluster, node);
                    tracing::warn!(%node, %error, "cannot use a connection to a node");
                }
                if matches!(error, HandshakeError::Credentials(_)) {
                    self.counters.node_auth_failures += 1;
                }
                self.lose_link(key);
            }
        }
    }

    /// `busy`: a script is running there, so that it did not kill this connection's predecessor.
    fn link_ready(&mut self, key: LinkKey, busy: bool) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.state = LinkState::Ready;
        link.moved = self.now;
        link.pipe.forget_handshake();
        let (node, lane, leased) = (link.node, link.lane, link.leased_to);
        if leased.is_none() {
            self.opened_link(lane, node);
        }
        self.backoffs.remove(&(node, lane));
        if let Some(client) = leased {
            return self.upload_link_ready(client, key);
        }
        if let Some(index) = self.cluster.topology.index_of(&node) {
            let route = &mut self.routes[lane.index()][usize::from(index)];
            if *route == LinkKey::default() {
                *route = key;
            }
        }
        let killed = !busy && self.fences.get(&node).is_none_or(Vec::is_empty);
        self.settle_orphans(killed.then_some(node));
        self.tracking_joined(lane, node);
        match self.lanes[lane.index()].holder {
            Some(holder) => self.wake(holder),
            None => self.wake_stalled(),
        }
        match lane {
            Lane::HUB => self.hub_ready(node),
            Lane::MONITOR => self.monitor_ready(key),
            _ => {}
        }
        self.next_tick = self.now;
    }

    /// Trouble that nobody tries to end any more says nothing of the node.
    pub(super) fn forget_old_backoffs(&mut self) {
        let still = self.config.connect_timeout + LONGEST_PAUSE * 2;
        self.backoffs.retain(|_, backoff| self.now < backoff.until + still);
    }

    /// A connection of a lane is not being opened any more.
    fn opened_link(&mut self, lane: Lane, node: NodeId) {
        let opening = &mut self.lanes[lane.index()].opening;
        if let Some(at) = opening.iter().position(|of| *of == node) {
            opening.swap_remove(at);
        }
    }

    /// Whether the trouble with a node was not just reported.
    fn should_report(&self, node: NodeId) -> bool {
        let mut pauses =
            self.backoffs.iter().filter(|((of, _), _)| *of == node).map(|(_, backoff)| backoff.pause);
        pauses.next().is_none_or(|pause| pause <= FIRST_PAUSE)
    }

    /// The connection broke, could not be made, or is given up: decides about each of its requests.
    pub fn link_lost(&mut self, key: LinkKey) {
        if self.links.contains_key(key) {
            self.refresh_wanted = true;
            self.lose_link(key);
        }
    }

    /// As [`Engine::link_lost`], and has the shell close the socket.
    pub(super) fn lose_link(&mut self, key: LinkKey) {
        let state = self.links.get(key).map(|link| link.state.is_established());
        self.counters.connections_lost += u64::from(state == Some(true));
        self.close_link(key);
    }

    /// Closes a connection. What is outstanding on it is dealt with as if it had been lost.
    pub(super) fn close_link(&mut self, key: LinkKey) {
        let Some(mut link) = self.links.remove(key) else { return };
        self.effects.push(Effect::CloseLink(key));
        self.lanes[link.lane.index()].links.retain(|of| *of != key);
        let routes = &mut self.routes[link.lane.index()];
        routes.iter_mut().filter(|route| **route == key).for_each(|route| *route = LinkKey::default());
        if let Some(holder) = self.lanes[link.lane.index()].holder {
            self.break_watch(holder);
        }
        let established = link.state.is_established();
        if established && link.leased_to.is_none() {
            self.tracking_lost(link.lane, link.node);
        }
        if !established {
            if link.leased_to.is_none() {
                self.opened_link(link.lane, link.node);
            }
            self.back_off(link.node, link.lane);
        }
        if let Some(client) = link.passing {
            // Half a reply is with the client: nothing can be said in its place any more.
            self.close_client(client);
        }
        if !established {
            link.pipe.forget_handshake();
        }
        let lost = link.pipe.lose();
        let written = lost.iter().any(|(_, _, sent)| *sent);
        if established && written {
            self.fence(link.node, link.lane, link.identity.clone());
        }
        if !link.identity.address.is_empty() {
            self.closed.push((self.now, std::mem::take(&mut link.identity.address)));
        }
        if link.lane == Lane::HUB {
            self.hub_lost(link.node);
        }
        let (node, lane) = (link.node, link.lane);
        self.withdrawn_lost(key, &mut link);
        let now = self.now;
        let asked = lost.iter().any(|(entry, ..)| entry.flags.has(RequestFlags::PROBE));
        self.redistribute(node, lost, |place| link.silence.of(place, link.moved, now));
        if let Some(client) = link.leased_to {
            self.upload_link_lost(client, key, asked);
        }
        self.review_lane(lane);
        self.next_tick = self.now;
    }

    /// A node does not answer on a lane: it is tried again after a pause, and what may go elsewhere does.
    pub(super) fn back_off(&mut self, node: NodeId, lane: Lane) {
        let (now, jitter) = (self.now, 0.25 * self.jitter());
        let begun = Backoff { since: now, busy: None, until: now, pause: FIRST_PAUSE / 2 };
        let backoff = self.backoffs.entry((node, lane)).or_insert(begun);
        backoff.pause = (backoff.pause * 2).min(LONGEST_PAUSE);
        backoff.busy = None;
        // Workers that lost the same node do not come back in step.
        backoff.until = now + backoff.pause + backoff.pause.mul_f64(jitter);
    }

    /// What a lost connection's socket still holds must not run after what is sent next: the connection that takes
    /// its place, or the one that already has, kills it before anything else.
    fn fence(&mut self, node: NodeId, lane: Lane, identity: Identity) {
        if identity.client_id == 0 {
            return; // its node was busy and did not tell
        }
        let fence = Fence { client_id: identity.client_id, address: identity.address };
        let index = self.cluster.topology.index_of(&node);
        let standing = index.and_then(|index| self.standing(lane, index));
        if let Some(standing) = standing {
            let mut request = Vec::new();
            fence.kill(&mut request);
            return self.tell_node(standing, &request);
        }
        let fences = self.fences.entry(node).or_default();
        fences.push(fence);
        if fences.len() > MOST_FENCES + self.lanes.len() {
            fences.remove(0);
        }
    }

    /// Decides about the requests of a lost connection. `since`: when the one at this place was sent at the latest.
    fn redistribute(
        &mut self,
        node: NodeId,
        lost: Vec<(InFlight, Vec<u8>, bool)>,
        since: impl Fn(usize) -> Instant,
    ) {
        let mut written_behind = std::collections::HashSet::new();
        let mut overtaken = vec![false; lost.len()];
        for (index, (entry, _, sent)) in lost.iter().enumerate().rev() {
            overtaken[index] = written_behind.contains(&(entry.client, entry.slot));
            if *sent && !entry.flags.has(RequestFlags::READONLY) {
                written_behind.insert((entry.client, entry.slot));
            }
        }
        for (place, ((entry, request, sent), overtaken)) in lost.into_iter().zip(overtaken).enumerate() {
            if entry.flags.has(RequestFlags::UNBLOCK) {
                self.unblock_done(entry.about(), !sent);
            }
            if entry.flags.has(RequestFlags::IGNORED) {
                continue;
            }
            let event = Event::Lost { sent, overtaken };
            let since = since(place);
            self.for_client(entry.client, |engine| {
                engine.decide_since(entry, Some(node), event, &request, since);
            });
        }
    }

    /// Connections whose node stopped being a master and does not answer, and those that are done.
    pub(super) fn check_draining(&mut self) {
        let done: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(_, link)| match link.state {
                LinkState::Draining { since, returns: false } => {
                    link.pipe.is_empty()
                        || (self.now >= since + DEMOTED_GRACE && self.now >= link.moved + DEMOTED_GRACE)
                }
                LinkState::Connecting | LinkState::Handshaking(_) => {
                    self.now >= link.moved + self.config.connect_timeout
                }
                _ => false,
            })
            .map(|(key, _)| key)
            .collect();
        for key in done {
            self.close_link(key);
        }
    }

    /// A number from 0 to 1 that differs from worker to worker and from call to call.
    pub(super) fn jitter(&self) -> f64 {
        let mixed = (self.counters.requests ^ (self.worker as u64) << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}
