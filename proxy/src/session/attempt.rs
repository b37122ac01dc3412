//! A request that was redirected or never run, until it is sent again; and the one that was.

use std::time::Instant;

use portico_slots::{Address, Slot};

use crate::backend::{InFlight, RequestFlags};

/// Where a request is to go next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To its slot's owner, whoever that is by then.
    Owner,
    /// To the node that a redirect named, by its reachable address.
    Node(Address),
    /// The same, after ASKING.
    Asking(Address),
}

/// A request that waits to be sent again.
#[derive(Debug)]
pub struct Parked {
    /// As it was in flight.
    pub entry: InFlight,
    /// Its bytes.
    pub request: Vec<u8>,
    /// Where it goes.
    pub target: Target,
    /// How often it was sent elsewhere.
    pub hops: u32,
    /// When it was first refused or lost.
    pub since: Instant,
    /// Not to be sent before.
    pub not_before: Instant,
}

impl Parked {
    /// Whether it may call a script by its SHA1.
    #[must_use]
    pub fn calls_script(&self) -> bool {
        let flags = self.entry.flags;
        flags.has(RequestFlags::SCRIPT) || flags.has(RequestFlags::TRANSACTION)
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.entry.slot
    }
}

/// The request that was sent again and is in flight.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its number.
    pub seq: u32,
    /// Its part.
    pub part: u32,
    /// How often it was sent elsewhere.
    pub hops: u32,
    /// When it was first refused or lost.
    pub since: Instant,
}
