//! Where keys lie: names made for a slot, and who owned what when a test began.

use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use portico::sandbox::Cluster;
use portico_slots::{SLOT_COUNT, slot};

/// One master's slots as a fresh sandbox cluster shares them out: master `index` of `masters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The master's index in the cluster.
    pub index: usize,
    /// Its slots.
    pub slots: RangeInclusive<u16>,
}

/// The shards of a fresh cluster.
///
/// # Errors
/// There are more masters than slots.
pub fn shards(cluster: &Cluster, masters: usize) -> Result<Vec<Shard>> {
    cluster.nodes().get(masters - 1).context("too few nodes")?;
    let before = |index: usize| u16::try_from(index * usize::from(SLOT_COUNT) / masters);
    (0..masters).map(|index| Ok(Shard { index, slots: before(index)?..=before(index + 1)? - 1 })).collect()
}

/// `count` hash tags whose slots lie evenly over `slots`, none twice for different `salt`.
#[must_use]
pub fn tags_in(slots: &RangeInclusive<u16>, count: usize, salt: &str) -> Vec<String> {
    let width = usize::from(slots.end() - slots.start()) + 1;
    let place = |index: usize| *slots.start() + u16::try_from(width * index / count).unwrap_or_default();
    (0..count).map(|index| key_in_slot(place(index), &format!("{salt}{index}"))).collect()
}

/// A name that lies in `slot`; different for different `salt`.
#[must_use]
pub fn key_in_slot(wanted: u16, salt: &str) -> String {
    let mut names = (0u32..).map(|number| format!("{salt}.{number}"));
    names.find(|name| slot(name.as_bytes()) == wanted).unwrap_or_default()
}
