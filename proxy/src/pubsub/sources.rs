//! For each slot, the node from which messages on its channels are taken.
//!
//! Every message reaches every node, so any could be the source; it must be one, or messages would be heard twice. A
//! slot's source is its owner, which its PUBLISHes go to, or another master while that cannot be reached. It stays the
//! source when the slot moves, so that nothing is lost or heard twice then, until the connection to it is lost.

use portico_slots::{NodeId, SLOT_COUNT, Slot, Topology};

const NONE: u16 = u16::MAX;

/// The sources of all slots. Takes no memory while nobody subscribes.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By slot, a place in `nodes`.
    table: Vec<u16>,
    nodes: Vec<NodeId>,
}

impl Sources {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The source of a slot.
    pub(super) fn of(&self, slot: Slot) -> Option<NodeId> {
        let place = *self.table.get(usize::from(slot))?;
        self.nodes.get(usize::from(place)).copied()
    }

    /// Those that are the source of any slot.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied()
    }

    /// Gives every slot a source, unless `stays` says of the present one that it has to be kept: its owner; or if nobody
    /// owns it or `is_down` says so of the owner, one of the other masters. Returns whether any has another one
    /// now.
    pub(super) fn settle(
        &mut self,
        topology: &Topology,
        stays: impl Fn(NodeId) -> bool,
        is_down: impl Fn(NodeId) -> bool,
    ) -> bool {
        let ids = topology.masters().iter().map(|&master| topology.node(master).id);
        let (down, living): (Vec<NodeId>, Vec<NodeId>) = ids.partition(|&node| is_down(node));
        let owner = |slot: Slot| {
            let owner = topology.owner(slot).map(|index| topology.node(index).id);
            let instead = usize::from(slot).checked_rem(living.len()).map(|at| living[at]);
            owner.filter(|owner| !down.contains(owner)).or(instead).or(owner)
        };
        if self.table.is_empty() {
            self.table = vec![NONE; usize::from(SLOT_COUNT)];
        }
        let kept: Vec<bool> = self.nodes.iter().map(|&node| stays(node)).collect();
        let before = std::mem::take(&mut self.nodes);
        let mut changed = false;
        for slot in 0..SLOT_COUNT {
            let place = self.table[usize::from(slot)];
            let source = match before.get(usize::from(place)) {
                Some(&node) if kept[usize::from(place)] => Some(node),
                old => owner(slot).or(old.copied()),
            };
            changed |= source != before.get(usize::from(place)).copied();
            self.table[usize::from(slot)] = source.map_or(NONE, |node| self.place(node));
        }
        changed
    }

    fn place(&mut self, node: NodeId) -> u16 {
        let known = self.nodes.iter().rposition(|&known| known == node);
        known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        }) as u16
    }
}
