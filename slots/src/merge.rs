//! One topology from what several nodes say, right also while they disagree.

use crate::{Address, Line, Node, NodeId, Role, SLOT_COUNT, Slot, Topology, View, claims, trust};
use std::collections::BTreeMap;

/// Why views make no topology.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError {
    /// No node answered, or only nodes that are not members yet.
    #[error("no node has given a view of the cluster")]
    NoView,
    /// Nobody knows a master with an address.
    #[error("no master is known")]
    NoMaster,
    /// More nodes than a [`Topology`] can number.
    #[error("the cluster has more than {} nodes", Topology::MAX_NODES)]
    TooManyNodes,
}

/// Merges views, in any order, to one topology. `map` turns an announced address into one that can be reached.
///
/// - Views of isolated nodes are dropped: of a node that most others do not list, or that knows only itself while
///   others know more. A single view is believed.
/// - A slot belongs to the master with the highest config epoch among those that any view lists it for. On a tie: who
///   has not failed, then who claims it itself, then the lowest id. What a node does not claim itself, others claim
///   for it in vain, unless at a higher epoch than its own or nobody else claims it.
/// - A node that answered is believed about its role, address and open slots; of others counts what most views say.
///   Who owns a slot is a master.
/// - A slot is open if its owner says that it leaves, or its next owner that it comes from the present one.
/// - Nodes in handshake, without slots while most know no address of them, and without any address are left out.
///
/// # Errors
/// Without a view, without a master (with or without slots), or with more than [`Topology::MAX_NODES`] nodes.
pub fn merge(views: &[View], map: &dyn Fn(&Address) -> Address) -> Result<Topology, MergeError> {
    let views = trust::believed(views);
    if views.is_empty() {
        return Err(MergeError::NoView);
    }
    let owners = claims::owners(&views);
    let mut owns: Vec<NodeId> = owners.iter().flatten().copied().collect();
    owns.sort_unstable();
    owns.dedup();

    let nodes: Vec<Node> = testimonies(&views)
        .into_iter()
        .filter_map(|(id, said)| said.node(id, owns.binary_search(&id).is_ok(), map))
        .collect();
    if nodes.len() > Topology::MAX_NODES {
        return Err(MergeError::TooManyNodes);
    }
    if !nodes.iter().any(Node::is_master) {
        return Err(MergeError::NoMaster);
    }
    Ok(Topology::new(nodes, |slot| owners[usize::from(slot)], open_slots(&views)))
}

/// All that is said of one node.
#[derive(Default)]
struct Testimony<'a> {
    own: Option<(&'a View, &'a Line)>,
    others: Vec<&'a Line>,
}

fn testimonies<'a>(views: &[&'a View]) -> BTreeMap<NodeId, Testimony<'a>> {
    let mut all: BTreeMap<NodeId, Testimony<'a>> = BTreeMap::new();
    for view in views {
        for line in view.lines.iter().filter(|line| !line.flags.handshake) {
            let said = all.entry(line.id).or_default();
            if line.id == view.myself {
                said.own = Some((view, line));
            } else {
                said.others.push(line);
            }
        }
    }
    all
}

impl Testimony<'_> {
    fn node(&self, id: NodeId, owns_slots: bool, map: &dyn Fn(&Address) -> Address) -> Option<Node> {
        let own = self.own.map(|(_, line)| line);
        let lines = || own.into_iter().chain(self.others.iter().copied());
        if !owns_slots && most(lines(), |line| line.flags.noaddr) {
            return None;
        }
        let role = if owns_slots {
            Role::Master
        } else {
            let said = own.and_then(Line::role);
            said.or_else(|| plurality(lines(), Line::role)).unwrap_or(Role::Master)
        };
        let failed = most(lines(), |line| line.flags.failed);
        Some(Node {
            id,
            address: self.address(map)?,
            role,
            config_epoch: lines().map(|line| line.config_epoch).max().unwrap_or(0),
            failed,
            suspected: !failed && most(lines(), |line| line.flags.failed || line.flags.suspected),
            connected: !most(self.others.iter().copied(), |line| !line.connected),
            run_id: None,
        })
    }

    /// What the node announces itself, else what others know; a node that nobody knows an address of can be reached
    /// where it was asked, which needs no mapping.
    fn address(&self, map: &dyn Fn(&Address) -> Address) -> Option<Address> {
        let announced = self.own.and_then(|(_, line)| line.address.as_ref());
        let known = || plurality(self.others.iter().copied(), |line| line.address.as_ref());
        match announced.or_else(known) {
            Some(address) => Some(map(address)),
            None => self.own.map(|(view, _)| view.asked.clone()),
        }
    }
}

/// Whether more than half of the lines say so.
fn most<'a>(lines: impl Iterator<Item = &'a Line>, says: impl Fn(&Line) -> bool) -> bool {
    let (yes, all) = lines.fold((0, 0), |(yes, all), line| (yes + usize::from(says(line)), all + 1));
    yes * 2 > all
}

/// What most of the lines that say anything say; of equals that with the highest epoch, then the lowest.
fn plurality<'a, T: Ord>(
    lines: impl Iterator<Item = &'a Line>,
    says: impl Fn(&'a Line) -> Option<T>,
) -> Option<T> {
    let mut votes: BTreeMap<T, (usize, u64)> = BTreeMap::new();
    for line in lines {
        if let Some(said) = says(line) {
            let (count, epoch) = votes.entry(said).or_default();
            *count += 1;
            *epoch = line.config_epoch.max(*epoch);
        }
    }
    // max_by_key takes the last of equals
    votes.into_iter().rev().max_by_key(|&(_, vote)| vote).map(|(said, _)| said)
}

/// What nodes say of their own slots: leaving ones first, which count before coming ones.
/// [`Topology::new`] drops those whose source is not the owner.
fn open_slots<'a>(views: &'a [&'a View]) -> impl Iterator<Item = (Slot, NodeId, NodeId)> + 'a {
    let own = || views.iter().filter_map(|view| view.own());
    let leaving = own().flat_map(|line| line.migrating.iter().map(|&(slot, to)| (slot, line.id, to)));
    let coming = own().flat_map(|line| line.importing.iter().map(|&(slot, from)| (slot, from, line.id)));
    leaving.chain(coming).filter(|&(slot, _, _)| slot < SLOT_COUNT)
}

#[cfg(test)]
mod tests;
