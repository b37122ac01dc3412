//! A request that waits for something that may never come: BLPOP, XREAD BLOCK, WAIT.

use std::time::Instant;

use portico_slots::Slot;

use crate::plan::Timeout;

/// How a blocked client is to be unblocked, as another one asked by CLIENT UNBLOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
}

/// What is known of a blocked client's request.
#[derive(Clone, Debug)]
pub struct Block {
    /// The command.
    pub name: &'static str,
    /// The request, as the client sent it.
    pub request: Vec<u8>,
    /// Where it says how long it waits. None: WAIT, which is not asked again.
    pub timeout: Option<Timeout>,
    /// When it is answered with nothing; never if none.
    pub deadline: Option<Instant>,
    /// The slot of its keys.
    pub slot: Slot,
    /// Streams that are read from their end: the argument's place, and where the end was, once known.
    pub ends: Vec<(usize, Option<Vec<u8>>)>,
    /// Another client had it unblocked.
    pub unblocked: Option<Unblock>,
    /// When it was last asked whether it still waits at the right place.
    pub looked: Instant,
}
