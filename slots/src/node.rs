//! A node of the cluster: its id, its address, its role, its health.

use crate::Address;
use std::fmt;
use std::str::FromStr;

/// Length of a node id, in characters (`CLUSTER_NAMELEN`).
const LENGTH: usize = 40;

/// A node's name for life: 40 characters, in practice lower-case hex. Copied freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; LENGTH]);

/// A text that is no node id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a node id: expected 40 characters, lower-case letters and digits")]
pub struct NodeIdError;

impl NodeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("from_str lets only ASCII in")
    }

    /// Its first eight characters: enough for people to tell nodes apart in a log.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.as_str()[..8]
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    /// Accepts what Redis' own `verifyClusterNodeId` accepts, which is more than hex.
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let bytes: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| NodeIdError)?;
        let valid = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if valid { Ok(Self(bytes)) } else { Err(NodeIdError) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node is in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Owns slots, or may.
    Master,
    /// Follows a master.
    Replica {
        /// The master, which a snapshot need not know (it may have been removed).
        of: NodeId,
    },
}

/// A node as a snapshot knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name for life.
    pub id: NodeId,
    /// Where Portico reaches it (after the node-address map).
    pub address: Address,
    /// Master or replica.
    pub role: Role,
    /// The highest config epoch that any node reports for it (of a replica: its master's, from Redis 6 on).
    pub config_epoch: u64,
    /// Most nodes say `fail`: it is agreed to be down.
    pub failed: bool,
    /// Most nodes say `fail?` or `fail`, but not most say `fail`: it is believed to be down.
    pub suspected: bool,
    /// At least half of the other nodes that were asked have their cluster-bus link to it up.
    pub connected: bool,
    /// INFO's `run_id`, which changes with every start of the process. Not in CLUSTER NODES: the caller adds it
    /// with [`crate::Topology::with_run_ids`].
    pub run_id: Option<String>,
}

impl Node {
    /// Whether it is a master, with or without slots.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.role == Role::Master
    }

    /// What tells its process from the next that is started for the same node: the run id, or the node's id while that
    /// is not known.
    #[must_use]
    pub fn process(&self) -> &str {
        self.run_id.as_deref().unwrap_or_else(|| self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let text = "07c37dfeb235213a872192d90877d0cd55635b91";
        let id: NodeId = text.parse().expect("a real id");
        assert_eq!(id.to_string(), text);
        assert_eq!(id.short(), "07c37dfe");
        for bad in ["", "07c3", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(20)] {
            assert_eq!(bad.parse::<NodeId>(), Err(NodeIdError), "{bad}");
        }
    }
}
