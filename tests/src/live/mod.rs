//! Clients that know what they are owed, and what is done to a cluster under them.

mod check;
mod client;
mod model;
mod operate;
mod place;
mod run;

pub use check::{Direct, check};
pub use client::{Plan, Settings};
pub use model::{Key, Kind, Losses};
pub use operate::{SlotMove, error_count, fail_over, master_index, wait_until};
pub use place::{Shard, key_in_slot, shards, tags_in};
pub use run::{Finished, Load, Outcome};
