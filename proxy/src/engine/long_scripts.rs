//! Scripts that are not known to end soon have a connection of their own: behind them on a shared one others would
//! wait in silence, to whom a node says BUSY, as a standalone does.
//!
//! A script is known to end soon once it was seen to, by this worker; it shares connections from then on, until it is
//! seen to run long. One that was never seen is tried: it runs on a leased lane, a few at a time at each node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use portico_resp::{ErrorCode, Protocol, request_ranges};
use portico_slots::{NodeIndex, Slot};

use super::send::{Flow, Traits};
use super::{Engine, Link, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::plan::{Event, RequestArgs, ScriptCall, script_call, with_queued};
use crate::scripts::{ScriptName, Sha};
use crate::session::{Client, ClientFlags, Stall};
use crate::topology::Cluster;

/// A script that keeps its connection from moving for so long runs long.
const LONG: Duration = Duration::from_millis(100);
/// Scripts that are tried at one node at a time; more wait.
const MOST_TRIALS: usize = 16;
/// Scripts that are known to end soon, at most; then they are tried anew.
const MOST_SHORT: usize = 10_000;

/// Scripts that run on a client's own connection, for it is not known how long.
#[derive(Debug)]
struct Trial {
    scripts: Vec<ScriptName>,
    node: Option<NodeIndex>,
    /// When they were sent.
    began: Instant,
    changes: u64,
    busy: Busy,
}

/// What is known of the node that runs a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    /// What the trial runs has keys: it is its shard's alone.
    OfItsShard,
    NotAsked,
    Asked,
    /// It was said, and noted for this client's id.
    Noted(u64),
}

/// What a worker knows of how long scripts run.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Those that were seen to end soon.
    short: HashSet<ScriptName>,
    trials: HashMap<ClientKey, Trial>,
    /// Clients that wait until fewer are tried.
    waiting: VecDeque<ClientKey>,
    /// The shared count, as of when `short` was true.
    changes: u64,
}

impl Engine {
    /// Sends what calls a script or a function to the owner of `slot`.
    pub(super) fn send_script(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        traits: Traits,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        let name = self.meet_script(words);
        let short = self.ends_soon(name);
        let alone = match self.lane_for_scripts(key, cluster, slot, short) {
            Ok(alone) => alone,
            Err(stall) => return Flow::Wait(stall),
        };
        self.before_script(key, cluster, slot, words);
        let flow = self.send(key, slot, traits, request);
        if !alone {
            return flow;
        }
        let flow = self.sent_alone(key, flow, || name.into_iter().collect());
        if words.integer(2) == Some(0)
            && let Some(trial) = self.pace.trials.get_mut(&key)
        {
            trial.busy = Busy::NotAsked;
        }
        flow
    }

    /// Whether all scripts of a transaction are known to end soon.
    pub(super) fn all_end_soon(&mut self, requests: &[u8]) -> bool {
        request_ranges(requests).into_iter().all(|range| {
            let name = with_queued(&requests[range], |words| {
                calls_script(words).then(|| self.meet_script(words)) //
            });
            self.ends_soon(name.flatten().flatten())
        })
    }

    /// Whether a script is known to end soon.
    fn ends_soon(&mut self, name: Option<ScriptName>) -> bool {
        let Some(name) = name else { return true };
        let long = &self.shared.scripts.long;
        if self.pace.changes != long.changes() {
            self.pace.changes = long.changes();
            let now = self.now;
            let script = |name: &ScriptName| matches!(name, ScriptName::Script(_));
            self.pace.short.retain(|name| script(name) && !long.knows(*name, now));
        }
        self.pace.short.contains(&name)
    }

