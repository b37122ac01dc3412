//! The end of a turn, and what time brings: waiting clients, requests to be sent again, silent nodes, idle clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Effect, Engine, Link, LinkState};
use crate::backend::{ClientKey, Lane, LinkKey};
use crate::session::{Client, ClientFlags, Stall};
use crate::topology::Cluster;

/// How often connections are looked at.
const CHECK: Duration = Duration::from_millis(100);
/// How often the map is read while clients wait.
const LOOK: Duration = Duration::from_millis(500);
/// How often clients are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// A node that was sent something and says nothing for so long is a reason to ask the others about it.
pub(super) const SILENT: Duration = Duration::from_millis(500);
/// A client that does not drain a large reply for so long is closed, since a node waits for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    /// How often whatever waits is looked at.
    pub(super) const TICK: Duration = Duration::from_millis(5);

    /// A turn begins: the time it has, and the map that is in force.
    pub fn begin_turn(&mut self, now: Instant, cluster: &Arc<Cluster>) {
        self.now = now;
        if !Arc::ptr_eq(cluster, &self.cluster) {
            self.for_all(|engine| engine.adopt(Arc::clone(cluster)));
        }
        for key in std::mem::take(&mut self.tired) {
            self.wake(key);
        }
    }

    /// A turn ends: what its replies made possible, and what time brings.
    pub fn end_turn(&mut self) {
        self.for_all(Self::review_hub);
        if !self.departed.is_empty() {
            self.for_all(Self::leave_for_departed);
        }
        if self.is_waiting() && self.now >= self.next_tick {
            self.next_tick = self.now + Self::TICK;
            self.for_all(Self::tick);
        }
        if self.now >= self.next_check {
            self.next_check = self.now + CHECK;
            self.for_all(Self::check_links);
        }
        if self.now >= self.next_housekeeping {
            self.next_housekeeping = self.now + HOUSEKEEPING;
            self.for_all(Self::housekeeping);
        }
        self.for_all(Self::tell_late_answers);
        if self.pause.is_some_and(|pause| self.now >= pause.until) {
            self.for_all(Self::look_at_pause);
        }
        if std::mem::take(&mut self.look_at_waiting) {
            self.for_all(Self::move_waiting);
        }
        if !self.retrying.is_empty() {
            self.for_all(Self::send_parked);
        }
        while let Some(key) = self.awoken.pop() {
            // What one client sent must not end a worker, whenever its turn comes.
            self.for_client(key, |engine| engine.go_on(key));
        }
        self.for_all(Self::tell_flushes);
        if let Some(blocked) = self.waiting.changed() {
            self.shared.set_blocked(self.worker, blocked);
        }
        if std::mem::take(&mut self.refresh_wanted) {
            self.effects.push(Effect::Refresh);
        }
    }

    /// How long the shell may sleep.
    #[must_use]
    pub fn sleep(&self) -> Duration {
        if !self.awoken.is_empty() || self.refresh_wanted {
            return Duration::ZERO; // an agent was told something after the end of the turn
        }
        if !self.tired.is_empty() || !self.departed.is_empty() {
            return Duration::ZERO; // others had their turn
        }
        let until = if self.is_waiting() { self.next_tick } else { self.next_housekeeping };
        let until = if self.watchful || self.tries_scripts() { until.min(self.next_check) } else { until };
        let until = if self.hub_anxious { until.min(self.next_review) } else { until };
        let until = self.flushing.first().map_or(until, |(at, _)| until.min(*at));
        let until = self.questions.next_deadline().map_or(until, |at| until.min(at));
        let until = self.pause.map_or(until, |pause| until.min(pause.until));
        until.saturating_duration_since(self.now)
    }

    fn is_waiting(&self) -> bool {
        !(self.stalled.is_empty()
            && self.retrying.is_empty()
            && self.orphans.is_empty()
            && self.uploading.is_empty()
            && self.opened.is_empty()
            && self.monitor_waiters.is_empty())
    }

    fn tick(&mut self) {
        let now = self.now;
        self.opened.retain(|_, until| *until > now);
        self.guarded = self.cluster.topology.has_open() || !self.opened.is_empty();
        self.settle_orphans(None);
        self.reopen_for_orphans();
        self.start_uploads();
        self.review_monitors();
        self.wake_stalled();
    }

    /// The connection whose predecessor may still run something is opened even if nobody wants to use it.
    fn reopen_for_orphans(&mut self) {
        let wanted: Vec<_> = self.orphans.iter().map(super::retry::Orphan::wanted).collect();
        for (entry, node) in wanted {
            let lane = self.lane_of(&entry);
            if let Some(index) = self.cluster.topology.index_of(&node) {
                self.route(lane, index);
            }
        }
        let clients = &self.clients;
        self.orphans.retain(|orphan| clients.contains_key(orphan.wanted().0.client));
    }

    /// Clients whose next request waits are looked at again at the end of the turn.
    pub(super) fn wake_stalled(&mut self) {
        for key in std::mem::take(&mut self.stalled) {
            if let Some(client) = self.clients.get_mut(key) {
                if !client.flags.has(ClientFlags::STALLED) {
                    client.flags.clear(ClientFlags::LISTED);
                    continue;
                }
                if client.flags.set(ClientFlags::AWOKEN) {
                    self.awoken.push(key);
                }
                self.stalled.push(key);
            }
        }
    }

    /// The client is looked at again at the end of the turn.
    pub(super) fn wake(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.flags.has(ClientFlags::STALLED)
            && client.flags.set(ClientFlags::AWOKEN)
        {
            self.awoken.push(key);
        }
    }

    /// A client that waited goes on with what it had sent.
    fn go_on(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::AWOKEN);
        if !client.flags.has(ClientFlags::STALLED) || client.flags.has(ClientFlags::BLOCKED) {
            return;
        }
        client.flags.clear(ClientFlags::STALLED);
        if client.flags.has(ClientFlags::CLOSING) {
            return self.mark_client(key); // what came behind is of no interest
        }
        self.serve_kept(key);
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.flags.has(ClientFlags::ENDED) && (client.is_waiting() || client.is_paused()) {
            return self.client_ended(key);
        }
        if client.is_read_on() {
            return self.effects.push(Effect::ResumeClient(key));
        }
        if client.flags.has(ClientFlags::STALLED) {
            return;
        }
        if client.flags.has(ClientFlags::ENDED) {
            client.flags.set(ClientFlags::CLOSING);
        }
        self.mark_client(key);
        self.effects.push(Effect::ResumeClient(key));
    }

    fn check_links(&mut self) {
        self.check_draining();
        self.move_waiting();
        self.tend_withdrawn();
        self.tend_tracking();
        let far_away = !self.waiting.is_empty() || !self.trackers.is_empty();
        if far_away && self.now >= self.next_look {
            // Whether they wait at the right place, or are told of keys that have moved, nobody tells.
            self.next_look = self.now + LOOK;
            self.refresh_wanted = true;
        }
        self.note_long_scripts();
        self.ask_the_busy();
        self.keep_map_fresh();
        let waits = |link: &Link| !link.pipe.is_empty() && !link.patient;
        self.watchful =
            self.links.values().any(|link| waits(link) || !matches!(link.state, LinkState::Ready));
        self.watchful |= far_away || !self.withdrawn.is_empty() || self.hub.listens_everywhere();
        let (now, limit) = (self.now, self.config.failover_timeout);
        let mut silent = false;
        let (mut given_up, mut speechless) = (Vec::<LinkKey>::new(), Vec::<LinkKey>::new());
        let mut undrained: Vec<ClientKey> = Vec::new();
        for (key, link) in &mut self.links {
            if link.throttled {
                if now >= link.moved + DRAIN_TIMEOUT {
                    undrained.extend(link.passing);
                }
            } else if !link.pipe.is_empty() && now >= link.moved + SILENT {
                silent |= !link.patient;
                link.silence.note(link.moved, now, link.pipe.len());
                // Otherwise a reply has begun, and will end.
                if link.pipe.partial.is_empty() && !link.pipe.skipping && link.passing.is_none() {
                    speechless.push(key);
                }
                // Slow is not dead: only what the cluster too misses is given up, and not before its time.
                let topology = &self.cluster.topology;
                let missed = topology.index_of(&link.node).is_none_or(|index| {
                    let node = topology.node(index);
                    node.failed || node.suspected
                });
                if missed && now >= link.moved + limit {
                    given_up.push(key);
                }
            }
        }
        self.refresh_wanted |= silent;
        for key in speechless {
            self.ask_others(key);
        }
        for key in given_up {
            self.counters.links_given_up += 1;
            self.lose_link(key);
        }
        for key in undrained {
            self.over_limit(key);
        }
    }

    fn housekeeping(&mut self) {
        let now = self.now;
        let ping = self.cluster.ping_interval;
        let mut to_ping: Vec<LinkKey> = Vec::new();
        for (key, link) in &mut self.links {
            link.pipe.trim_partial();
            // Nobody else's requests tell that a node that is listened to has gone silent; and what MONITOR shows
            // could not be told from the answer.
            let listened = link.lane == Lane::HUB && !self.hub.is_empty();
            let ping = if listened { ping.min(HOUSEKEEPING) } else { ping };
            let speaks = link.is_shared_and_ready() && link.lane != Lane::MONITOR;
            if speaks && link.pipe.is_empty() && now >= link.moved + ping {
                to_ping.push(key);
            }
        }
        for key in to_ping {
            self.tell_node(key, b"*1\r\n$4\r\nPING\r\n");
        }
        let timeout = self.config.timeout.as_secs() as u32;
        if timeout > 0 {
            let seconds = self.seconds();
            // Half a request is no reason to stay; a reply that is not there yet is.
            let waits = |client: &Client| {
                let work = client.work.as_deref();
                let told = ClientFlags::STALLED.with(ClientFlags::SUBSCRIBED).with(ClientFlags::MONITOR);
                work.is_some_and(|work| !work.queue.is_empty()) || client.flags.any(told)
            };
            let idle: Vec<ClientKey> = self
                .clients
                .iter()
                .filter(|(_, client)| !waits(client) && seconds.saturating_sub(client.heard) > timeout)
                .map(|(key, _)| key)
                .collect();
            idle.into_iter().for_each(|key| self.close_client(key));
        }
        self.close_idle_lanes();
        self.hurry_settling();
        self.forget_old_backoffs();
        self.sweep_hub();
        self.sweep_monitors();
        self.watch_outputs();
        self.publish();
    }

    /// Adds what this worker counted to what everybody can read.
    pub(super) fn publish(&self) {
        self.shared.publish(self.worker, &self.counters, self.links.len());
    }

    /// The kernel took `n` bytes of a client's replies.
    pub fn client_told(&mut self, key: ClientKey, n: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(work) = client.work.as_deref_mut() else {
            if client.flags.has(ClientFlags::CLOSING) {
                self.close_client(key); // it was told everything before that was known
            }
            return;
        };
        work.told += n;
        if work.told == work.out.len() {
            work.out.clear();
            work.told = 0;
            if work.out.capacity() > 1 << 20 {
                work.out = Vec::new();
            }
        } else if work.told > 64 * 1024 && work.told * 2 > work.out.len() {
            work.out.drain(..work.told);
            work.told = 0;
        }
        let reads = work.untold() < Self::MOST_UNREAD / 2;
        let closing = client.flags.has(ClientFlags::CLOSING) && work.queue.is_empty() && work.out.is_empty();
        let done = work.is_done();
        if client.flags.has(ClientFlags::STALLED)
            && reads
            && matches!(client.stall, Some((Stall::Unread, _)))
            && client.flags.set(ClientFlags::AWOKEN)
        {
            self.awoken.push(key);
        }
        if client.flags.has(ClientFlags::THROTTLING) && self.drained(key) {
            if let Some(client) = self.clients.get_mut(key) {
                client.flags.clear(ClientFlags::THROTTLING);
            }
            self.resume_throttled(key);
        }
        if closing {
            self.close_client(key);
        } else if done
            && let Some(client) = self.clients.get_mut(key)
            && let Some(work) = client.work.take()
        {
            self.pool.give_work(work);
        }
    }

    /// The client will send no more. What it asked for is still answered, in case it listens on.
    pub fn client_ended(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(work) = client.work.as_deref() else { return self.close_client(key) };
        if client.is_waiting() {
            return self.wait_ended(key);
        }
        if client.is_paused() {
            return self.close_when_told(key); // as Redis does
        }
        if work.queue.is_empty() && work.out.is_empty() && !client.flags.has(ClientFlags::STALLED) {
            return self.close_client(key);
        }
        client.flags.set(ClientFlags::ENDED);
        if !client.flags.any(ClientFlags::STALLED.with(ClientFlags::UPLOADING)) {
            client.flags.set(ClientFlags::CLOSING);
        } else if client.flags.has(ClientFlags::UPLOADING) {
            self.close_client(key);
        }
    }

    /// Stops: what was received is answered, then each client is closed.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.look_at_pause();
        let keys: Vec<ClientKey> = self.clients.keys().collect();
        keys.into_iter().for_each(|key| self.stop_client(key));
    }

    /// Closes a client as soon as it was told everything, if nothing of it waits to be sent.
    fn stop_client(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.flags.has(ClientFlags::AGENT) {
            return; // ends with its task
        }
        match client.work.as_deref() {
            None => self.close_client(key),
            Some(_) if client.is_waiting() => self.close_client(key),
            // Half a request was not received.
            Some(work) if client.flags.has(ClientFlags::UPLOADING) && work.out.is_empty() => {
                self.close_client(key);
            }
            Some(_) if client.flags.any(ClientFlags::STALLED.with(ClientFlags::UPLOADING)) => {}
            Some(work) if work.queue.is_empty() && work.out.is_empty() => self.close_client(key),
            Some(_) => {
                client.flags.set(ClientFlags::CLOSING);
            }
        }
    }

    /// Whether it is stopping; then clients that were answered are closed, turn by turn.
    pub fn close_stopped(&mut self) {
        if self.stopping {
            let keys: Vec<ClientKey> = self.clients.keys().collect();
            keys.into_iter().for_each(|key| self.stop_client(key));
        }
    }
}
