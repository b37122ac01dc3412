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
    OF_KEYSPACE.iter().any(|begin| channel.starts_with(begin))
}

const OF_KEYSPACE: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

/// Whether a pattern may match such a channel, as far as its constant beginning tells.
#[must_use]
pub fn may_be_of_keyspace(pattern: &[u8]) -> bool {
    let constant = pattern.iter().take_while(|byte| !b"*?[\\".contains(byte)).count();
    let constant = &pattern[..constant];
    OF_KEYSPACE.iter().any(|begin| begin.starts_with(constant) || constant.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::may_be_of_keyspace;

    #[test]
    fn patterns_that_may_hear_of_keys_are_known_by_their_beginning() {
        for pattern in ["*", "__key*", "__keyevent@0__:*", "_?keyspace@*", "[_]*", "__keyspace@\\*"] {
            assert!(may_be_of_keyspace(pattern.as_bytes()), "{pattern}");
        }
        for pattern in ["news.*", "__keyx*", "k*", "__keys-*"] {
            assert!(!may_be_of_keyspace(pattern.as_bytes()), "{pattern}");
        }
    }
}
