//! Clients that know what they are owed, and what is done to a cluster under them.

mod check;
mod client;
mod crew;
mod errors;
mod faults;
mod model;
mod operate;
mod place;
mod run;
mod witness;

pub use check::{Direct, check, check_key};
pub use client::{Plan, Settings};
pub use crew::side_by_side;
pub use errors::ErrorWords;
pub use faults::{
    NODE_TIMEOUT, cut_connections, failing_over, to_and_fro, to_and_fro_resting, wait_until_master,
};
pub use model::{Fate, Key, Kind, Losses};
pub use operate::{SlotMove, error_count, fail_over, hand_over, master_index, open_slot, wait_until};
pub use place::{Shard, key_in_slot, shards, tags_in};
pub use run::{Finished, Load, Outcome};
pub use witness::Witness;
