//! The cluster as text: masters with their slots, replicas below them.

use std::collections::BTreeMap;
use std::fmt::Write;

use portico_slots::{Node, NodeId, SLOT_COUNT, Slot, Topology};

/// All slots that a condition holds for.
pub(super) fn slots(condition: impl Fn(Slot) -> bool) -> Vec<Slot> {
    (0..SLOT_COUNT).filter(|&slot| condition(slot)).collect()
}

/// Ascending slots as `0-5460,5462`.
pub(super) fn ranges(slots: &[Slot]) -> String {
    let runs = slots.chunk_by(|a, b| a + 1 == *b).filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// One line a node, by first slot, and a summary.
pub(super) fn cluster(topology: &Topology, versions: &BTreeMap<NodeId, String>) -> String {
    let describe = |node: &Node| {
        let version = versions.get(&node.id).map_or("not reached", String::as_str);
        let failed = if node.failed { ", failed" } else { "" };
        format!("{} ({}, {version}{failed})", node.address, node.id.short())
    };
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    let mut masters = topology.masters().to_vec();
    masters.sort_by_key(|&master| topology.first_slot(master));
    let mut replicas = 0;
    for &master in &masters {
        let owned = slots(|slot| topology.owner(slot) == Some(master));
        line(format!("master {} slots {}", describe(topology.node(master)), ranges(&owned)));
        for replica in topology.replicas_of(master) {
            line(format!("  replica {}", describe(topology.node(replica))));
            replicas += 1;
        }
    }
    for node in topology.nodes().iter().filter(|node| node.is_master()) {
        if topology.index_of(&node.id).is_none_or(|index| topology.first_slot(index).is_none()) {
            line(format!("master {} without slots", describe(node)));
        }
    }
    let (covered, masters) = (topology.covered(), masters.len());
    line(format!(
        "{covered} of {SLOT_COUNT} slots, {masters} masters with slots, {replicas} replicas of theirs"
    ));
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_are_shown_as_ranges() {
        assert_eq!(super::ranges(&[]), "");
        assert_eq!(super::ranges(&[0, 1, 2, 5, 16_382, 16_383]), "0-2,5,16382-16383");
    }
}
