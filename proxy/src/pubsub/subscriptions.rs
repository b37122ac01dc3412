//! What one client is subscribed to.

use indexmap::IndexSet;

use super::{Kind, Name};

/// A client's subscriptions, by kind. The sets keep what they have hashed: a million names are not hashed anew at once
/// when a set grows.
#[derive(Debug, Default)]
pub struct Subscriptions([IndexSet<Name>; 3]);

impl Subscriptions {
    /// Adds one; returns whether it is new.
    pub fn add(&mut self, kind: Kind, name: Name) -> bool {
        self.0[kind.index()].insert(name)
    }

    /// Takes one out; returns whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        self.0[kind.index()].swap_remove(name)
    }

    /// How many of a kind.
    #[must_use]
    pub fn len(&self, kind: Kind) -> usize {
        self.0[kind.index()].len()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(IndexSet::is_empty)
    }

    /// Whether there are more than are dealt with at once.
    #[must_use]
    pub fn is_many(&self) -> bool {
        self.0.iter().map(IndexSet::len).sum::<usize>() > 500
    }

    /// All of them, one after another.
    pub fn into_all(self) -> impl Iterator<Item = (Kind, Name)> {
        Kind::ALL
            .into_iter()
            .zip(self.0)
            .flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)))
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
