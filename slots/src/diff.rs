//! What changed between two snapshots, for those who have to act on it, and as one line for the log.

use crate::{Address, Node, NodeId, Role, SLOT_COUNT, Slot, Topology};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// How many ranges, and how many nodes of a kind, a log line names.
const LISTED: usize = 10;

/// The changes from one snapshot to the next; lists are in order of slot or id. Config epochs, suspicions and the
/// state of links are not looked at: they come and go without anything to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Slots with another owner (by id): range, old owner, new owner. As few ranges as possible.
    pub moved: Vec<(RangeInclusive<Slot>, Option<NodeId>, Option<NodeId>)>,
    /// Nodes that were not known before.
    pub added: Vec<NodeId>,
    /// Nodes that are not known any more.
    pub removed: Vec<NodeId>,
    /// Replicas that became masters.
    pub promoted: Vec<NodeId>,
    /// Masters that became replicas.
    pub demoted: Vec<NodeId>,
    /// Replicas that follow another master than before.
    pub reattached: Vec<NodeId>,
    /// Nodes that are reached elsewhere now: id, old address, new address.
    pub readdressed: Vec<(NodeId, Address, Address)>,
    /// Nodes whose run id, known in both, is another: the process is a new one.
    pub restarted: Vec<NodeId>,
    /// Nodes that are down now.
    pub failed: Vec<NodeId>,
    /// Nodes that are not down any more.
    pub recovered: Vec<NodeId>,
    /// Slots that began to move, or now move between other nodes.
    pub opened: Vec<Slot>,
    /// Slots that do not move any more.
    pub closed: Vec<Slot>,
    /// Addresses, for the log line.
    names: BTreeMap<NodeId, Address>,
}

/// What changed from `old` to `new`.
#[must_use]
pub fn diff(old: &Topology, new: &Topology) -> Changes {
    let mut changes = Changes { moved: moved(old, new), ..Changes::default() };
    for node in old.nodes() {
        match new.index_of(&node.id) {
            Some(index) => changes.compare(node, new.node(index)),
            None => changes.removed.push(node.id),
        }
    }
    let unknown = |node: &&Node| old.index_of(&node.id).is_none();
    changes.added = new.nodes().iter().filter(unknown).map(|node| node.id).collect();

    let moves = |topology: &Topology, slot| {
        let open = topology.open_slot(slot)?;
        Some((topology.node(open.source).id, topology.node(open.target).id))
    };
    let slots = |topology: &Topology| topology.open_slots().iter().map(|open| open.slot).collect::<Vec<_>>();
    changes.opened = slots(new).into_iter().filter(|&slot| moves(old, slot) != moves(new, slot)).collect();
    changes.closed = slots(old).into_iter().filter(|&slot| !new.is_open(slot)).collect();

    if !changes.is_empty() {
        let both = old.nodes().iter().chain(new.nodes());
        changes.names = both.map(|node| (node.id, node.address.clone())).collect();
    }
    changes
}

