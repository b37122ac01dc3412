//! What is wrong with a cluster, from what its nodes said.

use std::collections::BTreeSet;
use std::fmt;

use portico_slots::{Address, NodeId, SLOT_COUNT, Topology, View};

use super::probe::Probe;
use super::report::{ranges, slots};

/// The user that Portico needs, for ACL SETUSER.
const USER_RIGHTS: &str = "portico on >password ~* &* +@all -cluster +cluster|nodes +cluster|info";

/// Errors, which keep requests from being served, and warnings, in the order found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    pub(super) fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn examine<'a>(
        &mut self,
        topology: &Topology,
        answers: impl Iterator<Item = (&'a Address, &'a Probe)>,
    ) {
        let mut versions = BTreeSet::new();
        let mut ruled = Vec::new();
        for (address, answer) in answers {
            ruled.extend(answer.rules_cluster.then_some(address));
            self.examine_answer(topology, address, answer);
            versions.insert(answer.version.as_str());
        }
        if versions.len() > 1 {
            let versions: Vec<_> = versions.into_iter().collect();
            self.warn(format!("the nodes have different versions: {}", versions.join(", ")));
        }
        if let Some(first) = ruled.first() {
            let others = match ruled.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} others"),
            };
            self.warn(format!(
                "{first}{others}: the user that Portico logs in as may change the cluster, and so may a script of a client \
                 whose commands Portico cannot read: ACL SETUSER {USER_RIGHTS}"
            ));
        }
        self.examine_cluster(topology);
    }

    fn examine_answer(&mut self, topology: &Topology, address: &Address, answer: &Probe) {
        if answer.state != "ok" {
            self.error(format!("{address}: cluster_state is {}", answer.state));
        }
        for refused in &answer.refused {
            self.warn(format!("{address}: {refused}"));
        }
        let differing = disagreement(topology, &answer.view);
        if !differing.is_empty() {
            self.warn(format!("{address}: sees other owners of slots {}", ranges(&differing)));
        }
    }

    fn examine_cluster(&mut self, topology: &Topology) {
        let uncovered = slots(|slot| topology.owner(slot).is_none());
        if !uncovered.is_empty() {
            self.error(format!("nobody serves slots {}", ranges(&uncovered)));
        }
        for &master in topology.masters() {
            let node = topology.node(master);
            if node.failed {
                self.error(format!("{}: a master that has failed", node.address));
            } else if !topology.replicas_of(master).any(|replica| !topology.node(replica).failed) {
                self.warn(format!("{}: a master without a replica", node.address));
            }
        }
        for node in topology.nodes().iter().filter(|node| node.failed && !node.is_master()) {
            self.warn(format!("{}: a replica that has failed", node.address));
        }
        for node in topology.nodes().iter().filter(|node| node.suspected) {
            self.warn(format!("{}: others hold it for failed", node.address));
        }
        let open: Vec<_> = topology.open_slots().iter().map(|open| open.slot).collect();
        if !open.is_empty() {
            self.warn(format!("slots on the move: {}", ranges(&open)));
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errors.iter().try_for_each(|text| writeln!(f, "error: {text}"))?;
        self.warnings.iter().try_for_each(|text| writeln!(f, "warning: {text}"))
    }
}

/// The slots whose owner in this view is not the agreed one.
fn disagreement(topology: &Topology, view: &View) -> Vec<u16> {
    let mut owners: Vec<Option<NodeId>> = vec![None; usize::from(SLOT_COUNT)];
    for line in &view.lines {
        for slot in line.slots.iter().cloned().flatten() {
            if let Some(owner) = owners.get_mut(usize::from(slot)) {
                *owner = Some(line.id);
            }
        }
    }
    let agreed = |slot| topology.owner(slot).map(|owner| topology.node(owner).id);
    slots(|slot| owners[usize::from(slot)] != agreed(slot))
}
