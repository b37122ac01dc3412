//! What the log is told of the cluster: slots without a master, nodes that cannot be asked, and what changed.
//!
//! What an operator has to act on is a warning, told at once, again each minute while it lasts, and once more when it
//! is over. Slots that move are summed up, since a reshard changes the map several times a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portico_slots::{Address, NodeIndex, SLOT_COUNT, Slot, Topology, describe_slots, diff};
use tokio::time::Instant;

use super::trouble::Trouble;

/// Slots that move are told of no more often.
const SUMMARY: Duration = Duration::from_secs(5);
/// What is still wrong is told again so often.
const REMINDER: Duration = Duration::from_secs(60);
/// A master that answers nothing for so long counts as lost, although the cluster does not miss it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nodes that one line names, at most.
const LISTED: usize = 5;

/// A node that did not answer when it was asked last.
#[derive(Debug)]
struct Silence {
    since: Instant,
    trouble: Trouble,
    /// The log was told.
    said: bool,
}

/// Why no map is to be had.
#[derive(Debug)]
struct NoMap {
    since: Instant,
    why: String,
    said: Instant,
}

/// What the log was told, and what it has to be told yet.
#[derive(Debug)]
pub(super) struct Chronicle {
    /// The map as the log has it.
    told: Topology,
    /// When it was told of slots that moved.
    summed_up: Option<Instant>,
    silent: BTreeMap<Address, Silence>,
    /// Slots without a master, and since when.
    lost: BTreeMap<Slot, Instant>,
    reminded: Instant,
    /// A master did not answer when it was asked last.
    ailing: bool,
    no_map: Option<NoMap>,
    unresolved: BTreeSet<String>,
}

