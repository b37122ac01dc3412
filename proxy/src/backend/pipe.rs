//! One pipelined connection to a node: the bytes not yet answered and the queue of expected replies.

use std::collections::VecDeque;

use portico_resp::{ReplyScanner, count_requests, is_error};
use portico_slots::Slot;
use slotmap::{Key as _, KeyData};

use super::mark;
use crate::backend::{ClientKey, LinkKey};

/// What a later decision about a request needs to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(u32);

impl RequestFlags {
    /// Changes nothing: may be sent again freely.
    pub const READONLY: Self = Self(1);
    /// A script: only the server's own error texts count as a refusal.
    pub const SCRIPT: Self = Self(1 << 1);
    /// Its bytes were streamed and not kept: it cannot be sent again.
    pub const STREAMED: Self = Self(1 << 2);
    /// Portico's own (ASKING, PING): the reply is dropped.
    pub const IGNORED: Self = Self(1 << 3);
    /// The question whether a slot is served here, asked before a large request is streamed.
    pub const PROBE: Self = Self(1 << 4);
    /// Sent by the retry of a redirected or lost request.
    pub const RETRY: Self = Self(1 << 5);
    /// Several requests in one: its last reply is its reply.
    pub const GROUP: Self = Self(1 << 6);
    /// A group from MULTI to EXEC: sent again as a whole or not at all.
    pub const TRANSACTION: Self = Self(1 << 7);
    /// May stay unanswered for as long as its client likes.
    pub const BLOCKING: Self = Self(1 << 8);
    /// Its client watches keys: only the connection that it was sent on may run it.
    pub const GUARDED: Self = Self(1 << 9);
    /// Sent behind the text of its script, after its node said that it does not have it.
    pub const LOADED: Self = Self(1 << 10);
    /// On the lane that listens, whatever lane its client is on: a client's message; or as a group, Portico's own SUBSCRIBE
    /// or the like, and the question behind it that tells that it is done with.
    pub const SUBSCRIPTION: Self = Self(1 << 11);
    /// Its reply counts who heard a message: Portico's connections have to be taken out and its clients put in.
    pub const COUNTED: Self = Self(1 << 12);

    /// A transaction that begins with CLIENT CACHING, which its client did not queue.
    pub const CACHING: Self = Self(1 << 13);
    /// Portico's own question for a client that does not wait for every node: never sent again.
    pub const IMPATIENT: Self = Self(1 << 14);
    /// Any node may take it, whoever owns its slot: a message, the question who listens, what has no keys.
    pub const ANYWHERE: Self = Self(1 << 15);
    /// Portico's own ECHO of a number: once it has come back nothing sent before it can still be answered.
    pub const MARK: Self = Self(1 << 16);
    /// Portico's own CLIENT UNBLOCK. Its `seq` and `part` name the connection that it is about
    /// ([`InFlight::about`]).
    pub const UNBLOCK: Self = Self(1 << 17);
    /// Portico's own PING to a node that runs a script of this client: is it busy?
    pub const BUSY: Self = Self(1 << 18);

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
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What the node said so far about the requests of a group.
#[derive(Debug, Default)]
pub struct Group {
    /// Replies that are still expected.
    left: u32,
    /// Replies that came.
    came: u32,
    /// Error replies before the last reply, each with its place in the group.
    pub refused: Vec<(u32, Box<[u8]>)>,
}

/// A request that was queued on a connection and has no complete reply yet.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// Who asked; null for Portico's own requests.
    pub client: ClientKey,
    /// The request's place in its client's reply queue.
    pub seq: u32,
    /// Which part of a fanned out request, or [`InFlight::WHOLE`].
    pub part: u32,
    /// Bytes of the request in the pipe's buffer.
    pub len: u32,
    /// The slot it was routed by.
    pub slot: Slot,
    /// What it is.
    pub flags: RequestFlags,
}

impl InFlight {
    /// The `part` of a request that was not split.
    pub const WHOLE: u32 = u32::MAX;

    /// One of Portico's own requests whose reply is of no interest.
    #[must_use]
    pub fn ignored() -> Self {
        Self { flags: RequestFlags::IGNORED, ..Self::nobodys() }
    }

    /// Portico's own CLIENT UNBLOCK of another connection.
    #[must_use]
    pub fn unblock(about: LinkKey) -> Self {
        let name = about.data().as_ffi();
        let flags = RequestFlags::IGNORED.with(RequestFlags::UNBLOCK);
        Self { seq: name as u32, part: (name >> 32) as u32, flags, ..Self::nobodys() }
    }

    /// The connection that an [`InFlight::unblock`] is about.
    #[must_use]
    pub fn about(&self) -> LinkKey {
        KeyData::from_ffi(u64::from(self.seq) | u64::from(self.part) << 32).into()
    }

