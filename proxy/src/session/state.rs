//! What Portico keeps of one client between its requests, and the buffers that it holds only while it has work.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use portico_resp::{Protocol, RequestScanner, count_requests};

use super::{Attempt, Fan, Input, Parked, ReplyQueue, Standing, Upload};
use crate::backend::{Lane, LinkKey};

/// Yes-or-no facts of a client, in one word that the fast path tests at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFlags(u32);

impl ClientFlags {
    /// May run commands: authenticated, or no password is asked for.
    pub const AUTHENTICATED: Self = Self(1);
    /// Speaks RESP3.
    pub const RESP3: Self = Self(1 << 1);
    /// Requests of it may be on more than one connection for a slot: look before sending (design: order).
    pub const CAREFUL: Self = Self(1 << 2);
    /// Its next request cannot be sent yet; nothing is read from it meanwhile.
    pub const STALLED: Self = Self(1 << 3);
    /// Is on the list of clients whose next request waits, or was until lately.
    pub const LISTED: Self = Self(1 << 10);
    /// Is on the list of clients to be looked at again.
    pub const AWOKEN: Self = Self(1 << 4);
    /// Is on the list of clients to be written to.
    pub const DIRTY: Self = Self(1 << 5);
    /// Is closed as soon as everything was told; nothing more is read.
    pub const CLOSING: Self = Self(1 << 6);
    /// Sends a request too large to keep.
    pub const UPLOADING: Self = Self(1 << 7);
    /// Has sent its last byte.
    pub const ENDED: Self = Self(1 << 8);
    /// A node waits until this client has drained its replies.
    pub const THROTTLING: Self = Self(1 << 9);
    /// Is in a transaction: its commands are queued.
    pub const MULTI: Self = Self(1 << 11);
    /// Watches keys.
    pub const WATCHING: Self = Self(1 << 12);
    /// Waits for an answer before which nothing else of it runs; it is read on.
    pub const BLOCKED: Self = Self(1 << 13);
    /// Is subscribed to something.
    pub const SUBSCRIBED: Self = Self(1 << 14);
    /// Is told of every command.
    pub const MONITOR: Self = Self(1 << 15);
    /// Is told when keys that it read change.
    pub const TRACKING: Self = Self(1 << 16);
    /// CLIENT REPLY OFF.
    pub const REPLY_OFF: Self = Self(1 << 17);
    /// CLIENT REPLY SKIP: the next command is not answered.
    pub const REPLY_SKIP: Self = Self(1 << 18);
    /// CLIENT NO-EVICT.
    pub const NO_EVICT: Self = Self(1 << 19);
    /// CLIENT NO-TOUCH.
    pub const NO_TOUCH: Self = Self(1 << 20);
    /// Is one of Portico's own, without a connection: runs requests for a client that waits for them.
    pub const AGENT: Self = Self(1 << 21);

    /// A shard that it has written to has another master since.
    pub const WRITES_LOST: Self = Self(1 << 22);
    /// A large reply is being passed to it.
    pub const PASSING: Self = Self(1 << 23);
    /// What it is told without having asked waits until a reply is through.
    pub const HOLDS: Self = Self(1 << 24);

    /// CLIENT CAPA redirect.
    pub const CAPA_REDIRECT: Self = Self(1 << 25);
    /// Has used MULTI or WATCH.
    pub const TRANSACTED: Self = Self(1 << 26);

    /// Waits until the nodes have confirmed what it subscribes to; until then it may subscribe to more, no less.
    pub const SUBSCRIBING: Self = Self(1 << 30);

    /// Those with which a request is looked at before it is sent.
    pub const LOOKED_AT: Self = Self::MULTI
        .with(Self::SUBSCRIBED)
        .with(Self::MONITOR)
        .with(Self::REPLY_OFF)
        .with(Self::REPLY_SKIP)
        .with(Self::TRACKING)
        .with(Self::SUBSCRIBING);

