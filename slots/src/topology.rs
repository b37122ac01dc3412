//! An immutable snapshot of the cluster: nodes, who owns which slot, which slots are on the move.

use crate::{Address, Node, NodeId, Role, SLOT_COUNT, Slot};
use std::collections::HashMap;
use std::fmt;

/// A node's place in [`Topology::nodes`]; valid for one snapshot only.
pub type NodeIndex = u16;

const NONE: u16 = u16::MAX;
const SLOTS: usize = SLOT_COUNT as usize;

/// A slot on the move: the source still owns it, keys that it no longer has are at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSlot {
    /// The slot.
    pub slot: Slot,
    /// Its owner.
    pub source: NodeIndex,
    /// The node that takes it over.
    pub target: NodeIndex,
}

/// One moment of the cluster. Never changes: a refresh makes a new one.
///
/// Nodes are numbered in order of id, so that every process that knows the same nodes numbers them alike. A node that
/// owns a slot is always a master.
#[derive(Clone, PartialEq, Eq)]
pub struct Topology {
    owners: Box<[NodeIndex; SLOTS]>,
    nodes: Box<[Node]>,
    masters: Box<[NodeIndex]>,
    first_slots: Box<[Slot]>,                // by node
    replicas: Box<[(NodeIndex, NodeIndex)]>, // (master, replica), sorted
    by_address: Box<[NodeIndex]>, // sorted by address, the likeliest of several at one address first
    open: Box<[OpenSlot]>,        // sorted by slot
    covered: u16,
    fingerprint: u64,
}

impl Topology {
    /// The most nodes that a snapshot holds.
    pub const MAX_NODES: usize = NONE as usize;

