//! What one client is subscribed to.

use std::collections::HashSet;

use super::{Kind, Name};

/// A client's subscriptions, by kind.
#[derive(Debug, Default)]
pub struct Subscriptions([HashSet<Name>; 3]);

impl Subscriptions {
    /// Adds one; returns whether it is new.
    pub fn add(&mut self, kind: Kind, name: Name) -> bool {
        self.0[kind.index()].insert(name)
    }

    /// Takes one out; returns whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        self.0[kind.index()].remove(name)
    }

    /// How many of a kind.
    #[must_use]
    pub fn len(&self, kind: Kind) -> usize {
        self.0[kind.index()].len()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(HashSet::is_empty)
    }

    /// The number that a confirmation tells: of channels and patterns together, or of sharded channels.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.len(Kind::Channel) + self.len(Kind::Pattern),
            Kind::Shard => self.len(Kind::Shard),
        }
    }

    /// Those of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        self.0[kind.index()].iter()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Kind, &Name)> {
        Kind::ALL.into_iter().flat_map(|kind| self.of(kind).map(move |name| (kind, name)))
    }
}
