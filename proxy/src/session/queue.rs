//! The order of one client's replies: what it asked for, what was answered early, what comes next.

use std::collections::VecDeque;

use portico_slots::Slot;

use crate::backend::LinkKey;

/// What a queued request is, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingFlags(u8);

impl PendingFlags {
    /// May change data: counted among the client's outstanding writes.
    pub const WRITE: Self = Self(1);
    /// Split over several nodes: stands for every slot.
    pub const FAN: Self = Self(1 << 1);
    /// Waits to be sent again: on no connection now.
    pub const PARKED: Self = Self(1 << 2);
    /// Has several keys in one slot: while the slot is open it can be refused when a later one is not.
    pub const MULTI_KEY: Self = Self(1 << 5);
    const ANSWERED: Self = Self(1 << 3);
    /// Its reply is being passed on piece by piece.
    pub const STREAMING: Self = Self(1 << 4);
    /// Its reply is not wanted: CLIENT REPLY OFF or SKIP.
    pub const SILENT: Self = Self(1 << 6);

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags but for those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every flag of `other` is set.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[inline]
    const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A request whose reply the client has not been given.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// The connection that it is on.
    pub link: LinkKey,
    /// Where an early reply lies in the queue's `held` bytes; before, the hash of its keys.
    at: u32,
    len: u32,
    /// The slot that it was routed by.
    pub slot: Slot,
    /// What it is.
    pub flags: PendingFlags,
}

impl Pending {
    /// A request that was just sent on `link`.
    #[inline]
    #[must_use]
    pub fn sent(link: LinkKey, slot: Slot, flags: PendingFlags) -> Self {
        Self { link, at: 0, len: 0, slot, flags }
    }

    /// With its set of keys, as a hash: two requests with the same keys are refused alike.
    #[must_use]
    pub fn with_keys(mut self, keys: u32) -> Self {
        self.at = keys;
        self
    }

    /// The hash of its set of keys, while it is outstanding.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.at
    }

    /// Whether its reply is not yet known.
    #[inline]
    #[must_use]
    pub fn is_outstanding(&self) -> bool {
        !self.flags.has(PendingFlags::ANSWERED)
    }
}

/// Replies in request order: the oldest one's goes straight out, an earlier one's waits in `held`.
///
/// Invariant: `pending[i]` is request `first + i`; the front is never answered.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    first: u32,
    pending: VecDeque<Pending>,
    held: Vec<u8>,
    /// Bytes of `held` that are still to be told.
    live: usize,
    outstanding: u32,
}

impl ReplyQueue {
    /// Adds a request; returns the number by which its reply is to be delivered.
    #[inline]
    pub fn push(&mut self, pending: Pending) -> u32 {
        let seq = self.first.wrapping_add(self.pending.len() as u32);
        self.pending.push_back(pending);
        self.outstanding += 1;
        seq
    }

    /// Adds a reply that Portico made itself, in its place in the order.
    #[inline]
    pub fn push_answered(&mut self, reply: &[u8], out: &mut Vec<u8>) {
        if self.pending.is_empty() {
            out.extend_from_slice(reply);
            return;
        }
        let pending = Pending::sent(LinkKey::default(), 0, PendingFlags::ANSWERED);
        self.pending.push_back(pending);
        let last = self.pending.len() - 1;
        self.hold(last, reply);
    }

    /// Delivers the reply of request `seq`, and every later one that waited for it. Returns the request.
    ///
    /// A `seq` that is not outstanding is a defect of the caller; it is ignored, since nothing must be told twice.
    #[inline]
    pub fn complete(&mut self, seq: u32, reply: &[u8], out: &mut Vec<u8>) -> Option<Pending> {
        let index = seq.wrapping_sub(self.first) as usize;
        let pending = *self.pending.get(index)?;
        if pending.flags.any(PendingFlags::ANSWERED.with(PendingFlags::SILENT)) {
            return self.complete_silent(index, pending, out);
        }
        self.outstanding -= 1;
        if index == 0 {
            out.extend_from_slice(reply);
            self.advance(out);
        } else {
            self.pending[index].flags = pending.flags.with(PendingFlags::ANSWERED);
            self.hold(index, reply);
        }
        Some(pending)
    }

    /// Tells something that nobody asked for, between two replies: not before a reply, or a part of one, that is here
    /// already and waits for an older one.
    pub fn interject(&mut self, push: &[u8], out: &mut Vec<u8>) {
        const BEGUN: PendingFlags =
            PendingFlags::ANSWERED.with(PendingFlags::FAN).with(PendingFlags::STREAMING);
        let Some(last) = self.pending.iter().rposition(|pending| pending.flags.any(BEGUN)) else {
            return out.extend_from_slice(push);
        };
        if self.pending[last].is_outstanding() {
            return self.push_answered(push, out);
        }
        let (at, len) = (self.pending[last].at as usize, self.pending[last].len as usize);
        let reply = [self.held.get(at..at + len).unwrap_or_default(), push].concat();
        self.live -= len;
        self.hold(last, &reply);
    }