    /// A cluster of which nothing is known yet: no nodes, no owners.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Vec::new(), |_| None, [])
    }

    /// A snapshot from its parts: the nodes in any order, each slot's owner, and the open slots as (slot, source,
    /// target).
    ///
    /// What does not fit is left out: all but the first of several nodes with one id, nodes above
    /// [`Self::MAX_NODES`] in order of id, owners that are not among the nodes, and open slots whose source is not
    /// the owner or whose target is unknown or the source itself. The first entry for an open slot counts.
    #[must_use]
    pub fn new(
        mut nodes: Vec<Node>,
        owner: impl Fn(Slot) -> Option<NodeId>,
        open: impl IntoIterator<Item = (Slot, NodeId, NodeId)>,
    ) -> Self {
        nodes.sort_by_key(|node| node.id);
        nodes.dedup_by_key(|node| node.id);
        nodes.truncate(Self::MAX_NODES);

        let mut owners = Box::new([NONE; SLOTS]);
        let mut first_slots = vec![NONE; nodes.len()];
        let mut covered = 0;
        for slot in 0..SLOT_COUNT {
            let Some(index) = owner(slot).and_then(|id| position(&nodes, &id)) else { continue };
            owners[usize::from(slot)] = index;
            covered += 1;
            let first = &mut first_slots[usize::from(index)];
            *first = slot.min(*first);
            nodes[usize::from(index)].role = Role::Master;
        }

        let mut moving: Vec<OpenSlot> = open
            .into_iter()
            .filter_map(|(slot, source, target)| {
                let (source, target) = (position(&nodes, &source)?, position(&nodes, &target)?);
                let owned = owners.get(usize::from(slot)) == Some(&source);
                (owned && source != target).then_some(OpenSlot { slot, source, target })
            })
            .collect();
        moving.sort_by_key(|open| open.slot); // stable: the first entry for a slot stays first
        moving.dedup_by_key(|open| open.slot);

        let indices = || (0..).zip(&nodes).map(|(index, _): (NodeIndex, _)| index);
        let at = |index: NodeIndex| &nodes[usize::from(index)];
        let masters = indices().filter(|&index| first_slots[usize::from(index)] != NONE).collect();
        let mut replicas: Vec<_> = indices()
            .filter_map(|index| match &at(index).role {
                Role::Replica { of } => Some((position(&nodes, of)?, index)),
                Role::Master => None,
            })
            .collect();
        replicas.sort_unstable();
        let mut by_address: Vec<NodeIndex> = indices().collect();
        by_address.sort_by_key(|&index| {
            let node = at(index);
            (&node.address, node.failed, first_slots[usize::from(index)] == NONE, index)
        });

        let mut topology = Self {
            owners,
            masters,
            replicas: replicas.into(),
            by_address: by_address.into(),
            first_slots: first_slots.into(),
            nodes: nodes.into(),
            open: moving.into(),
            covered,
            fingerprint: 0,
        };
        topology.fingerprint = topology.hash();
        topology
    }

    /// The same snapshot with run ids: each node gets that of the map, or none if it is not in the map.
    #[must_use]
    pub fn with_run_ids(mut self, run_ids: &HashMap<NodeId, String>) -> Self {
        for node in &mut self.nodes {
            node.run_id = run_ids.get(&node.id).cloned();
        }
        self.fingerprint = self.hash();
        self
    }

    /// All nodes, in order of id.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this number.
    ///
    /// # Panics
    /// If `index` is not from this snapshot and too high for it.
    #[inline]
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[usize::from(index)]
    }

    /// Who owns `slot`, if anybody is known to.
    #[inline]
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<NodeIndex> {
        match self.owners.get(usize::from(slot)) {
            None | Some(&NONE) => None,
            Some(&index) => Some(index),
        }
    }

    /// The masters that own at least one slot, in order of id.
    #[inline]
    #[must_use]
    pub fn masters(&self) -> &[NodeIndex] {
        &self.masters
    }

    /// The lowest slot that `master` owns.
    #[inline]
    #[must_use]
    pub fn first_slot(&self, master: NodeIndex) -> Option<Slot> {
        self.first_slots.get(usize::from(master)).copied().filter(|&slot| slot != NONE)
    }

    /// The replicas of `master`, in order of id, failed ones too.
    #[inline]
    pub fn replicas_of(&self, master: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        let start = self.replicas.partition_point(|&(of, _)| of < master);
        self.replicas[start..].iter().take_while(move |&&(of, _)| of == master).map(|&(_, replica)| replica)
    }

    /// Whether `slot` is on the move.
    #[inline]
    #[must_use]
    pub fn is_open(&self, slot: Slot) -> bool {
        self.has_open() && self.open_slot(slot).is_some()
    }

    /// Whether any slot is on the move: false nearly always, and cheap.
    #[inline]
    #[must_use]
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The slots on the move, in order.
    #[must_use]
    pub fn open_slots(&self) -> &[OpenSlot] {
        &self.open
    }

    /// From where to where `slot` moves, if it does.
    #[must_use]
    pub fn open_slot(&self, slot: Slot) -> Option<&OpenSlot> {
        self.open.binary_search_by_key(&slot, |open| open.slot).ok().map(|at| &self.open[at])
    }

    /// The node at `address` (as mapped). Of several, one that has not failed, then one with slots.
    #[must_use]
    pub fn find(&self, address: &Address) -> Option<NodeIndex> {
        let at = self.by_address.partition_point(|&index| self.node(index).address < *address);
        self.by_address.get(at).copied().filter(|&index| self.node(index).address == *address)
    }

    /// The number of the node with this id.
    #[must_use]
    pub fn index_of(&self, id: &NodeId) -> Option<NodeIndex> {
        position(&self.nodes, id)
    }

    /// How many slots have an owner, `0..=16384`.
    #[must_use]
    pub fn covered(&self) -> u16 {
        self.covered
    }

    /// How many slots each node owns, by its number.
    #[must_use]
    pub fn slot_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for owner in (0..SLOT_COUNT).filter_map(|slot| self.owner(slot)) {
            counts[usize::from(owner)] += 1;
        }
        counts
    }

    /// A number that is the same in every process and release that sees the same owners (by id), the same open slots
    /// and the same run ids of masters with slots. Addresses do not count: they differ with the address map.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn hash(&self) -> u64 {
        let mut hash = Fnv1a::new();
        let mut slot = 0;
        for run in self.owners.chunk_by(|a, b| a == b) {
            if run[0] != NONE {
                hash.number(slot);
                hash.number(run.len());
                hash.bytes(self.node(run[0]).id.as_str().as_bytes());
            }
            slot += run.len();
        }
        for open in &self.open {
            hash.number(SLOTS + usize::from(open.slot)); // above any slot: no owner's entry can look like this
            hash.bytes(self.node(open.target).id.as_str().as_bytes());
        }
        for &master in &self.masters {
            let run_id = self.node(master).run_id.as_deref().unwrap_or_default();
            hash.number(run_id.len());
            hash.bytes(run_id.as_bytes());
        }
        hash.0
    }
}

impl fmt::Debug for Topology {
    /// Without the 16384 owners.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("nodes", &self.nodes)
            .field("covered", &self.covered)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::empty()
    }
}

fn position(nodes: &[Node], id: &NodeId) -> Option<NodeIndex> {
    let at = nodes.binary_search_by_key(id, |node| node.id).ok()?;
    NodeIndex::try_from(at).ok()
}

/// FNV-1a, 64 bits: unlike std's hasher it may never change.
struct Fnv1a(u64);

impl Fnv1a {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
