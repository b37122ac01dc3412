//! What an agent is doing, between two of its steps.

use super::Exec;
use crate::backend::ClientKey;

/// A task of several steps that one of Portico's own clients carries out for a real one.
#[derive(Debug)]
pub enum Task {
    /// EXEC of a transaction that is more than one group on one node.
    Exec(Box<Exec>),
    /// One request on connections of Portico's own, whose reply is the owner's.
    Aside {
        /// Who waits for it.
        owner: ClientKey,
        /// Its request.
        seq: u32,
    },
    /// What a cancelled wait took is put back: the command and its request; none once that was sent.
    PutBack(Option<(&'static str, Vec<u8>)>),
}

impl Task {
    /// The client that waits for its end.
    #[must_use]
    pub fn owner(&self) -> Option<ClientKey> {
        match self {
            Self::Exec(exec) => Some(exec.owner),
            Self::Aside { owner, .. } => Some(*owner),
            Self::PutBack(_) => None,
        }
    }
}
