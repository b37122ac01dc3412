//! Names of connections within a worker.

use portico_resp::Protocol;

slotmap::new_key_type! {
    /// Names a client within its worker; a reused place gets a new key.
    pub struct ClientKey;
    /// Names a connection to a node within its worker; a reused place gets a new key.
    pub struct LinkKey;
}

/// Names a set of connections within a worker, at most one to a node: the way that a client's requests take.
///
/// Everybody shares the first two; the next three are Portico's own; the others are leased to one client at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u16);

impl Lane {
    /// Portico's own questions, which no client's request can hold up (SCRIPT KILL, CLIENT UNBLOCK).
    pub const CONTROL: Self = Self(2);
    /// What clients subscribe to.
    pub const HUB: Self = Self(3);
    /// What MONITOR tells.
    pub const MONITOR: Self = Self(4);

    /// The one that clients share who have no other.
    #[inline]
    #[must_use]
    pub const fn shared(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Resp2 => Self(0),
            Protocol::Resp3 => Self(1),
        }
    }

    /// Whether it is leased to one client.
    #[inline]
    #[must_use]
    pub const fn is_leased(self) -> bool {
        self.0 > Self::MONITOR.0
    }

    /// Whether nodes speak on it without being asked.
    #[must_use]
    pub const fn listens(self) -> bool {
        self.0 == Self::HUB.0 || self.0 == Self::MONITOR.0
    }

    /// Its place in a list of all.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
