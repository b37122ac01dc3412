//! Publish and subscribe, without connections: who listens to what, which node each message is taken from, what has to
//! be subscribed there, and how many hear a message.

mod frames;
mod glob;
mod hub;
mod monitor;
mod registry;
mod sources;
mod subscriptions;

use std::sync::Arc;

pub use frames::{Heard, Told, confirmation, in_resp2, none_left};
pub use glob::matches;
pub use hub::{Hub, Order, World};
pub use monitor::{OwnAddresses, monitor_line};
pub use registry::Registry;
pub use subscriptions::Subscriptions;

/// What is subscribed to: a channel's name or a pattern.
pub type Name = Arc<[u8]>;

/// The kinds of subscriptions. Their names are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    /// Its place in a list of all.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What begins it, in a request and in its confirmation.
    #[must_use]
    pub const fn join(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    /// What ends it.
    #[must_use]
    pub const fn leave(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

/// Whether a channel is one of those on which a node tells of what happens to its keys. What it tells does not leave the
/// node, and is taken from each master. What a client publishes there reaches every node like any other message, which
/// cannot be told from that: it is heard once from each master.
#[must_use]
pub fn is_of_keyspace(channel: &[u8]) -> bool {
    channel.starts_with(b"__keyspace@") || channel.starts_with(b"__keyevent@")
}
