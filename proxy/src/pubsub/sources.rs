//! For each slot, the node from which messages on its channels are taken.
//!
//! Every message reaches every node, so any could be the source; it must be one, or messages would be heard twice. A
//! slot's source is its owner, which its PUBLISHes go to. It stays the source when the slot moves, so that nothing is
//! lost or heard twice then, until the connection to it is lost.

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

    /// Gives every slot a source: its owner, unless `stays` says of the present one that it has to be kept.
    pub(super) fn settle(&mut self, topology: &Topology, stays: impl Fn(NodeId) -> bool) {
        let owner = |slot| topology.owner(slot).map(|index| topology.node(index).id);
        if self.table.is_empty() {
            self.table = vec![NONE; usize::from(SLOT_COUNT)];
        }
        let kept: Vec<bool> = self.nodes.iter().map(|&node| stays(node)).collect();
        let before = std::mem::take(&mut self.nodes);
        for slot in 0..SLOT_COUNT {
            let place = self.table[usize::from(slot)];
            let source = match before.get(usize::from(place)) {
                Some(&node) if kept[usize::from(place)] => Some(node),
                old => owner(slot).or(old.copied()),
            };
            self.table[usize::from(slot)] = source.map_or(NONE, |node| self.place(node));
        }
    }

    fn place(&mut self, node: NodeId) -> u16 {
        let known = self.nodes.iter().rposition(|&known| known == node);
        known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        }) as u16
    }
}