    /// Whether every flag of `other` is set.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[inline]
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// All other flags.
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Sets the flags of `other`; returns whether any of them was not set before.
    #[inline]
    pub fn set(&mut self, other: Self) -> bool {
        let fresh = !self.has(other);
        self.0 |= other.0;
        fresh
    }

    /// Clears the flags of `other`.
    #[inline]
    pub fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// Why a client's next request is not sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Earlier requests of this client must be answered first; ends with them.
    Order,
    /// The slot's master cannot be reached; ends with it or at the failover timeout.
    Unreachable,
    /// The connection has more unanswered bytes than it may; ends when the node catches up.
    Backpressure,
    /// CLIENT PAUSE; ends with it. The client is read on, so that one that goes away is noticed at once.
    Paused,
    /// The client has not read what it was told; ends when it does. It is read on: it may want to send all first.
    Unread,
}

/// What `CLIENT LIST` tells of a client that the fast path does not need.
#[derive(Debug)]
pub struct About {
    /// Its address; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address it connected to; none for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The number of its socket in this process; 0 for Portico's own.
    pub descriptor: i32,
    /// When it connected.
    pub since: Instant,
    /// CLIENT SETNAME.
    pub name: Box<str>,
    /// CLIENT SETINFO lib-name.
    pub lib_name: Box<str>,
    /// CLIENT SETINFO lib-ver.
    pub lib_version: Box<str>,
}

impl About {
    /// A client that has just connected, and has not said anything of itself.
    #[must_use]
    pub fn new(peer: Option<SocketAddr>, local: Option<SocketAddr>, since: Instant) -> Self {
        let unsaid = || "".into();
        Self { peer, local, descriptor: 0, since, name: unsaid(), lib_name: unsaid(), lib_version: unsaid() }
    }
}

/// Buffers that a client holds only while it has work, so that an idle connection costs next to nothing.
#[derive(Debug, Default)]
pub struct Work {
    /// The order of replies.
    pub queue: ReplyQueue,
    /// Replies on their way to the client.
    pub out: Vec<u8>,
    /// How much of `out` the kernel has taken.
    pub told: usize,
    /// Received bytes of a request that is not complete or cannot be sent yet.
    pub input: Input,
    /// Where the scan of `input` stands.
    pub scanner: Option<Box<RequestScanner>>,
    /// Fanned out requests, oldest first.
    pub fans: VecDeque<(u32, Box<Fan>)>,
    /// Requests to be sent again, in order; nothing else is sent meanwhile.
    pub parked: VecDeque<Parked>,
    /// The one of them that is in flight.
    pub attempt: Option<Attempt>,
    /// The request that is too large to keep.
    pub upload: Option<Box<Upload>>,
}

impl Work {
    /// Replies that the kernel has not taken, in bytes.
    #[inline]
    #[must_use]
    pub fn untold(&self) -> usize {
        self.out.len() - self.told
    }

    /// Memory that this client's undelivered replies hold, in bytes: what `client-output-buffer-limit` bounds.
    #[inline]
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.untold() + self.queue.held_bytes()
    }

    /// Where among [`Work::fans`] the fanned out request with this number is, while it is not answered.
    #[must_use]
    pub fn fan_of(&self, seq: u32) -> Option<usize> {
        let first = self.queue.first();
        let place = |seq: u32| seq.wrapping_sub(first);
        self.fans.binary_search_by_key(&place(seq), |&(seq, _)| place(seq)).ok()
    }

    /// Whether nothing is received, outstanding or untold. The rest of a large request that was answered early is still
    /// to be received.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.queue.is_empty()
            && self.out.is_empty()
            && self.input.is_empty()
            && self.scanner.is_none()
            && self.upload.is_none()
    }

    /// Gives back what is held beyond ordinary need.
    pub fn trim(&mut self) {
        const KEEP: usize = 64 * 1024;
        if self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
        self.input.trim();
        self.queue.trim();
        self.fans.shrink_to(8);
        self.parked.shrink_to(8);
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number, unique in the process and never reused, as CLIENT ID tells it.
    pub id: u64,
    /// Yes-or-no facts.
    pub flags: ClientFlags,
    /// The connections that its requests take.
    pub lane: Lane,
    /// The shards that it has written to, a bit each.
    pub written: u64,
    /// Outstanding writes.
    pub writes: u32,
    /// Outstanding requests with several keys in one slot.
    pub multi_key: u32,
    /// The connection that all outstanding writes are on; null when they are on several.
    pub write_link: LinkKey,
    /// Requests, or parts of them, that are on the way to nodes.
    pub in_flight: u32,
    /// Bytes that a reply to it takes: more than it takes most of the time, for that is what may come.
    pub typical: u32,
    /// When and why its next request could not be sent.
    pub stall: Option<(Stall, Instant)>,
    /// When it was last heard, in seconds of the engine's clock.
    pub heard: u32,
    /// The name of its last command.
    pub last_command: &'static str,
    /// Buffers, while it has work.
    pub work: Option<Box<Work>>,
    /// What lasts from one request to the next; none for most.
    pub standing: Option<Box<Standing>>,
    /// The rest.
    pub about: Box<About>,
}

