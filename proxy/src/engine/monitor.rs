//! MONITOR: every master's stream, as one. One connection to each master, shared by all clients that listen.

use std::time::Duration;

use portico_resp::encode;

use super::send::{Flow, Traits};
use super::{Engine, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::session::{ClientFlags, Stall};

/// Nodes may still tell of a connection's last commands for so long.
const LATE_LINES: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn monitor(&mut self, key: ClientKey) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if client.flags.has(ClientFlags::AGENT) {
            return self.refuse(key, b"ERR MONITOR isn't allowed for DENY BLOCKING client");
        }
        if client.flags.has(ClientFlags::MONITOR) {
            return Flow::Done; // not even answered
        }
        if client.work.as_deref().is_some_and(|work| work.queue.outstanding_count() > 0) {
            return Flow::Wait(Stall::Order);
        }
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        client.standing().monitoring = Some((seq, now));
        self.monitor_waiters.insert(key);
        self.next_tick = now;
        Flow::Block
    }

    /// Opens what is missing; tells those who wait that they are told everything from now on.
    pub(super) fn review_monitors(&mut self) {
        if self.monitors.is_empty() && self.monitor_waiters.is_empty() {
            return;
        }
        let cluster = std::sync::Arc::clone(&self.cluster);
        let (mut missing, mut listens) = (false, false);
        for &master in cluster.topology.masters() {
            let node = cluster.topology.node(master);
            let link = self.standing(Lane::MONITOR, master).and_then(|key| self.links.get(key));
            // Confirmed: nothing else is ever asked on it.
            if link.is_some_and(|link| link.pipe.is_empty()) {
                listens = true;
                continue;
            }
            let begun = link.is_some();
            missing |= !node.failed && !self.backoffs.contains_key(&(node.id, Lane::MONITOR));
            if !begun {
                self.route(Lane::MONITOR, master);
            }
        }
        let all = listens && !missing;
        let limit = self.config.failover_timeout;
        let waiters: Vec<ClientKey> = self.monitor_waiters.iter().copied().collect();
        for key in waiters {
            let Some(client) = self.clients.get_mut(key) else {
                self.monitor_waiters.remove(&key);
                continue;
            };
            let Some((seq, since)) = client.standing().monitoring else { continue };
            let late = self.now >= since + limit;
            if !all && !late {
                continue;
            }
            client.standing().monitoring = None;
            self.monitor_waiters.remove(&key);
            if all {
                client.flags.set(ClientFlags::MONITOR);
                self.settle(key, seq, b"+OK\r\n");
                self.monitors.insert(key);
            } else {
                self.settle(key, seq, b"-CLUSTERDOWN No master can be reached\r\n");
            }
        }
    }

    /// A connection stands: has the node tell everything.
    pub(super) fn monitor_ready(&mut self, key: LinkKey) {
        let mut request = Vec::new();
        encode::command(&mut request, &[b"MONITOR"]);
        if let Some(link) = self.links.get_mut(key) {
            let flags = RequestFlags::IGNORED.with(RequestFlags::READONLY);
            link.pipe.push(&request, InFlight { flags, ..InFlight::nobodys() });
        }
        self.mark_link(key);
    }

    /// A node tells of a command.
    pub(super) fn monitored(&mut self, line: &[u8]) {
        if self.monitors.is_empty() {
            return;
        }
        let (mut monitor, shared) = (std::mem::take(&mut self.monitor), std::sync::Arc::clone(&self.shared));
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.clear();
        listeners.extend(&self.monitors);
        monitor.hear(line, &shared.own_addresses, |line| {
            listeners.iter().for_each(|&key| self.tell(key, line, line));
        });
        (self.monitor, self.listeners) = (monitor, listeners);
    }

    /// A client is gone, or wants to be told no more.
    pub(super) fn end_monitor(&mut self, key: ClientKey) {
        if self.monitors.remove(&key) | self.monitor_waiters.remove(&key)
            && let Some(client) = self.clients.get_mut(key)
        {
            client.flags.clear(ClientFlags::MONITOR);
            client.standing().monitoring = None;
        }
    }

    /// Once a second: opens what is missing, closes what nobody listens to, forgets addresses.
    pub(super) fn sweep_monitors(&mut self) {
        self.review_monitors();
        if self.monitors.is_empty() && self.monitor_waiters.is_empty() {
            self.monitor.clear();
            let links = self.links_of(Lane::MONITOR);
            for key in links {
                if self.links.get(key).is_some_and(|link| matches!(link.state, LinkState::Ready)) {
                    self.lose_link(key);
                }
            }
        }
        let (now, own) = (self.now, &self.shared.own_addresses);
        self.closed.retain(|(since, address)| {
            let fresh = now < *since + LATE_LINES;
            if !fresh {
                own.remove(address);
            }
            fresh
        });
    }
}
