//! Who in the whole process listens to what, and what its workers have subscribed at which node: with that, a node's
//! count of those that heard a message becomes the count of clients.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use portico_slots::NodeId;

use super::{Kind, Name, matches};

/// What is known of one channel or pattern.
#[derive(Debug, Default)]
struct Count {
    clients: usize,
    /// Connections of Portico's that are subscribed to it, by node.
    upstreams: Vec<(NodeId, usize)>,
}

impl Count {
    fn is_empty(&self) -> bool {
        self.clients == 0 && self.upstreams.is_empty()
    }

    fn at(&self, node: NodeId) -> usize {
        self.upstreams.iter().find(|(at, _)| *at == node).map_or(0, |(_, count)| *count)
    }

    fn upstreams(&self) -> usize {
        self.upstreams.iter().map(|(_, count)| count).sum()
    }
}

/// All subscriptions of the process. Workers change it when a client comes or goes, never for a message.
#[derive(Debug, Default)]
pub struct Registry {
    topics: [DashMap<Name, Count>; 3],
    /// How many names there are in all.
    names: AtomicUsize,
}

impl Registry {
    /// Whether anything has to be counted at all.
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.names.load(Ordering::Relaxed) > 0
    }

    /// A client began to listen, or stopped.
    pub fn client(&self, kind: Kind, name: &Name, listens: bool) {
        self.change(kind, name, |count| {
            count.clients = if listens { count.clients + 1 } else { count.clients.saturating_sub(1) };
        });
    }

    /// A connection to a node was subscribed, or no longer is.
    pub fn upstream(&self, kind: Kind, name: &Name, node: NodeId, subscribed: bool) {
        self.change(kind, name, |count| {
            let at = count.upstreams.iter().position(|(at, _)| *at == node);
            match (at, subscribed) {
                (Some(at), true) => count.upstreams[at].1 += 1,
                (None, true) => count.upstreams.push((node, 1)),
                (Some(at), false) if count.upstreams[at].1 > 1 => count.upstreams[at].1 -= 1,
                (Some(at), false) => drop(count.upstreams.swap_remove(at)),
                (None, false) => {}
            }
        });
    }

    fn change(&self, kind: Kind, name: &Name, change: impl FnOnce(&mut Count)) {
        match self.topics[kind.index()].entry(Name::clone(name)) {
            Entry::Occupied(mut entry) => {
                change(entry.get_mut());
                if entry.get().is_empty() {
                    entry.remove();
                    self.names.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Entry::Vacant(entry) => {
                let mut count = Count::default();
                change(&mut count);
                if !count.is_empty() {
                    entry.insert(count);
                    self.names.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// How many heard a message: `told` is what its node said, which counts Portico's connections in place of their
    /// clients.
    #[must_use]
    pub fn receivers(&self, kind: Kind, channel: &[u8], node: NodeId, told: i64) -> i64 {
        let (mut clients, mut upstreams) = (0, 0);
        let mut add = |count: &Count| {
            clients += count.clients;
            upstreams += count.at(node);
        };
        if let Some(count) = self.topics[kind.index()].get(channel) {
            add(&count);
        }
        if kind == Kind::Channel {
            let patterns = self.topics[Kind::Pattern.index()].iter();
            patterns.filter(|pattern| matches(pattern.key(), channel)).for_each(|pattern| add(&pattern));
        }
        (told - upstreams as i64).max(0) + clients as i64
    }

    /// Subscribers of a channel: `told` is what the nodes say together.
    #[must_use]
    pub fn subscribers(&self, kind: Kind, channel: &[u8], told: i64) -> i64 {
        let count = self.topics[kind.index()].get(channel);
        let (clients, upstreams) =
            count.map_or((0, 0), |count| (count.clients as i64, count.upstreams() as i64));
        (told - upstreams).max(0) + clients
    }

    /// Names that clients listen to.
    #[must_use]
    pub fn listened(&self, kind: Kind) -> Vec<Name> {
        let topics = self.topics[kind.index()].iter();
        topics.filter(|topic| topic.clients > 0).map(|topic| Name::clone(topic.key())).collect()
    }

    /// How many names of a kind clients listen to.
    #[must_use]
    pub fn len(&self, kind: Kind) -> usize {
        self.topics[kind.index()].iter().filter(|topic| topic.clients > 0).count()
    }

    /// How many names of a kind are subscribed at a node.
    #[must_use]
    pub fn len_at(&self, kind: Kind, node: NodeId) -> usize {
        self.topics[kind.index()].iter().filter(|topic| topic.at(node) > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        format!("{number:040}").parse().expect("forty digits are an id")
    }

    fn name(text: &str) -> Name {
        text.as_bytes().into()
    }

    #[test]
    fn clients_are_counted_in_place_of_their_connections() {
        let registry = Registry::default();
        assert!(!registry.is_used());
        for _ in 0..3 {
            registry.client(Kind::Channel, &name("ch"), true);
        }
        registry.client(Kind::Pattern, &name("c*"), true);
        registry.upstream(Kind::Channel, &name("ch"), node(1), true);
        registry.upstream(Kind::Pattern, &name("c*"), node(1), true);
        registry.upstream(Kind::Pattern, &name("c*"), node(2), true);
        // Two connections of ours and one of somebody else's.
        assert_eq!(registry.receivers(Kind::Channel, b"ch", node(1), 3), 5);
        assert_eq!(registry.receivers(Kind::Channel, b"cx", node(2), 1), 1);
        assert_eq!(registry.receivers(Kind::Channel, b"other", node(1), 7), 7);
        assert_eq!(registry.receivers(Kind::Shard, b"ch", node(1), 1), 1);
        assert_eq!(registry.subscribers(Kind::Channel, b"ch", 2), 4);
        assert_eq!((registry.len(Kind::Pattern), registry.len_at(Kind::Pattern, node(2))), (1, 1));
    }

    #[test]
    fn nothing_stays_when_all_have_gone() {
        let registry = Registry::default();
        registry.client(Kind::Shard, &name("ch"), true);
        registry.upstream(Kind::Shard, &name("ch"), node(1), true);
        registry.client(Kind::Shard, &name("ch"), false);
        assert!(registry.is_used());
        registry.upstream(Kind::Shard, &name("ch"), node(1), false);
        assert!(!registry.is_used());
        registry.upstream(Kind::Shard, &name("ch"), node(1), false);
        assert!(!registry.is_used());
    }
}