    /// One of Portico's own requests.
    #[must_use]
    pub fn nobodys() -> Self {
        Self {
            client: ClientKey::default(),
            seq: 0,
            part: Self::WHOLE,
            len: 0,
            slot: 0,
            flags: RequestFlags::default(),
        }
    }
}

/// A reply buffer larger than this is given back once it is empty, in bytes.
const KEEP: usize = 64 * 1024;

/// The state of one pipelined connection, without its socket.
///
/// A request's bytes stay in `buffer` until its reply is complete, so that a redirected or never sent request can
/// be sent elsewhere without a second copy on the fast path. Invariant: `head <= sent <= buffer.len()`, and the
/// lengths of the requests in flight add up to `buffer.len() - head` (streamed bytes are kept only until sent).
#[derive(Debug, Default)]
pub struct Pipe {
    buffer: Vec<u8>,
    /// Where the oldest unanswered request begins.
    head: usize,
    /// What the kernel has taken.
    sent: usize,
    in_flight: VecDeque<InFlight>,
    /// Those of `in_flight` that are groups, in order.
    groups: VecDeque<Group>,
    streaming: bool,
    /// The streamed request was appended to its end.
    stream_ended: bool,
    /// Nothing was sent since a mark came back, or since the connection was set up.
    marked: bool,
    /// Finds the end of the reply that is being received.
    pub replies: ReplyScanner,
    /// The beginning of the reply that is being received was thrown away.
    pub skipping: bool,
    /// The received part of a reply that is not complete.
    pub partial: Vec<u8>,
}

impl Pipe {
    /// Queues a request; the caller appends its bytes to the buffer that this returns, then calls [`Pipe::commit`].
    #[inline]
    pub fn begin(&mut self) -> &mut Vec<u8> {
        if self.head == self.buffer.len() {
            self.buffer.clear();
            self.head = 0;
            self.sent = 0;
            self.marked = false;
        } else if self.head > KEEP && self.head * 2 > self.buffer.len() {
            self.buffer.drain(..self.head);
            self.sent -= self.head;
            self.head = 0;
        }
        &mut self.buffer
    }

    /// Registers the request whose bytes were appended since `start` (the buffer's length before).
    #[inline]
    pub fn commit(&mut self, start: usize, mut entry: InFlight) {
        entry.len = (self.buffer.len() - start) as u32;
        self.in_flight.push_back(entry);
        if entry.flags.has(RequestFlags::GROUP) {
            self.commit_group(start);
        }
    }

    #[cold]
    fn commit_group(&mut self, start: usize) {
        let left = count_requests(&self.buffer[start..]);
        self.groups.push_back(Group { left, ..Group::default() });
    }

    /// Whether the next reply is one of a group's, or a mark's.
    #[inline]
    #[must_use]
    pub fn in_group_or_mark(&self) -> bool {
        const EITHER: RequestFlags = RequestFlags::GROUP.with(RequestFlags::MARK);
        self.in_flight.front().is_some_and(|entry| entry.flags.any(EITHER))
    }

    /// Whether the oldest request is a mark.
    #[must_use]
    pub fn at_mark(&self) -> bool {
        self.in_flight.front().is_some_and(|entry| entry.flags.has(RequestFlags::MARK))
    }

    /// Whether nothing was sent behind the last mark, which has not come back.
    #[must_use]
    pub fn ends_in_mark(&self) -> bool {
        self.in_flight.back().is_some_and(|entry| entry.flags.has(RequestFlags::MARK))
    }

    /// Whether nothing was sent since the last mark came back, or since the connection was set up: every reply that
    /// can come has come.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// Queues a mark: a number that nobody can have guessed.
    pub fn push_mark(&mut self, number: u64) {
        let flags = RequestFlags::IGNORED.with(RequestFlags::MARK);
        self.push(&mark::request(number), InFlight { flags, ..InFlight::nobodys() });
    }

    /// Takes the mark that is the oldest request out if `reply` is its reply. Returns whether it was.
    pub fn mark_came_back(&mut self, reply: &[u8]) -> bool {
        if !mark::is_reply(self.oldest_bytes(), reply) {
            return false;
        }
        self.answered();
        self.marked = self.in_flight.is_empty();
        true
    }

    /// Whether the group that the next reply is one of expects others behind it.
    #[must_use]
    pub fn group_goes_on(&self) -> bool {
        self.groups.front().is_some_and(|group| group.left > 1)
    }