fn moved(old: &Topology, new: &Topology) -> Vec<(RangeInclusive<Slot>, Option<NodeId>, Option<NodeId>)> {
    let owner = |topology: &Topology, slot| topology.owner(slot).map(|index| topology.node(index).id);
    let mut moved: Vec<(RangeInclusive<Slot>, _, _)> = Vec::new();
    for slot in 0..SLOT_COUNT {
        let (from, to) = (owner(old, slot), owner(new, slot));
        if from == to {
            continue;
        }
        match moved.last_mut() {
            Some((range, f, t)) if range.end() + 1 == slot && (*f, *t) == (from, to) => {
                *range = *range.start()..=slot;
            }
            _ => moved.push((slot..=slot, from, to)),
        }
    }
    moved
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // all but the names, which are there only if something else is
        *self == Self { names: self.names.clone(), ..Self::default() }
    }

    /// Whether nothing changed but owners of slots and slots on the move: what a reshard does.
    #[must_use]
    pub fn only_slots(&self) -> bool {
        let Self { moved, opened, closed, names, .. } = self.clone();
        *self == Self { moved, opened, closed, names, ..Self::default() }
    }

    /// Whether any slot has another owner.
    #[must_use]
    pub fn owners_changed(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Every slot that has another owner, in order.
    pub fn moved_slots(&self) -> impl Iterator<Item = Slot> {
        self.moved.iter().flat_map(|(range, _, _)| range.clone())
    }

    fn compare(&mut self, old: &Node, new: &Node) {
        let id = new.id;
        match (old.role, new.role) {
            (Role::Replica { .. }, Role::Master) => self.promoted.push(id),
            (Role::Master, Role::Replica { .. }) => self.demoted.push(id),
            (before, now) if before != now => self.reattached.push(id),
            _ => {}
        }
        if old.address != new.address {
            self.readdressed.push((id, old.address.clone(), new.address.clone()));
        }
        if let (Some(before), Some(now)) = (&old.run_id, &new.run_id)
            && before != now
        {
            self.restarted.push(id);
        }
        match (old.failed, new.failed) {
            (false, true) => self.failed.push(id),
            (true, false) => self.recovered.push(id),
            _ => {}
        }
    }

    fn name(&self, id: &NodeId) -> String {
        self.names.get(id).map_or_else(|| id.short().to_owned(), ToString::to_string)
    }

    /// `slots 0-99,200 moved a -> b`, one entry for each pair of nodes.
    fn describe_moves(&self, parts: &mut Vec<String>) {
        type Move = (Option<NodeId>, Option<NodeId>);
        let mut moves: Vec<(Move, Vec<RangeInclusive<Slot>>)> = Vec::new();
        for (range, from, to) in self.moved.iter().take(LISTED) {
            match moves.iter_mut().find(|(nodes, _)| *nodes == (*from, *to)) {
                Some((_, ranges)) => ranges.push(range.clone()),
                None => moves.push(((*from, *to), vec![range.clone()])),
            }
        }
        for ((from, to), ranges) in moves {
            let slots = slots(&ranges);
            parts.push(match (from, to) {
                (Some(from), Some(to)) => format!("{slots} moved {} -> {}", self.name(&from), self.name(&to)),
                (Some(from), None) => format!("{slots} no longer owned by {}", self.name(&from)),
                (None, Some(to)) => format!("{slots} now owned by {}", self.name(&to)),
                (None, None) => continue, // never in `moved`
            });
        }
        if self.moved.len() > LISTED {
            parts.push(format!("and {} more ranges moved", self.moved.len() - LISTED));
        }
    }

    /// `a, b and 3 more left`
    fn describe_nodes(&self, parts: &mut Vec<String>, ids: &[NodeId], what: &str) {
        if !ids.is_empty() {
            let names: Vec<_> = ids.iter().take(LISTED).map(|id| self.name(id)).collect();
            parts.push(format!("{}{} {what}", names.join(", "), more(ids.len())));
        }
    }
}

impl fmt::Display for Changes {
    /// One line, bounded: at most ten ranges and ten nodes of a kind, then how many more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        self.describe_moves(&mut parts);
        for (ids, what) in [
            (&self.promoted, "became master"),
            (&self.demoted, "became replica"),
            (&self.reattached, "follows another master"),
            (&self.added, "joined"),
            (&self.removed, "left"),
            (&self.failed, "failed"),
            (&self.recovered, "recovered"),
            (&self.restarted, "restarted"),
        ] {
            self.describe_nodes(&mut parts, ids, what);
        }
        if !self.readdressed.is_empty() {
            let moves =
                self.readdressed.iter().take(LISTED).map(|(_, old, new)| format!("{old} is now {new}"));
            parts.push(moves.collect::<Vec<_>>().join(", ") + &more(self.readdressed.len()));
        }
        for (open, what) in [(&self.opened, "opened"), (&self.closed, "closed")] {
            if !open.is_empty() {
                parts.push(format!("{} {what}", describe_slots(open)));
            }
        }
        if parts.is_empty() {
            return f.write_str("no change");
        }
        f.write_str(&parts.join("; "))
    }
}

/// Ascending slots for people: `slot 5` or `slots 0-99,200`, at most ten ranges, then how many more.
#[must_use]
pub fn describe_slots(of: &[Slot]) -> String {
    slots(&ranges(of))
}

/// Ascending slots as ranges.
fn ranges(slots: &[Slot]) -> Vec<RangeInclusive<Slot>> {
    slots.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..=run[run.len() - 1]).collect()
}

/// `slot 5` or `slots 0-99,200`, then how many more.
fn slots(ranges: &[RangeInclusive<Slot>]) -> String {
    let one = |range: &RangeInclusive<Slot>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let listed: Vec<_> = ranges.iter().take(LISTED).map(one).collect();
    let plural = if ranges.iter().map(ExactSizeIterator::len).sum::<usize>() == 1 { "" } else { "s" };
    format!("slot{plural} {}{}", listed.join(","), more(ranges.len()))
}

fn more(all: usize) -> String {
    if all > LISTED { format!(" and {} more", all - LISTED) } else { String::new() }
}

#[cfg(test)]
mod tests;
