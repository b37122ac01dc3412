//! Lanes: sets of connections, at most one to a node. Two are everybody's, three are Portico's own, and the rest are
//! leased to one client at a time: while it is blocked, watches keys or tracks them.

use std::time::{Duration, Instant};

use portico_resp::Protocol;
use portico_slots::{NodeId, NodeIndex};

use super::{Engine, Link, LinkState};
use crate::backend::{ClientKey, Lane, LinkKey};
use crate::session::{ClientFlags, TrackingMode};

/// What is known of a lane besides its connections.
#[derive(Debug)]
pub(super) struct LaneState {
    /// What is spoken on it.
    pub(super) protocol: Protocol,
    /// Who leases it.
    pub(super) holder: Option<ClientKey>,
    /// What the nodes track on each of its connections.
    pub(super) tracks: Option<Box<TrackingMode>>,
    /// Where that is told, if not on the connections themselves: a lane of its own.
    pub(super) listener: Option<Lane>,
    /// The lane whose listener it is.
    pub(super) listens_for: Option<Lane>,
    /// All connections, whatever their state.
    pub(super) links: Vec<LinkKey>,
    /// Nodes to which a connection is being opened.
    pub(super) opening: Vec<NodeId>,
    /// Since when nobody leases it.
    idle: Instant,
    /// Since when nobody leases it and it is not known yet that nothing is left on it.
    pub(super) settling: Option<Instant>,
}

/// Lanes beyond `max-leases` for scripts that are tried: clients that wait must not keep a script from running.
const FOR_SCRIPTS: usize = 64;
/// A lane that nobody leased for so long gives its connections back.
const KEEP_IDLE: Duration = Duration::from_secs(30);

impl Engine {
    /// The lanes that are always there.
    pub(super) fn found_lanes(&mut self) {
        use Protocol::{Resp2, Resp3};
        for protocol in [Resp2, Resp3, Resp2, Resp3, Resp2] {
            self.add_lane(protocol);
        }
    }

    fn add_lane(&mut self, protocol: Protocol) -> Lane {
        let lane = Lane(self.lanes.len() as u16);
        self.lanes.push(LaneState {
            protocol,
            holder: None,
            tracks: None,
            listener: None,
            listens_for: None,
            links: Vec::new(),
            opening: Vec::new(),
            idle: self.now,
            settling: None,
        });
        self.routes.push(vec![LinkKey::default(); self.cluster.topology.nodes().len()]);
        lane
    }

    /// A lane of a client's own. None when there are as many as there may be (`max-leases`).
    ///
    /// The caller puts the client on it (`Engine::take_lane`) when nothing of the client is outstanding.
    pub(super) fn lease(&mut self, protocol: Protocol, holder: ClientKey) -> Option<Lane> {
        self.lease_within(self.config.max_leases, protocol, holder)
    }

    fn lease_within(&mut self, most: usize, protocol: Protocol, holder: ClientKey) -> Option<Lane> {
        let always = usize::from(Lane::MONITOR.0) + 1;
        if self.lanes.len() - always - self.spare_lanes.len() >= most {
            return None;
        }
        let lane = match self.spare_lanes.take(protocol, &self.lanes) {
            Some(lane) => lane,
            None if self.lanes.len() < most + always => self.add_lane(protocol),
            // One that speaks the other protocol has to give way.
            None => {
                let lane = self.spare_lanes.take_any()?;
                self.close_lane(lane);
                self.lanes[lane.index()].protocol = protocol;
                lane
            }
        };
        let state = &mut self.lanes[lane.index()];
        debug_assert!(state.holder.is_none() && state.settling.is_none(), "a lane is leased twice");
        debug_assert!(state.links.iter().all(|&key| self.links.get(key).is_none_or(Link::is_clean)));
        state.holder = Some(holder);
        // That its connections were closed half-made for whoever had it before says nothing of the nodes.
        self.backoffs.retain(|(_, of), _| *of != lane);
        Some(lane)
    }

    /// The client's requests take a lane of its own from now on, if it has none. Returns whether it has one.
    pub(super) fn take_lane(&mut self, key: ClientKey) -> bool {
        self.take_lane_within(self.config.max_leases, key)
    }

    /// As [`Engine::take_lane`], for a script that is tried.
    pub(super) fn take_lane_for_script(&mut self, key: ClientKey) -> bool {
        self.take_lane_within(self.config.max_leases + FOR_SCRIPTS, key)
    }

