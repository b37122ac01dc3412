//! The cluster as it is now: a snapshot that all workers share, and the refresher that keeps it true.

mod chronicle;
mod control;
mod refresher;
mod snapshot;
mod trouble;
mod version;

pub use refresher::{RefreshRequests, Refresher};
pub use snapshot::{Cluster, SharedCluster};
pub use trouble::Trouble;
pub use version::{Identity, Module, Origin, is_served, not_served};