    /// Whether the client has a lane for what it calls alone.
    ///
    /// # Errors
    /// It has to wait for one.
    pub(super) fn lane_for_scripts(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        short: bool,
    ) -> Result<bool, Stall> {
        const OTHERWISE: ClientFlags = ClientFlags::WATCHING.with(ClientFlags::TRACKING);
        let Some(client) = self.clients.get(key) else { return Ok(false) };
        if client.flags.any(OTHERWISE) {
            return Ok(false); // it has one already
        }
        if client.lane.is_leased() {
            return Ok(true); // it has waited for this
        }
        if short {
            return Ok(false);
        }
        if !client.is_answered() {
            return Err(Stall::Order); // it takes another way
        }
        let node = cluster.topology.owner(slot);
        let tried = self.pace.trials.values().filter(|trial| trial.node == node).count();
        let changes = self.shared.scripts.long.changes();
        let busy = Busy::OfItsShard;
        let trial = Trial { scripts: Vec::new(), node, began: self.now, changes, busy };
        if tried >= MOST_TRIALS || !self.take_lane_for_script(key) {
            if !self.pace.waiting.contains(&key) {
                self.pace.waiting.push_back(key);
            }
            return Err(Stall::Backpressure);
        }
        self.pace.trials.insert(key, trial);
        Ok(true)
    }

    /// What follows when a client's scripts were sent on its own lane, or could not be.
    pub(super) fn sent_alone(
        &mut self,
        key: ClientKey,
        flow: Flow,
        scripts: impl FnOnce() -> Vec<ScriptName>,
    ) -> Flow {
        if flow != Flow::Done {
            return flow;
        }
        if self.clients.get(key).is_some_and(Client::is_answered) {
            self.forget_trial(key);
            self.leave_lane(key); // refused
            return flow;
        }
        if let Some(trial) = self.pace.trials.get_mut(&key) {
            trial.scripts = scripts();
            trial.began = self.now;
        }
        Flow::Block
    }

    /// A client was answered: what it called ended soon, perhaps.
    pub(super) fn end_trial(&mut self, key: ClientKey) {
        if self.pace.trials.is_empty() {
            return;
        }
        let Some(trial) = self.pace.trials.get(&key) else { return };
        if self.now < trial.began + LONG && trial.changes == self.shared.scripts.long.changes() {
            if self.pace.short.len() + trial.scripts.len() > MOST_SHORT {
                self.pace.short.clear();
            }
            self.pace.short.extend(&trial.scripts);
        }
        self.forget_trial(key);
    }

    /// A client's scripts did not run, or it is gone.
    pub(super) fn forget_trial(&mut self, key: ClientKey) {
        if let Some(trial) = self.pace.trials.remove(&key) {
            if let Busy::Noted(client) = trial.busy {
                self.shared.scripts.busy.forget(client);
            }
            // What they wait for may be known by now.
            for waiting in std::mem::take(&mut self.pace.waiting) {
                self.wake(waiting);
            }
        }
    }

    /// A client's request was refused or lost. If it is a script that is tried, nothing is known of it.
    pub(super) fn spoil_trial(&mut self, key: ClientKey, event: Event<'_>) {
        if let Some(trial) = self.pace.trials.get_mut(&key) {
            let ran = matches!(event, Event::Error(line) if ErrorCode::parse(line) == Some(ErrorCode::Other));
            if !ran {
                trial.scripts.clear();
            }
        }
    }

    /// Whether scripts run of which it is not known how long.
    pub(super) fn tries_scripts(&self) -> bool {
        !self.pace.trials.is_empty()
    }

    /// Asks the nodes that run scripts without keys whether these keep them busy: once each, since a node reads the
    /// question no sooner than it would answer so, or than the script has ended.
    pub(super) fn ask_the_busy(&mut self) {
        const A_WHILE: Duration = Duration::from_millis(50);
        let now = self.now;
        let due = |trial: &Trial| trial.busy == Busy::NotAsked && now >= trial.began + A_WHILE;
        let due: Vec<(ClientKey, NodeIndex)> = self
            .pace
            .trials
            .iter_mut()
            .filter(|(_, trial)| due(trial))
            .filter_map(|(key, trial)| {
                trial.busy = Busy::Asked;
                Some((*key, trial.node?))
            })
            .collect();
        for (client, node) in due {
            let Some(link) = self.route(Lane::shared(Protocol::Resp2), node) else { continue };
            let flags = RequestFlags::READONLY.with(RequestFlags::BUSY);
            self.tell_node_as(
                link,
                b"*1\r\n$4\r\nPING\r\n",
                InFlight { client, flags, ..InFlight::nobodys() },
            );
        }
    }

