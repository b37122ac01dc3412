//! PUBSUB CHANNELS, NUMSUB and NUMPAT: who listens, in the whole cluster.

use std::collections::BTreeSet;

use portico_resp::{Items, bulk_reply, encode, integer_reply};
use portico_slots::{NodeId, NodeIndex, Slot};

use super::Engine;
use super::fan::Audience;
use crate::backend::{ClientKey, InFlight};
use crate::plan::Parts;
use crate::pubsub::{Kind, matches};
use crate::session::{FanKind, Who};
use crate::topology::Cluster;

impl Engine {
    /// The nodes that can be asked who listens, as [`Engine::fan_prefixed`] asks them.
    pub(super) fn living_nodes(&self, key: ClientKey, cluster: &Cluster) -> Vec<NodeId> {
        let mut nodes = Audience::Nodes.members(cluster);
        self.keep_living(key, &mut nodes);
        nodes.into_iter().map(|(node, _)| cluster.topology.node(node).id).collect()
    }

    /// Leaves out the nodes that do not answer: who listens there is not connected to anything.
    pub(super) fn keep_living(&self, key: ClientKey, nodes: &mut Vec<(NodeIndex, Slot)>) {
        if let Some(lane) = self.clients.get(key).map(|client| client.lane) {
            nodes.retain(|&(node, _)| self.may_answer(lane, node));
        }
    }

    /// Whether a part belongs to the question who listens.
    pub(super) fn is_about_listeners(&mut self, part: &InFlight) -> bool {
        self.fan_of(part.client, part.seq).is_some_and(|fan| matches!(fan.kind, FanKind::PubSub(..)))
    }

    /// One reply from those of all nodes: Portico's connections taken out, its clients put in.
    pub(super) fn tell_who(&self, parts: &Parts, who: &Who, pattern: Option<&[u8]>, out: &mut Vec<u8>) {
        let registry = &self.shared.pubsub;
        match who {
            &Who::Channels(kind) => {
                let own = registry.listened(kind);
                let matching = own.iter().map(|name| &**name);
                let mut names: BTreeSet<&[u8]> =
                    matching.filter(|name| pattern.is_none_or(|pattern| matches(pattern, name))).collect();
                let told = parts.iter().filter_map(Items::new).flatten().filter_map(bulk_reply);
                names.extend(told);
                encode::array_header(out, names.len());
                names.iter().for_each(|name| encode::bulk(out, name));
            }
            &Who::Subscribers(kind) => {
                let mut totals: Vec<(&[u8], i64)> = Vec::new();
                for reply in parts.iter() {
                    let first = totals.is_empty();
                    let items: Vec<&[u8]> = Items::new(reply).into_iter().flatten().collect();
                    for (at, [name, count]) in items.as_chunks::<2>().0.iter().enumerate() {
                        let count = integer_reply(count).unwrap_or(0);
                        if first {
                            totals.push((bulk_reply(name).unwrap_or_default(), count));
                        } else if let Some((_, total)) = totals.get_mut(at) {
                            *total += count;
                        }
                    }
                }
                encode::array_header(out, totals.len() * 2);
                for (name, total) in totals {
                    encode::bulk(out, name);
                    encode::integer(out, registry.subscribers(kind, name, total));
                }
            }
            Who::Patterns(nodes) => {
                // How many there are is told, not which: of others' patterns, those of the node that has most.
                let others = parts.iter().zip(nodes).map(|(reply, &node)| {
                    integer_reply(reply).unwrap_or(0) - registry.len_at(Kind::Pattern, node) as i64
                });
                let others = others.max().unwrap_or(0).max(0);
                encode::integer(out, others + registry.len(Kind::Pattern) as i64);
            }
        }
    }
}
