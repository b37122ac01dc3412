//! Who owns each slot, when views differ.

use crate::{NodeId, SLOT_COUNT, View};
use std::cmp::Reverse;
use std::collections::HashMap;

/// A master's line that lists a slot, in the order in which claims win.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// The claimed node did not itself answer, at this epoch or a later one, that it does not own the slot.
    unrefuted: bool,
    /// As between nodes of a cluster: the higher config epoch wins.
    epoch: u64,
    /// Who has not failed.
    alive: bool,
    /// A node speaks of itself.
    own: bool,
    /// At equal epochs Redis raises the epoch of the node with the lower id (`clusterHandleConfigEpochCollision`).
    owner: Reverse<NodeId>,
}

/// What a node says of itself.
struct Own {
    epoch: u64,
    slots: Vec<bool>,
}

/// The owner of each slot, by slot.
pub(crate) fn owners(views: &[&View]) -> Vec<Option<NodeId>> {
    let own: HashMap<NodeId, Own> = views.iter().filter_map(|view| Some((view.myself, own(view)?))).collect();
    let mut best: Vec<Option<Claim>> = vec![None; usize::from(SLOT_COUNT)];
    for view in views {
        for line in view.lines.iter().filter(|line| line.flags.master && !line.flags.handshake) {
            let said = own.get(&line.id).filter(|own| own.epoch >= line.config_epoch);
            for slot in line.slots.iter().cloned().flatten() {
                let claim = Claim {
                    unrefuted: said.is_none_or(|own| own.slots[usize::from(slot)]),
                    epoch: line.config_epoch,
                    alive: !line.flags.failed,
                    own: line.id == view.myself,
                    owner: Reverse(line.id),
                };
                let best = &mut best[usize::from(slot)];
                *best = Some(claim).max(*best);
            }
        }
    }
    best.into_iter().map(|claim| claim.map(|claim| claim.owner.0)).collect()
}

fn own(view: &View) -> Option<Own> {
    let line = view.own()?;
    let mut slots = vec![false; usize::from(SLOT_COUNT)];
    for slot in line.slots.iter().cloned().flatten() {
        slots[usize::from(slot)] = true;
    }
    Some(Own { epoch: line.config_epoch, slots })
}
