//! A transaction that is being queued, and one that is being run group by group.

use std::ops::Range;

use portico_slots::Slot;

use crate::backend::ClientKey;
use crate::plan::{Plan, Step};

/// What MULTI began.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The queued requests, back to back.
    pub requests: Vec<u8>,
    /// Where each of them lies.
    pub ranges: Vec<Range<usize>>,
    /// One of them calls a script.
    pub scripts: bool,
    /// With the keys that a script names without declaring them, for a transaction that has no others.
    pub home: Option<Slot>,
    /// How it is to be run, once EXEC has looked at it.
    pub plan: Option<Plan>,
    /// One was refused: EXEC discards all.
    pub aborted: bool,
}

/// A transaction that is run step by step.
#[derive(Debug)]
pub struct Exec {
    /// Who waits for it.
    pub owner: ClientKey,
    /// Its EXEC.
    pub seq: u32,
    /// What was queued.
    pub transaction: Transaction,
    /// The steps, in the order in which they are run.
    pub steps: Vec<Step>,
    /// How many were begun.
    pub begun: usize,
    /// The reply to each command, once known.
    pub replies: Vec<Option<Vec<u8>>>,
}
