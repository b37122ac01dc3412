//! What lasts from one request to the next: a transaction, watched keys, subscriptions. Most clients have none.

use std::collections::VecDeque;
use std::time::Instant;

use portico_slots::Slot;

use super::{Block, Caching, Task, Tracking, Transaction};
use crate::backend::ClientKey;
use crate::pubsub::{Kind, Name, Subscriptions};

/// A SUBSCRIBE (or the like) that waits until the nodes have confirmed it.
#[derive(Debug)]
pub struct Subscribing {
    /// The request.
    pub seq: u32,
    /// What kind of names.
    pub kind: Kind,
    /// The names, as often as they were given.
    pub names: Vec<Name>,
    /// How many of them, from the first, the nodes were seen to have confirmed.
    pub established: usize,
    /// Who will listen: somebody else than who asks, if that is an agent.
    pub listener: ClientKey,
    /// Since when it waits.
    pub since: Instant,
}

/// What a client has beyond who it is.
#[derive(Debug, Default)]
pub struct Standing {
    /// What MULTI began.
    pub transaction: Transaction,
    /// The slots of the keys that it watches.
    pub watched: Vec<Slot>,
    /// A connection on which keys are watched was lost or redirected: EXEC answers nil.
    pub watch_broken: bool,
    /// Stops watching once it was answered.
    pub leaving: bool,
    /// An agent's: the number of the client that it acts for.
    pub acts_for: Option<u64>,
    /// An agent's: where a transaction without keys goes.
    pub home: Option<Slot>,
    /// What it is blocked in.
    pub block: Option<Block>,
    /// What it is told of the keys that it may have cached.
    pub tracking: Option<Box<Tracking>>,
    /// What it said of the next command's keys.
    pub caching: Option<Caching>,
    /// Others have what they are told of keys told to it: it stays with its worker.
    pub hears: bool,
    /// What an agent does.
    pub task: Option<Task>,
    /// A CLIENT REPLY ON was in its EXEC: how many bytes of items before that are not told.
    pub unsaid: Option<usize>,
    /// An agent's: the same client.
    pub owner: Option<ClientKey>,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
    /// What it is being subscribed to.
    pub subscribing: VecDeque<Subscribing>,
    /// A MONITOR that waits until the nodes have confirmed it, and since when.
    pub monitoring: Option<(u32, Instant)>,
    /// What MONITOR tells of its EXEC, once it is known whether what was queued has run: that, and EXEC itself.
    pub shown: Option<(Vec<u8>, Vec<u8>)>,
    /// What it is told without having asked, while a reply is not through.
    pub held: Vec<u8>,
    /// Since when it holds more than the soft limit.
    pub soft_since: Option<Instant>,
}