    /// Who wants to know what the next reply of a group says, and its place: a client that may be blocked by the last.
    #[must_use]
    pub fn group_notes(&self) -> Option<(ClientKey, u32)> {
        let entry = self.in_flight.front().filter(|entry| entry.flags.has(RequestFlags::BLOCKING))?;
        self.groups.front().map(|group| (entry.client, group.came))
    }

    /// Takes a reply that is one of a group's. `Some` when it was the last: then the group is to be taken out
    /// with [`Pipe::answered`].
    pub fn group_reply(&mut self, reply: &[u8]) -> Option<Group> {
        let group = self.groups.front_mut()?;
        group.left = group.left.saturating_sub(1);
        if group.left == 0 {
            return self.groups.pop_front();
        }
        if is_error(reply) {
            group.refused.push((group.came, reply.into()));
        }
        group.came += 1;
        None
    }

    /// Whether the oldest request is Portico's own subscription.
    #[must_use]
    pub fn in_subscription(&self) -> bool {
        self.in_flight.front().is_some_and(|entry| entry.flags.has(RequestFlags::SUBSCRIPTION))
    }

    /// The oldest request, a group, is done with, however many replies it had.
    pub fn end_group(&mut self) {
        self.groups.pop_front();
        self.answered();
    }

    /// Queues a whole request.
    #[inline]
    pub fn push(&mut self, request: &[u8], entry: InFlight) {
        let buffer = self.begin();
        let start = buffer.len();
        buffer.extend_from_slice(request);
        self.commit(start, entry);
    }

    /// Appends bytes of the streamed request that is the last one in flight; they are dropped once sent.
    pub fn stream(&mut self, bytes: &[u8]) {
        self.streaming = true;
        self.begin().extend_from_slice(bytes);
    }

    /// The streamed request has no more bytes.
    pub fn end_stream(&mut self) {
        self.stream_ended = true;
    }