    fn take_lane_within(&mut self, most: usize, key: ClientKey) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        if client.lane.is_leased() {
            return true;
        }
        let protocol = client.protocol();
        let Some(lane) = self.lease_within(most, protocol, key) else { return false };
        if let Some(client) = self.clients.get_mut(key) {
            client.lane = lane;
        }
        true
    }

    /// The client shares connections again, unless it watches or tracks keys.
    pub(super) fn leave_lane(&mut self, key: ClientKey) {
        const STAYS: ClientFlags = ClientFlags::WATCHING.with(ClientFlags::TRACKING);
        let Some(client) = self.clients.get_mut(key) else { return };
        let lane = client.lane;
        if !lane.is_leased() || client.flags.any(STAYS) {
            return;
        }
        client.lane = Lane::shared(client.protocol());
        self.give_back(lane);
    }

    /// The client speaks another protocol, perhaps: its requests take connections that speak it too.
    pub(super) fn change_lane(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let (lane, protocol) = (client.lane, client.protocol());
        if !lane.is_leased() {
            client.lane = Lane::shared(protocol);
            return;
        }
        if self.lanes[lane.index()].protocol == protocol {
            return;
        }
        // What is tracked stays tracked, and what is watched stays watched.
        self.convert_lane(lane, protocol);
    }

    /// A lane's connections speak another protocol from now on.
    fn convert_lane(&mut self, lane: Lane, protocol: Protocol) {
        let hello: &[u8] = match protocol {
            Protocol::Resp2 => b"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n",
            Protocol::Resp3 => b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        };
        self.lanes[lane.index()].protocol = protocol;
        self.tell_lane(lane, hello);
        for key in self.links_of(lane) {
            if let Some(link) = self.links.get_mut(key) {
                link.protocol = protocol;
            }
        }
    }

    /// Sends a request of Portico's own on every connection of a lane. One that is just being set up makes way for
    /// another.
    pub(super) fn tell_lane(&mut self, lane: Lane, request: &[u8]) {
        for key in self.links_of(lane) {
            let Some(link) = self.links.get(key) else { continue };
            match link.state {
                LinkState::Connecting => {}
                LinkState::Ready => self.tell_node(key, request),
                LinkState::Handshaking(_) | LinkState::Draining { .. } => self.close_link(key),
            }
        }
    }

    /// A client is gone: its lane is free, and clean.
    pub(super) fn leave_all(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        let (lane, busy) = (client.lane, client.in_flight > 0);
        if !lane.is_leased() {
            return;
        }
        self.forget_watch(key);
        if busy {
            self.close_lane(lane);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.lane.is_leased() {
            client.lane = Lane::shared(client.protocol());
            self.give_back(lane);
        }
    }

    /// Nobody uses a lane any more: its connections serve the next, once nothing can be left on them.
    pub(super) fn give_back(&mut self, lane: Lane) {
        let state = &mut self.lanes[lane.index()];
        state.holder = None;
        state.idle = self.now;
        let listener = state.listener.take();
        if state.tracks.take().is_some() || state.listens_for.take().is_some() {
            self.close_lane(lane);
        }
        self.vacate(lane);
        if let Some(listener) = listener {
            self.give_back(listener);
        }
    }

    /// Closes a lane's connections. What is outstanding on them is nobody's any more.
    pub(super) fn close_lane(&mut self, lane: Lane) {
        for key in self.links_of(lane) {
            self.close_link(key);
        }
    }

    /// All connections of a lane, whatever their state.
    pub(super) fn links_of(&self, lane: Lane) -> Vec<LinkKey> {
        self.lanes[lane.index()].links.clone()
    }

    /// Lanes that nobody leased for a while give their connections back.
    pub(super) fn close_idle_lanes(&mut self) {
        let now = self.now;
        let lanes = &self.lanes;
        let old = |lane: Lane| {
            let state = &lanes[lane.index()];
            lane.is_leased() && state.holder.is_none() && now >= state.idle + KEEP_IDLE
        };
        let idle: Vec<LinkKey> = self
            .links
            .iter()
            .filter(|(_, link)| link.leased_to.is_none() && old(link.lane))
            .map(|(key, _)| key)
            .collect();
        idle.into_iter().for_each(|key| self.close_link(key));
    }

    /// The connection of a lane to a node that takes requests, if it stands.
    pub(super) fn standing(&self, lane: Lane, node: NodeIndex) -> Option<LinkKey> {
        let key = *self.routes.get(lane.index())?.get(usize::from(node))?;
        let link = self.links.get(key)?;
        matches!(link.state, LinkState::Ready).then_some(key)
    }
}
