//! A request too large to keep, until its last byte was passed on.

use std::time::Instant;

use portico_resp::RequestStream;
use portico_slots::{Address, Slot};

use crate::backend::{LinkKey, RequestFlags};
use crate::scripts::Sha;

/// How far a large request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection yet, or not to be asked before this time.
    Waiting(Instant),
    /// The slot's owner is being asked.
    Probing,
    /// The body goes through.
    Streaming,
    /// It was refused: the rest is read and thrown away.
    Discarding,
}

/// A request whose body is not kept.
#[derive(Debug)]
pub struct Upload {
    /// The slot of its keys.
    pub slot: Slot,
    /// Its first key.
    pub key: Vec<u8>,
    /// The request up to the large argument's body.
    pub head: Vec<u8>,
    /// Finds its end.
    pub stream: RequestStream,
    /// The script that it calls by its SHA1.
    pub script: Option<Sha>,
    /// What it is.
    pub flags: RequestFlags,
    /// How far it has come.
    pub stage: Stage,
    /// The connection of its own.
    pub link: Option<LinkKey>,
    /// The node that an ASK named.
    pub asking: Option<Address>,
    /// How often it was sent elsewhere.
    pub hops: u32,
    /// When it began.
    pub since: Instant,
}
