//! Looking at names again after the cluster or a connection has changed: those that this can concern, a few at a time.

use std::collections::HashSet;

use portico_slots::NodeId;

use super::{Hub, Kind, Name, Order, World};

/// Names that are still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// By kind, the place up to which they are: what comes later was looked at, or was added since.
    left: [usize; 3],
    /// Names that a node refused, to be asked for again in their time.
    postponed: Vec<(Kind, Name)>,
    /// The nodes at which patterns were subscribed when they were looked at.
    everywhere: Vec<NodeId>,
}

impl Walk {
    pub(super) fn postponed(&mut self, kind: Kind, name: Name) {
        self.postponed.push((kind, name));
    }
}

impl Hub {
    /// All names of these kinds are to be looked at.
    pub(super) fn doubt(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.walk.left[kind.index()] = self.topics[kind.index()].len();
        }
    }

    /// Another map is in force: sharded channels follow their slots.
    pub fn map_changed(&mut self) {
        self.doubt(&[Kind::Shard]);
    }

    /// Whether names are still to be looked at.
    #[must_use]
    pub fn is_walking(&self) -> bool {
        self.walk.left.iter().any(|left| *left > 0)
    }

    /// Sources have changed, perhaps, or a node was or is being lost.
    pub(super) fn note_changes(&mut self, sources: bool, unsettled: bool, world: &World<'_>) {
        if sources {
            self.doubt(&[Kind::Channel]);
        }
        if unsettled && !self.is_walking() {
            self.doubt(&[Kind::Shard]);
        }
        if self.everywhere > 0 {
            let nodes = self.everywhere(world);
            if nodes != self.walk.everywhere {
                self.walk.everywhere = nodes;
                self.doubt(&[Kind::Channel, Kind::Pattern]);
            }
        }
    }

    /// Looks at the next names, so many at most. Returns what has to be sent so that they are subscribed where they have
    /// to be, and whether there are more, now or later.
    pub fn walk(&mut self, world: &World<'_>, most: usize) -> (Vec<Order>, bool) {
        let mut orders = Vec::new();
        let mut looked_at = 0;
        for kind in Kind::ALL {
            // From the end: a name that takes the place of one that is removed comes from there.
            while looked_at < most && self.walk.left[kind.index()] > 0 {
                let topics = &self.topics[kind.index()];
                let at = (self.walk.left[kind.index()] - 1).min(topics.len().saturating_sub(1));
                let name = topics.get_index(at).map(|(name, _)| Name::clone(name));
                self.walk.left[kind.index()] = at;
                looked_at += 1;
                if let Some(name) = name {
                    self.reconcile(kind, &name, world, &mut orders);
                }
            }
        }
        let mut postponed = std::mem::take(&mut self.walk.postponed);
        postponed.retain(|(kind, name)| {
            let topic = self.topics[kind.index()].get(name);
            let later = topic.and_then(|topic| topic.not_before).is_some_and(|time| time > world.now);
            if !later {
                self.reconcile(*kind, name, world, &mut orders);
            }
            later
        });
        self.walk.postponed = postponed;
        let more = self.is_walking() || !self.walk.postponed.is_empty();
        (orders, more)
    }

    /// Nodes to which a connection is needed.
    #[must_use]
    pub fn needed(&self, world: &World<'_>) -> HashSet<NodeId> {
        let mut needed = HashSet::new();
        let mut replicas = false;
        for kind in [Kind::Channel, Kind::Shard] {
            let mut last = None;
            for slot in
                (0..).zip(&self.slots[kind.index()]).filter(|(_, names)| **names > 0).map(|(slot, _)| slot)
            {
                if kind == Kind::Shard && self.has_replica(slot, world) {
                    replicas = true; // each name stays with one, or does not
                    continue;
                }
                let home = match kind {
                    Kind::Shard => world.owner(slot),
                    _ => self.sources.of(slot),
                };
                if home != last {
                    last = home;
                    needed.extend(home);
                }
            }
        }
        if replicas {
            let shards = self.topics[Kind::Shard.index()].iter();
            needed.extend(shards.flat_map(|(name, topic)| self.homes(Kind::Shard, name, topic, world)));
        }
        if self.everywhere > 0 {
            needed.extend(self.everywhere(world));
        }
        needed
    }
}