    /// Bytes that wait for the kernel.
    #[inline]
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }

    /// The kernel took `n` more bytes.
    #[inline]
    pub fn mark_sent(&mut self, n: usize) {
        self.sent += n;
        if self.streaming {
            self.head = self.sent;
        }
    }

    /// The request that the next reply answers.
    #[inline]
    #[must_use]
    pub fn oldest(&self) -> Option<&InFlight> {
        self.in_flight.front()
    }

    /// Its bytes; none if it is streamed.
    #[must_use]
    pub fn oldest_bytes(&self) -> &[u8] {
        let len = self
            .oldest()
            .filter(|entry| !entry.flags.has(RequestFlags::STREAMED))
            .map_or(0, |entry| entry.len);
        &self.buffer[self.head..self.head + len as usize]
    }

    /// Requests without a complete reply, oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter()
    }

    /// How many requests have no complete reply.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every request was answered.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Bytes of requests that have no complete reply.
    #[inline]
    #[must_use]
    pub fn outstanding_bytes(&self) -> usize {
        self.buffer.len() - self.head
    }

    /// Whether bytes wait for the kernel.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.buffer.len()
    }

    /// The oldest request was answered: takes it out. Its bytes stay readable through the returned range with
    /// [`Pipe::bytes`] until the next request is queued.
    #[inline]
    pub fn answered(&mut self) -> Option<(InFlight, std::ops::Range<usize>)> {
        let entry = self.in_flight.pop_front()?;
        let start = self.head;
        if !entry.flags.has(RequestFlags::STREAMED) {
            self.head += entry.len as usize;
        }
        if self.in_flight.is_empty() {
            self.streaming = false;
            if self.head == self.buffer.len() && self.buffer.capacity() > 4 * KEEP {
                // One burst must not hold its memory for ever; the bytes of the answered request stay readable.
                self.buffer.drain(..start);
                self.sent -= start;
                self.head -= start;
                self.buffer.shrink_to(KEEP);
                return Some((entry, 0..self.head));
            }
        }
        Some((entry, start..self.head))
    }

    /// The bytes of an answered request.
    #[must_use]
    pub fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The handshake's bytes, which answer to nobody, are done with.
    pub fn forget_handshake(&mut self) {
        if self.in_flight.is_empty() {
            self.buffer.clear();
            (self.head, self.sent, self.marked) = (0, 0, true);
        }
    }

    /// The connection is lost: every unanswered request, oldest first, with its bytes and whether its last byte
    /// reached the kernel. Empties the pipe.
    pub fn lose(&mut self) -> Vec<(InFlight, Vec<u8>, bool)> {
        let mut at = self.head;
        let entries = std::mem::take(&mut self.in_flight);
        let streamed = self.stream_ended && !self.has_unsent();
        let lost = entries
            .into_iter()
            .map(|entry| {
                if entry.flags.has(RequestFlags::STREAMED) {
                    return (entry, Vec::new(), streamed);
                }
                let end = at + entry.len as usize;
                let bytes = self.buffer[at..end].to_vec();
                at = end;
                (entry, bytes, end <= self.sent)
            })
            .collect();
        *self = Self::default();
        lost
    }

    /// Takes back the questions that any node may answer; what this one still says to them is dropped.
    pub fn take_questions(&mut self) -> Vec<(InFlight, Vec<u8>)> {
        const QUESTION: RequestFlags = RequestFlags::READONLY.with(RequestFlags::ANYWHERE);
        const MORE: RequestFlags =
            RequestFlags::GROUP.with(RequestFlags::BLOCKING).with(RequestFlags::STREAMED);
        let mut taken = Vec::new();
        let mut at = self.head;
        for entry in &mut self.in_flight {
            let begin = at;
            if !entry.flags.has(RequestFlags::STREAMED) {
                at += entry.len as usize;
            }
            if entry.flags.has(QUESTION) && !entry.flags.any(MORE) {
                let ignored = InFlight { len: entry.len, ..InFlight::ignored() };
                taken.push((std::mem::replace(entry, ignored), self.buffer[begin..at].to_vec()));
            }
        }
        taken
    }

    /// Gives back what an empty pipe holds beyond ordinary need.
    pub fn trim_partial(&mut self) {
        if self.partial.is_empty() && self.partial.capacity() > KEEP {
            self.partial = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u32) -> InFlight {
        InFlight {
            client: ClientKey::default(),
            seq,
            part: InFlight::WHOLE,
            len: 0,
            slot: 0,
            flags: RequestFlags::default(),
        }
    }

    #[test]
    fn a_lost_connection_tells_which_requests_never_reached_the_kernel() {
        let mut pipe = Pipe::default();
        pipe.push(b"one", entry(1));
        pipe.push(b"two", entry(2));
        pipe.push(b"three", entry(3));
        pipe.mark_sent(7);
        let (first, range) = pipe.answered().expect("one is in flight");
        assert_eq!((first.seq, pipe.bytes(range)), (1, &b"one"[..]));
        let lost: Vec<_> = pipe.lose().into_iter().map(|(e, bytes, sent)| (e.seq, bytes, sent)).collect();
        assert_eq!(lost, [(2, b"two".to_vec(), true), (3, b"three".to_vec(), false)]);
        assert!(pipe.is_empty() && !pipe.has_unsent());
    }

    #[test]
    fn the_buffer_stays_flat_under_a_pipeline_that_never_ends() {
        let mut pipe = Pipe::default();
        for seq in 0..100_000 {
            pipe.push(&[b'x'; 100], entry(seq));
            pipe.mark_sent(100);
            if seq >= 10 {
                let (answered, range) = pipe.answered().expect("eleven are in flight");
                assert_eq!((answered.seq, range.len()), (seq - 10, 100));
            }
        }
        assert!(pipe.buffer.capacity() < 4 * KEEP, "{}", pipe.buffer.capacity());
    }

    #[test]
    fn only_its_own_number_is_a_marks_reply_and_only_behind_everything_it_clears() {
        let mut pipe = Pipe::default();
        pipe.push(b"one", entry(1));
        pipe.push_mark(u64::MAX);
        assert!(pipe.ends_in_mark() && !pipe.at_mark() && !pipe.is_marked());
        assert!(pipe.answered().is_some());
        assert!(pipe.at_mark() && !pipe.mark_came_back(b"$1\r\n1\r\n") && pipe.at_mark());
        let reply = b"$20\r\n18446744073709551615\r\n";
        assert!(pipe.mark_came_back(reply) && pipe.is_marked() && pipe.is_empty());
        pipe.push(b"two", entry(2));
        assert!(!pipe.is_marked());
        pipe.push_mark(7);
        pipe.push(b"three", entry(3));
        assert!(pipe.answered().is_some() && !pipe.ends_in_mark());
        assert!(pipe.mark_came_back(b"$1\r\n7\r\n") && !pipe.is_marked(), "something is behind it");
        let about = LinkKey::from(KeyData::from_ffi((9 << 32) | 3));
        assert_eq!(InFlight::unblock(about).about(), about);
    }

    #[test]
    fn streamed_bytes_are_dropped_once_sent() {
        let mut pipe = Pipe::default();
        pipe.push(b"", InFlight { flags: RequestFlags::STREAMED, ..entry(1) });
        for _ in 0..1000 {
            pipe.stream(&[b'x'; 4096]);
            assert_eq!(pipe.unsent().len(), 4096);
            pipe.mark_sent(4096);
            assert_eq!(pipe.outstanding_bytes(), 0);
        }
        assert!(pipe.buffer.capacity() <= 2 * KEEP);
        assert!(pipe.answered().is_some());
    }
}
