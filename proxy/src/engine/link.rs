//! A connection to a node, as the engine sees it.

use std::collections::HashSet;
use std::time::Instant;

use portico_resp::Protocol;
use portico_slots::NodeId;

use super::Withdrawn;
use crate::backend::{ClientKey, Handshake, Identity, Lane, Pipe};
use crate::scripts::Sha;

/// What a connection may be used for.
#[derive(Debug)]
pub enum LinkState {
    /// The socket is being connected.
    Connecting,
    /// The node is told who we are; nothing else is sent.
    Handshaking(Handshake),
    /// Takes requests.
    Ready,
    /// Takes no new requests: its node is no master any more, or it is in the middle of a large reply.
    Draining {
        /// Since when.
        since: Instant,
        /// It may take requests again when it is done.
        returns: bool,
    },
}

impl LinkState {
    /// Whether the node knows who we are: requests were or could be sent.
    pub(super) fn is_established(&self) -> bool {
        matches!(self, Self::Ready | Self::Draining { .. })
    }
}

/// A connection to a node.
#[derive(Debug)]
pub struct Link {
    /// The node.
    pub node: NodeId,
    /// Its protocol.
    pub protocol: Protocol,
    /// The set of connections that it belongs to.
    pub lane: Lane,
    /// What it may be used for.
    pub state: LinkState,
    /// Requests and replies.
    pub pipe: Pipe,
    /// The one client that it serves; shared if none.
    pub leased_to: Option<ClientKey>,
    /// Who it is to the node, once known.
    pub identity: Identity,
    /// When it last moved: connected, was given a request while idle, or received something.
    pub moved: Instant,
    /// Bytes that a reply on it takes on average.
    pub typical: u32,
    /// The client whose large reply is passing through.
    pub passing: Option<ClientKey>,
    /// Nothing is read from it until its client has drained what it has.
    pub throttled: bool,
    /// Scripts that the node was given on it; those it has besides are not known of.
    pub scripts: HashSet<Sha>,
    /// A request on it may stay unanswered for as long as its client likes.
    pub patient: bool,
    /// CLIENT UNBLOCKs of it that the node has not answered.
    pub unblocks: u32,
    /// One of them may still run at any time: it is not leased again.
    pub tainted: bool,
    /// Its last wait, while more may be answered to that.
    pub withdrawn: Option<Box<Withdrawn>>,
    /// How many requests were unanswered at some times of its present silence.
    pub silence: Silence,
    /// Is on the list of connections to be written to.
    pub dirty: bool,
}

/// How long requests have been unanswered on a connection that has gone silent, without a note of each request.
#[derive(Debug, Default)]
pub struct Silence {
    since: Option<Instant>,
    /// At each time so many requests were unanswered, none of which has been answered since.
    notes: Vec<(Instant, usize)>,
}

impl Silence {
    /// More than there are checks in any silence that is borne.
    const MOST_NOTES: usize = 1024;

    /// The connection has been silent since `since`, with so many requests unanswered now.
    pub fn note(&mut self, since: Instant, now: Instant, unanswered: usize) {
        if self.since != Some(since) {
            self.since = Some(since);
            self.notes.clear();
        }
        let before = self.notes.last().map_or(0, |&(_, count)| count);
        if unanswered > before && self.notes.len() < Self::MOST_NOTES {
            self.notes.push((now, unanswered));
        }
    }

    /// Since when the request that is so many places from the oldest was certainly unanswered, on a connection that
    /// last moved at `moved`.
    #[must_use]
    pub fn of(&self, place: usize, moved: Instant, now: Instant) -> Instant {
        if place == 0 {
            return moved;
        }
        let notes = if self.since == Some(moved) { &self.notes[..] } else { &[] };
        notes.iter().find(|&&(_, count)| count > place).map_or(now, |&(at, _)| at)
    }
}

impl Link {
    /// A reply on it took so many bytes.
    #[inline]
    pub fn learn(&mut self, len: usize) {
        let len = len as u32;
        self.typical = self.typical - self.typical / 16 + len / 16;
    }

    /// Bytes of replies that are on their way, as far as can be told.
    #[inline]
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.pipe.len() as u64 * u64::from(self.typical)
    }

    /// Whether it takes new requests from everybody.
    #[must_use]
    pub fn is_shared_and_ready(&self) -> bool {
        matches!(self.state, LinkState::Ready) && self.leased_to.is_none()
    }

    /// Whether nothing can come on it that somebody was not told: a mark has come back behind everything, or nothing
    /// was ever sent.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self.state {
            LinkState::Connecting | LinkState::Handshaking(_) => true,
            LinkState::Ready | LinkState::Draining { .. } => {
                self.pipe.is_marked() && self.unblocks == 0 && !self.tainted && self.withdrawn.is_none()
            }
        }
    }
}