    /// What the node says, if it was asked whether a client's script keeps it busy.
    pub(super) fn busy_answered(&mut self, key: ClientKey, reply: &[u8]) {
        let Some(text) = reply.strip_prefix(b"-").filter(|text| text.starts_with(b"BUSY ")) else { return };
        if let Some(client) = self.clients.get(key)
            && let Some(trial) = self.pace.trials.get_mut(&key)
            && trial.busy == Busy::Asked
        {
            self.shared.scripts.busy.note(client.id, text.trim_ascii_end());
            trial.busy = Busy::Noted(client.id);
        }
    }

    /// Notes the scripts that connections have been waiting for too long. On a connection that others use nothing more
    /// is sent behind one.
    pub(super) fn note_long_scripts(&mut self) {
        const SCRIPTS: RequestFlags = RequestFlags::SCRIPT.with(RequestFlags::TRANSACTION);
        let now = self.now;
        let stuck = |link: &Link| {
            let oldest = link.pipe.oldest().filter(|_| !link.throttled && now >= link.moved + LONG);
            oldest.is_some_and(|oldest| oldest.flags.any(SCRIPTS))
        };
        let stuck: Vec<LinkKey> =
            self.links.iter().filter(|(_, link)| stuck(link)).map(|(key, _)| key).collect();
        for key in stuck {
            let Some(link) = self.links.get(key) else { continue };
            let scripts = scripts_in(link.pipe.oldest_bytes());
            if scripts.is_empty() {
                continue;
            }
            scripts.into_iter().for_each(|name| self.shared.scripts.long.note(name, now));
            if link.is_shared_and_ready() && !link.lane.is_leased() {
                self.step_aside(key);
            }
        }
        for link in self.links.values_mut() {
            let through = link.pipe.is_empty() && link.passing.is_none();
            if let LinkState::Draining { returns, .. } = &mut link.state
                && *returns
                && through
            {
                *returns = false; // another has taken its place
            }
        }
    }

    /// What is sent from now on takes another connection: one more is opened when it is needed.
    fn step_aside(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.state = LinkState::Draining { since: self.now, returns: true };
        let routes = &mut self.routes[link.lane.index()];
        routes.iter_mut().filter(|route| **route == key).for_each(|route| *route = LinkKey::default());
        for entry in link.pipe.in_flight() {
            if let Some(client) = self.clients.get_mut(entry.client) {
                client.flags.set(ClientFlags::CAREFUL);
            }
        }
    }
}

fn calls_script(words: &RequestArgs<'_>) -> bool {
    script_call(words).is_some() || words.is(0, "FCALL") || words.is(0, "FCALL_RO")
}

/// What is called by one request, or by those of a transaction.
pub(super) fn scripts_in(requests: &[u8]) -> Vec<ScriptName> {
    let ranges = request_ranges(requests).into_iter();
    ranges.filter_map(|range| with_queued(&requests[range], name_of).flatten()).collect()
}

/// What the script is called by that a request runs.
fn name_of(words: &RequestArgs<'_>) -> Option<ScriptName> {
    match script_call(words) {
        Some(ScriptCall::Text(text)) => Some(ScriptName::Script(Sha::of(text))),
        Some(ScriptCall::Sha(hex)) => Sha::parse(hex).map(ScriptName::Script),
        None => calls_script(words).then(|| ScriptName::function(words.word(1))),
    }
}
