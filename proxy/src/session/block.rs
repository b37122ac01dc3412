//! A request that waits for something that may never come: BLPOP, XREAD BLOCK, WAIT.

use std::time::Instant;

use portico_slots::Slot;

use crate::plan::{Patience, Timeout};

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
    /// When it began.
    pub began: Instant,
    /// Until when it is known to have waited at a node, if that is over.
    pub waited: Option<Instant>,
    /// A connection was lost on which it waited: it may have taken something that nobody was told.
    pub in_doubt: bool,
    /// Its client has sent its last byte: it is told what is there at once, and else closed.
    pub left: bool,
}

impl Block {
    /// The request for the time that is left. None: it is not asked again.
    #[must_use]
    pub fn again(&self, now: Instant) -> Option<Vec<u8>> {
        let left = |deadline: Instant| Patience::For(deadline.saturating_duration_since(now));
        let known: Vec<_> =
            self.ends.iter().filter_map(|(at, end)| Some((*at, end.as_ref()?.clone()))).collect();
        let left = self.deadline.map_or(Patience::AsSaid, left);
        Some(self.timeout?.rewrite(&self.request, left, &known))
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}
