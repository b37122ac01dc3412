//! Where a key lives: hash tags, slots, CLUSTER NODES, immutable topology snapshots, what changed between two.
//!
//! Pure: no sockets, no clock, no threads. The refresher in the proxy asks nodes, [`parse`]s what they say,
//! [`merge()`]s the [`View`]s to one [`Topology`] and publishes that; [`diff()`] tells what it has to act on.

mod address;
mod claims;
mod cluster_nodes;
mod diff;
mod key;
mod merge;
mod node;
#[cfg(test)]
mod testing;
mod topology;
mod trust;

pub use address::{Address, AddressError};
pub use cluster_nodes::{Flags, Line, ParseError, View, parse};
pub use diff::{Changes, describe_slots, diff};
pub use key::{SLOT_COUNT, Slot, hash_tag, slot};
pub use merge::{MergeError, merge};
pub use node::{Node, NodeId, NodeIdError, Role};
pub use topology::{NodeIndex, OpenSlot, Topology};