impl Client {
    /// What is taken for typical of a client of which nothing is known.
    pub const UNKNOWN: u32 = 32 << 10;

    /// Whether it waits for something that may never come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.standing.as_deref().is_some_and(|standing| standing.block.is_some())
    }

    /// Whether its next request waits for the end of CLIENT PAUSE.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.flags.has(ClientFlags::STALLED) && matches!(self.stall, Some((Stall::Paused, _)))
    }

    /// Whether it is read on though its next request waits.
    #[must_use]
    pub fn is_read_on(&self) -> bool {
        let reads = matches!(self.stall, Some((Stall::Paused | Stall::Unread, _)));
        self.flags.has(ClientFlags::BLOCKED) || self.flags.has(ClientFlags::STALLED) && reads
    }

    /// Whether its next request waits until it reads.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.flags.has(ClientFlags::STALLED) && matches!(self.stall, Some((Stall::Unread, _)))
    }

    /// What it would hold of replies, in bytes, had all that it sent been answered: a guess, from the first requests that
    /// wait and what its replies are like.
    #[must_use]
    pub fn would_hold(&self) -> u64 {
        const LOOKED_AT: usize = 16 * 1024;
        let Some(work) = self.work.as_deref() else { return 0 };
        let input = work.input.bytes();
        let first = &input[..input.len().min(LOOKED_AT)];
        let each = first.len() / (count_requests(first).max(1) as usize);
        let waiting = input.len() / each.max(1);
        work.reply_bytes() as u64 + waiting as u64 * u64::from(self.typical)
    }

    /// A reply to it took so many bytes.
    #[inline]
    pub fn learn(&mut self, len: usize) {
        let len = len as u32;
        self.typical = if len >= self.typical { len } else { self.typical - (self.typical - len) / 16 };
    }

    /// Replies to it that the kernel has not taken, in bytes; none count of Portico's own.
    #[inline]
    #[must_use]
    pub fn untold(&self) -> usize {
        let work = self.work.as_deref().filter(|_| !self.flags.has(ClientFlags::AGENT));
        work.map_or(0, Work::untold)
    }

    /// Whether nothing of it is outstanding.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.work.as_deref().is_none_or(|work| work.queue.outstanding_count() == 0)
    }

    /// Whether EXEC (or DISCARD) of what it queues ends its watch without running anything.
    #[must_use]
    pub fn gives_up_watch(&self, discards: bool) -> bool {
        let standing = self.standing.as_deref();
        let broken = standing.is_some_and(|standing| standing.watch_broken || standing.transaction.aborted);
        self.flags.has(ClientFlags::WATCHING) && (discards || broken)
    }

    /// What lasts from one request to the next; begins it if there was none.
    pub fn standing(&mut self) -> &mut Standing {
        self.standing.get_or_insert_default()
    }

    /// The protocol that it speaks.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.flags.has(ClientFlags::RESP3) { Protocol::Resp3 } else { Protocol::Resp2 }
    }
}
