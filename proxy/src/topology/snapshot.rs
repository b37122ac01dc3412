//! What every worker knows of the cluster: one immutable snapshot, replaced as a whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portico_slots::{Address, NodeIndex, Topology};

use super::Identity;
use crate::command::Table;

/// The snapshot that is in force, for all workers.
pub type SharedCluster = ArcSwap<Cluster>;

/// The cluster as the refresher last saw it.
#[derive(Debug)]
pub struct Cluster {
    /// Nodes, slots and their owners.
    pub topology: Topology,
    /// Where to connect, by node number; `None` while a hostname does not resolve.
    pub sockets: Vec<Option<SocketAddr>>,
    /// `redis_version` of the masters; the lowest of those that live while they differ.
    pub version: Arc<str>,
    /// What the nodes are, by their own name and version.
    pub identity: Arc<Identity>,
    /// Portico's commands and those learned from the nodes.
    pub table: Arc<Table>,
    /// An idle connection is pinged this often, so that the nodes' `timeout` does not close it.
    pub ping_interval: Duration,
}

impl Cluster {
    /// Before anything is known.
    #[must_use]
    pub fn unknown(table: Arc<Table>) -> Self {
        Self {
            topology: Topology::empty(),
            sockets: Vec::new(),
            version: "7.0.0".into(),
            identity: Arc::new(Identity::redis("7.0.0")),
            table,
            ping_interval: Duration::from_secs(10),
        }
    }

    /// The node that a redirect names, by its reachable address.
    #[must_use]
    pub fn find(&self, address: &Address) -> Option<NodeIndex> {
        self.topology.find(address)
    }
}