impl Chronicle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            told: Topology::empty(),
            summed_up: None,
            silent: BTreeMap::new(),
            lost: BTreeMap::new(),
            reminded: now,
            ailing: false,
            no_map: None,
            unresolved: BTreeSet::new(),
        }
    }

    /// A node has told its map.
    pub(super) fn answered(&mut self, address: &Address) {
        if self.silent.remove(address).is_some_and(|silence| silence.said) {
            tracing::info!(node = %address, "the node tells its map again");
        }
    }

    /// A node was asked in vain.
    pub(super) fn failed(&mut self, address: Address, trouble: Trouble, now: Instant) {
        let silence = Silence { since: now, trouble: trouble.clone(), said: false };
        let silence = self.silent.entry(address).or_insert(silence);
        // What merely came too late says less than what was known before.
        if silence.trouble != trouble && trouble != Trouble::Late {
            (silence.trouble, silence.said) = (trouble, false);
        }
    }

    /// All that were asked have answered or not. `any`: some have; `of_interest` are the nodes that will be asked again.
    pub(super) fn asked(&mut self, any: bool, now: Instant, of_interest: impl Fn(&Address) -> bool) {
        self.silent.retain(|address, _| of_interest(address));
        if !any {
            return; // one line tells of all
        }
        for (address, silence) in self.silent.iter_mut().filter(|(_, silence)| !silence.said) {
            let trouble = &silence.trouble;
            // A node that is ending closes connections as well.
            let patience = if matches!(trouble, Trouble::Closed(_)) { PATIENCE } else { Duration::ZERO };
            if trouble.needs_somebody() && now >= silence.since + patience {
                tracing::warn!(node = %address, "a node does not tell its map: {trouble}");
                silence.said = true;
            }
        }
    }

    /// Why none of them answered.
    pub(super) fn all_silent(&self) -> String {
        let nodes = self.silent.iter().take(LISTED);
        let nodes: Vec<_> = nodes.map(|(node, silence)| format!("{node}: {}", silence.trouble)).collect();
        let more = match self.silent.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("no node tells its map: {}{more}", nodes.join("; "))
    }

    /// There is no map to be had, or none to be believed.
    pub(super) fn no_map(&mut self, why: String, now: Instant) {
        let known = self.no_map.get_or_insert_with(|| {
            tracing::warn!("{why}");
            NoMap { since: now, why: why.clone(), said: now }
        });
        let changed = known.why != why && now >= known.said + SUMMARY;
        if changed || now >= known.said + REMINDER {
            tracing::warn!("{why} (no map for {})", seconds(now - known.since));
            (known.why, known.said) = (why, now);
        }
    }

    /// A host's name leads nowhere, or does again.
    pub(super) fn resolved(&mut self, host: &str, error: Option<String>) {
        match error {
            Some(error) if !self.unresolved.contains(host) => {
                tracing::warn!(%host, %error, "a node's hostname does not resolve");
                self.unresolved.insert(host.to_owned());
            }
            None if self.unresolved.remove(host) => tracing::info!(%host, "a node's hostname resolves again"),
            _ => {}
        }
    }

    /// The map is read, and is this.
    pub(super) fn map(&mut self, topology: &Topology, now: Instant) {
        if let Some(NoMap { since, .. }) = self.no_map.take() {
            tracing::info!("the nodes tell their map again, after {}", seconds(now - since));
        }
        let changes = diff(&self.told, topology);
        if changes.is_empty() || changes.only_slots() && now < self.next_summary().unwrap_or(now) {
            return;
        }
        let (masters, slots) = (topology.masters().len(), topology.covered());
        tracing::info!(masters, slots, "topology: {changes}");
        self.told = topology.clone();
        self.summed_up = Some(now);
    }

    /// Slots that moved are not told of before.
    fn next_summary(&self) -> Option<Instant> {
        self.summed_up.map(|told| told + SUMMARY)
    }

    /// When slots that have moved by now are to be told of, if the log does not know it yet.
    pub(super) fn due(&self, topology: &Topology) -> Option<Instant> {
        self.next_summary().filter(|_| !diff(&self.told, topology).is_empty())
    }

    /// Looks which slots no master answers for, in the map that is in force.
    pub(super) fn look(&mut self, topology: &Topology, now: Instant) {
        if topology.masters().is_empty() && self.lost.is_empty() {
            return; // nothing was ever known: there is no map
        }
        let silent = |master: &NodeIndex| self.silent.contains_key(&topology.node(*master).address);
        self.ailing = topology.masters().iter().any(silent);
        let mut whose: BTreeMap<Option<NodeIndex>, Vec<Slot>> = BTreeMap::new();
        let sick: Vec<NodeIndex> = topology
            .masters()
            .iter()
            .copied()
            .filter(|&master| self.is_lost(topology, master, now))
            .collect();
        for slot in 0..SLOT_COUNT {
            let owner = topology.owner(slot);
            if owner.is_none_or(|owner| sick.contains(&owner)) {
                whose.entry(owner).or_default().push(slot);
            }
        }
        let lost: BTreeSet<Slot> = whose.values().flatten().copied().collect();
        self.tell_found(topology, &lost, now);
        let before = self.lost.len();
        for (owner, slots) in &whose {
            let fresh: Vec<Slot> =
                slots.iter().copied().filter(|slot| !self.lost.contains_key(slot)).collect();
            if !fresh.is_empty() {
                let (slots, why) = (describe_slots(&fresh), self.why(topology, *owner));
                tracing::warn!("no master answers for {slots}: {why}");
                self.lost.extend(fresh.into_iter().map(|slot| (slot, now)));
            }
        }
        if self.lost.len() > before {
            self.reminded = now;
        }
        if self.lost.is_empty() || now < self.reminded + REMINDER {
            return;
        }
        self.reminded = now;
        for (owner, slots) in &whose {
            let since = slots.iter().filter_map(|slot| self.lost.get(slot)).min().copied().unwrap_or(now);
            let (slots, why) = (describe_slots(slots), self.why(topology, *owner));
            tracing::warn!("no master has answered for {slots} in {}: {why}", seconds(now - since));
        }
    }

    /// Tells of slots that have a master again.
    fn tell_found(&mut self, topology: &Topology, lost: &BTreeSet<Slot>, now: Instant) {
        let mut found: BTreeMap<(Option<NodeIndex>, Instant), Vec<Slot>> = BTreeMap::new();
        for (&slot, &since) in self.lost.iter().filter(|(slot, _)| !lost.contains(slot)) {
            found.entry((topology.owner(slot), since)).or_default().push(slot);
        }
        for ((owner, since), slots) in found {
            let master = owner.map(|owner| topology.node(owner).address.to_string()).unwrap_or_default();
            let slots = describe_slots(&slots);
            tracing::info!("a master answers for {slots} again after {}: {master}", seconds(now - since));
        }
        self.lost.retain(|slot, _| lost.contains(slot));
    }

    /// Whether nothing is amiss.
    pub(super) fn is_calm(&self) -> bool {
        self.lost.is_empty() && self.no_map.is_none() && !self.ailing
    }

    fn is_lost(&self, topology: &Topology, master: NodeIndex, now: Instant) -> bool {
        let node = topology.node(master);
        let silent = self.silent.get(&node.address);
        let slow = |silence: &Silence| matches!(silence.trouble, Trouble::Busy(_));
        node.failed || silent.is_some_and(|silence| !slow(silence) && now >= silence.since + PATIENCE)
    }

    fn why(&self, topology: &Topology, owner: Option<NodeIndex>) -> String {
        let Some(owner) = owner else { return "nobody owns them".to_owned() };
        let node = topology.node(owner);
        let silent = self.silent.get(&node.address).map(|silence| silence.trouble.to_string());
        match (node.failed, silent) {
            (true, _) => format!("{} has failed", node.address),
            (false, silent) => format!("{}: {}", node.address, silent.unwrap_or_default()),
        }
    }
}

/// A time for people.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
