//! MONITOR: what clients of this Portico ask, told as they asked it, and what the masters tell of others.
//!
//! A master's own stream tells of a request as Portico passes it on: in parts, again after a redirect, from Portico's
//! address, or not at all if no node is needed for the answer. So each worker tells of its clients' commands itself, and
//! of the masters' streams only what did not come from this process, and what scripts do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portico_resp::encode;

use super::send::{Flow, Traits};
use super::{Effect, Engine, LinkState, Note, Question};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::{Args, Command, Flags, Handling, Transaction};
use crate::local;
use crate::plan::{RequestArgs, with_queued};
use crate::pubsub::monitor_line;
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
        if !client.is_answered() {
            return Flow::Wait(Stall::Order);
        }
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        self.shared.monitors.fetch_add(1, Ordering::SeqCst);
        self.look_at_monitors();
        // Nobody is to be given the answers; that they have come is seen.
        self.ask_workers(ClientKey::default(), 0, Question::Monitor);
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
        let all = listens && !missing && !self.shared.is_asking();
        let limit = self.config.failover_timeout;
        let waiters: Vec<ClientKey> = self.monitor_waiters.iter().copied().collect();
        for key in waiters {
            let Some(client) = self.clients.get_mut(key) else { continue };
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
                self.one_monitor_less();
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
        if self.shared.own_addresses.is_foreign(line) {
            self.tell_monitors(line);
        }
    }

    /// Tells this worker's.
    pub(super) fn tell_monitors(&mut self, line: &[u8]) {
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.clear();
        listeners.extend(&self.monitors);
        listeners.iter().for_each(|&key| self.tell(key, line, line));
        self.listeners = listeners;
    }

    /// Whether anybody is told of every command.
    pub(super) fn look_at_monitors(&mut self) {
        self.shown = self.shared.monitors.load(Ordering::SeqCst) > 0;
        self.choose_whom_to_look_at();
    }

    /// Runs a request and tells those who want to know. What has to wait is told of when it runs.
    pub(super) fn run_and_show(
        &mut self,
        key: ClientKey,
        command: &Command,
        words: &RequestArgs<'_>,
        run: impl FnOnce(&mut Self) -> Flow,
    ) -> Flow {
        let hidden = command.flags.has(Flags::ADMIN);
        let client = self.clients.get(key).filter(|client| !client.flags.has(ClientFlags::AGENT));
        let Some(client) = client.filter(|_| self.shown && !hidden) else { return run(self) };
        let (time, address) = (self.shared.time(self.now), local::client_address(client));
        let mut lines = Vec::new();
        if command.handling == Handling::Transaction(Transaction::Exec)
            && let Some(standing) = client.standing.as_deref()
        {
            let queued = &standing.transaction;
            for range in &queued.ranges {
                let line = |args: &RequestArgs<'_>| line(time, &address, "", args);
                lines.extend(with_queued(&queued.requests[range.clone()], line).into_iter().flatten());
            }
        }
        let watches = client.flags.has(ClientFlags::WATCHING) && !lines.is_empty();
        let own = line(time, &address, command.name, words);
        let flow = run(self);
        if watches
            && flow == Flow::Block
            && let Some(client) = self.clients.get_mut(key)
        {
            client.standing().shown = Some((lines, own));
        } else if !matches!(flow, Flow::Wait(_)) {
            lines.extend(own);
            self.show(lines);
        }
        flow
    }

    /// EXEC of a client that watched keys was answered.
    pub(super) fn show_exec(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let shown = client.standing.as_deref_mut().and_then(|standing| standing.shown.take());
        let Some((mut lines, own)) = shown else { return };
        let told = client.work.as_deref().map_or(&[][..], |work| &work.out[work.told..]);
        if portico_resp::is_null(told) {
            lines.clear(); // nothing of it has run
        }
        lines.extend(own);
        self.show(lines);
    }

    /// Tells all who want to know, whichever worker they are with.
    fn show(&mut self, lines: Vec<u8>) {
        self.tell_monitors(&lines);
        let own = self.monitors.len() + self.monitor_waiters.len();
        if self.shared.monitors.load(Ordering::Relaxed) > own {
            let note = Note::Shown(lines.into());
            let others = (0..self.shared.workers).filter(|&worker| worker != self.worker);
            self.effects.extend(others.map(|worker| Effect::Tell(worker, note.clone())));
        }
    }

    /// A client is gone, or wants to be told no more.
    pub(super) fn end_monitor(&mut self, key: ClientKey) {
        if self.monitors.remove(&key) | self.monitor_waiters.remove(&key) {
            self.one_monitor_less();
            if let Some(client) = self.clients.get_mut(key) {
                client.flags.clear(ClientFlags::MONITOR);
                client.standing().monitoring = None;
            }
        }
    }

    fn one_monitor_less(&mut self) {
        self.shared.monitors.fetch_sub(1, Ordering::SeqCst);
        self.look_at_monitors();
    }

    /// Once a second: opens what is missing, closes what nobody listens to, forgets addresses.
    pub(super) fn sweep_monitors(&mut self) {
        self.review_monitors();
        if self.shown {
            self.look_at_monitors(); // others' may have ended
        }
        if self.monitors.is_empty() && self.monitor_waiters.is_empty() {
            let links = self.links_of(Lane::MONITOR);
            for key in links {
                if self.links.get(key).is_some_and(|link| matches!(link.state, LinkState::Ready)) {
                    self.close_link(key);
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

/// A command's line. Passwords are not told.
fn line(time: Duration, address: &str, name: &str, words: &RequestArgs<'_>) -> Vec<u8> {
    let mut secrets = 0;
    let shown = (0..words.count()).map(|at| {
        if name == "auth" && at > 0 || secrets > 0 {
            secrets = i32::max(secrets - 1, 0);
            return &b"(redacted)"[..];
        }
        if name == "hello" && at > 1 && words.is(at, "auth") {
            secrets = 2;
        }
        words.word(at)
    });
    monitor_line(time, address, shown)
}