    /// As [`ReplyQueue::complete`], of a request that was answered already or whose reply is not wanted.
    #[cold]
    fn complete_silent(&mut self, index: usize, pending: Pending, out: &mut Vec<u8>) -> Option<Pending> {
        if !pending.is_outstanding() {
            return None;
        }
        self.outstanding -= 1;
        if index == 0 {
            self.advance(out);
        } else {
            // Nothing of it is held, at no place that could be gone when its turn comes.
            let flags = pending.flags.with(PendingFlags::ANSWERED);
            self.pending[index] = Pending { at: 0, len: 0, flags, ..pending };
        }
        Some(pending)
    }

    /// The number of the next request.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.first.wrapping_add(self.pending.len() as u32)
    }

    /// The replies of requests from `seq` on that are not known yet are not wanted.
    pub fn silence_from(&mut self, seq: u32) {
        let from = (seq.wrapping_sub(self.first) as usize).min(self.pending.len());
        for pending in self.pending.range_mut(from..).filter(|pending| pending.is_outstanding()) {
            pending.flags = pending.flags.with(PendingFlags::SILENT);
        }
    }

    /// Whether the reply of the oldest request is not wanted.
    #[must_use]
    pub fn oldest_is_silent(&self) -> bool {
        self.pending.front().is_some_and(|pending| pending.flags.has(PendingFlags::SILENT))
    }

    /// Drops the oldest request, whose reply has gone out, and tells what waited behind it.
    #[inline]
    fn advance(&mut self, out: &mut Vec<u8>) {
        self.pending.pop_front();
        self.first = self.first.wrapping_add(1);
        while let Some(next) = self.pending.front() {
            if next.is_outstanding() {
                break;
            }
            let (at, len) = (next.at as usize, next.len as usize);
            out.extend_from_slice(&self.held[at..at + len]);
            self.live -= len;
            self.pending.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.live == 0 {
            self.held.clear();
        }
    }

    #[inline]
    fn hold(&mut self, index: usize, reply: &[u8]) {
        if self.held.len() > 64 * 1024 && self.live * 2 < self.held.len() {
            self.compact();
        }
        // Limits on a client's replies keep `held` far below 4 GiB; over that the offset could not be told.
        self.pending[index].at = self.held.len() as u32;
        self.pending[index].len = reply.len() as u32;
        self.held.extend_from_slice(reply);
        self.live += reply.len();
    }

    fn compact(&mut self) {
        let mut kept = Vec::with_capacity(self.live * 2);
        for pending in self.pending.iter_mut().filter(|p| !p.is_outstanding()) {
            let (at, len) = (pending.at as usize, pending.len as usize);
            pending.at = kept.len() as u32;
            kept.extend_from_slice(&self.held[at..at + len]);
        }
        self.held = kept;
    }

    /// Whether `seq` is the oldest request, so that its reply may go out as it comes.
    #[must_use]
    pub fn is_oldest(&self, seq: u32) -> bool {
        seq == self.first && !self.pending.is_empty()
    }

    /// The number of the oldest request.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The request `seq`, while it is queued.
    pub fn get_mut(&mut self, seq: u32) -> Option<&mut Pending> {
        self.pending.get_mut(seq.wrapping_sub(self.first) as usize)
    }

    /// Requests whose reply is not known, oldest first, with their numbers.
    pub fn outstanding(&self) -> impl Iterator<Item = (u32, &Pending)> {
        let first = self.first;
        let numbered = self.pending.iter().enumerate();
        numbered.filter(|(_, p)| p.is_outstanding()).map(move |(i, p)| (first.wrapping_add(i as u32), p))
    }

    /// How many requests have no known reply.
    #[inline]
    #[must_use]
    pub fn outstanding_count(&self) -> u32 {
        self.outstanding
    }

    /// Whether every request was answered and told.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Early replies that wait to be told, in bytes.
    #[must_use]
    pub fn early_bytes(&self) -> usize {
        self.live
    }

    /// Memory that early replies and the queue itself hold, in bytes.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len() + self.pending.len() * size_of::<Pending>()
    }

    /// Gives back what is held beyond ordinary need.
    pub fn trim(&mut self) {
        if self.pending.capacity() > 4096 {
            self.pending.shrink_to(64);
        }
        if self.held.capacity() > 64 * 1024 {
            self.held.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Pending {
        Pending::sent(LinkKey::default(), 0, PendingFlags::default())
    }

    #[test]
    fn an_early_reply_waits_for_the_older_one() {
        let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
        let (a, b) = (queue.push(request()), queue.push(request()));
        queue.push_answered(b"+PONG", &mut out);
        assert!(queue.complete(b, b"+b", &mut out).is_some());
        assert!(out.is_empty() && queue.outstanding_count() == 1);
        assert!(queue.complete(a, b"+a", &mut out).is_some());
        assert_eq!(out, b"+a+b+PONG");
        assert!(queue.is_empty() && queue.held_bytes() == 0);
    }

    #[test]
    fn a_push_does_not_overtake_what_came_before_it() {
        let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
        queue.interject(b">0", &mut out);
        let seqs: Vec<u32> = (0..4).map(|_| queue.push(request())).collect();
        queue.interject(b">1", &mut out);
        assert_eq!(out, b">0>1", "nothing has come yet");
        assert!(queue.complete(seqs[1], b"+b", &mut out).is_some());
        queue.interject(b">2", &mut out);
        queue.interject(b">3", &mut out);
        assert_eq!(out, b">0>1", "b's reply came before");
        assert!(queue.complete(seqs[0], b"+a", &mut out).is_some());
        assert_eq!(out, b">0>1+a+b>2>3");
        let fan = queue.push(Pending::sent(LinkKey::default(), 0, PendingFlags::FAN));
        queue.interject(b">4", &mut out);
        assert!(queue.complete(seqs[2], b"+c", &mut out).is_some());
        assert!(queue.complete(fan, b"+e", &mut out).is_some());
        assert!(queue.complete(seqs[3], b"+d", &mut out).is_some());
        assert_eq!(out, b">0>1+a+b>2>3+c+d+e>4", "a part of e's reply may have come before");
        assert!(queue.is_empty() && queue.live == 0);
    }

    #[test]
    fn what_is_not_wanted_leaves_nothing_behind() {
        let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
        let seqs: Vec<u32> = (0..4).map(|_| queue.push(request())).collect();
        assert!(queue.complete(seqs[1], b"+b", &mut out).is_some());
        queue.silence_from(seqs[3]);
        assert!(queue.complete(seqs[3], b"+d", &mut out).is_some());
        queue.interject(b">1", &mut out);
        assert!(queue.complete(seqs[0], b"+a", &mut out).is_some());
        assert!(queue.complete(seqs[2], b"+c", &mut out).is_some());
        assert_eq!(out, b"+a+b+c>1");
        let seqs: Vec<u32> = (0..4).map(|_| queue.push(request())).collect();
        assert!(queue.complete(seqs[1], b"+b", &mut out).is_some());
        queue.silence_from(seqs[3]);
        assert!(queue.complete(seqs[3], b"+d", &mut out).is_some());
        assert!(queue.complete(seqs[0], b"+a", &mut out).is_some());
        assert!(queue.complete(seqs[2], b"+c", &mut out).is_some());
        assert_eq!(out, b"+a+b+c>1+a+b+c");
    }

    #[test]
    fn nothing_is_told_twice() {
        let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
        let (a, b) = (queue.push(request()), queue.push(request()));
        assert!(queue.complete(b, b"+b", &mut out).is_some());
        assert!(queue.complete(b, b"+again", &mut out).is_none());
        assert!(queue.complete(a, b"+a", &mut out).is_some());
        assert!(queue.complete(a, b"+again", &mut out).is_none());
        assert_eq!(out, b"+a+b");
    }

    #[test]
    fn unwanted_replies_are_dropped_and_hold_nothing_up() {
        let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
        let (a, b) = (queue.push(request()), queue.push(request()));
        let before = queue.next();
        let (c, d) = (queue.push(request()), queue.push(request()));
        queue.silence_from(before);
        let e = queue.push(request());
        for (seq, reply) in [(c, "+c"), (e, "+e"), (b, "+b"), (a, "+a")] {
            assert!(queue.complete(seq, reply.as_bytes(), &mut out).is_some());
            assert!(queue.complete(seq, b"+again", &mut out).is_none());
        }
        assert_eq!(out, b"+a+b");
        assert!(queue.oldest_is_silent());
        assert!(queue.complete(d, b"+d", &mut out).is_some());
        assert_eq!(out, b"+a+b+e");
        assert!(queue.is_empty() && queue.outstanding_count() == 0 && queue.live == 0);
    }

    proptest! {
        /// Whatever the order in which nodes answer, a client reads its replies in the order it asked.
        #[test]
        fn replies_come_in_request_order(order in Just((0u32..300).collect::<Vec<_>>()).prop_shuffle(), size in 0usize..2000) {
            let (mut queue, mut out) = (ReplyQueue::default(), Vec::new());
            queue.first = u32::MAX - 100;
            let seqs: Vec<u32> = order.iter().map(|_| queue.push(request())).collect();
            let reply = |i: u32| [i.to_le_bytes().as_slice(), &vec![b'x'; size]].concat();
            for &i in &order {
                prop_assert!(queue.complete(seqs[i as usize], &reply(i), &mut out).is_some());
            }
            prop_assert_eq!(out, (0..300).flat_map(reply).collect::<Vec<u8>>());
            prop_assert!(queue.is_empty() && queue.live == 0 && queue.outstanding_count() == 0);
        }
    }
}
