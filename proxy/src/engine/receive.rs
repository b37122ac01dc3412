//! Nodes' bytes: each reply goes to who asked, or is a reason to do something else.

use std::time::Instant;

use portico_resp::is_error;
use portico_slots::NodeId;

use super::guard::defect;
use super::{Engine, LARGE, LinkState};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::plan::{Action, Event, Facts, decide};
use crate::session::{ClientFlags, Pending, PendingFlags, Work};

impl Engine {
    /// Bytes from a node. Returns whether it may be read on.
    pub fn link_input(&mut self, key: LinkKey, bytes: &[u8]) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        link.moved = self.now;
        if link.passing.is_some() {
            return self.pass_large(key, bytes);
        }
        if link.pipe.partial.is_empty() {
            let used = self.replies(key, bytes);
            self.keep_partial(key, &bytes[used..])
        } else {
            let mut partial = std::mem::take(&mut link.pipe.partial);
            partial.extend_from_slice(bytes);
            let used = self.replies(key, &partial);
            let Some(link) = self.links.get_mut(key) else { return false };
            if used == 0 {
                link.pipe.partial = partial;
            } else {
                let rest = &partial[used..];
                link.pipe.partial.extend_from_slice(rest);
                if link.pipe.partial.is_empty() && partial.capacity() <= 64 * 1024 {
                    partial.clear();
                    link.pipe.partial = partial;
                }
            }
            self.keep_partial(key, &[])
        }
    }

    /// Delivers every complete reply in `bytes`; returns how many bytes they were.
    fn replies(&mut self, key: LinkKey, bytes: &[u8]) -> usize {
        let mut at = 0;
        let Some(link) = self.links.get_mut(key) else { return 0 };
        let mut scanner = std::mem::take(&mut link.pipe.replies);
        while at < bytes.len() {
            match scanner.scan(&bytes[at..]) {
                Ok(Some(end)) => {
                    self.reply(key, &bytes[at..at + end]);
                    at += end;
                }
                Ok(None) => break,
                Err(error) => {
                    let node = self.peer_of(key);
                    tracing::warn!(%node, %error, "a node's reply cannot be read; its connection is closed");
                    self.lose_link(key);
                    return bytes.len();
                }
            }
        }
        if let Some(link) = self.links.get_mut(key) {
            link.pipe.replies = scanner;
        }
        at
    }

    /// Keeps the beginning of a reply, or passes it on if it is large.
    fn keep_partial(&mut self, key: LinkKey, rest: &[u8]) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        link.pipe.partial.extend_from_slice(rest);
        if link.pipe.partial.len() > LARGE { self.begin_large(key) } else { true }
    }

    /// One complete reply.
    #[inline]
    fn reply(&mut self, key: LinkKey, reply: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        if let LinkState::Handshaking(_) = link.state {
            return self.handshake_reply(key, reply);
        }
        if reply[0] == b'>' && !link.pipe.skipping {
            return self.pushed(key, reply);
        }
        if link.pipe.skipping {
            return self.skipped(key);
        }
        if link.pipe.in_group_or_mark() {
            return self.group_reply(key, reply);
        }
        link.learn(reply.len());
        let leased = link.leased_to.is_some();
        let Some((entry, range)) = link.pipe.answered() else { return self.unasked(key, reply) };
        self.answering = entry.client;
        if is_error(reply) {
            let (node, request) = (link.node, link.pipe.bytes(range).to_vec());
            if entry.flags.has(RequestFlags::IGNORED) {
                link.scripts.clear(); // it may have been a script's text
            }
            if entry.flags.has(RequestFlags::UNBLOCK) {
                return self.unblock_done(entry.about(), true);
            }
            self.error_reply(key, node, entry, reply, &request);
            if leased {
                self.close_lease_if_done(key);
            }
            return;
        }
        const SPECIAL: RequestFlags = RequestFlags::PROBE
            .with(RequestFlags::COUNTED)
            .with(RequestFlags::BLOCKING)
            .with(RequestFlags::UNBLOCK)
            .with(RequestFlags::IMPATIENT)
            .with(RequestFlags::BUSY);
        if entry.flags.any(SPECIAL) {
            let (node, request) = (link.node, link.pipe.bytes(range).to_vec());
            return self.special_reply(key, &entry, node, reply, &request);
        }
        self.answer(&entry, reply);
        if leased {
            self.close_lease_if_done(key);
        }
    }

    /// A push: what the lane that it came on is subscribed to or tracks.
    #[cold]
    fn pushed(&mut self, key: LinkKey, push: &[u8]) {
        let Some(lane) = self.links.get(key).map(|link| link.lane) else { return };
        if lane == Lane::HUB {
            self.hub_pushed(key, push);
        } else if lane.is_leased() {
            self.tracking_push(lane, push);
        }
        // Otherwise one that nobody asked for.
    }

    /// The end of a reply whose beginning was thrown away, since nobody is there to be told it.
    #[cold]
    fn skipped(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.pipe.skipping = false;
        link.pipe.answered();
        if link.leased_to.is_some() {
            self.close_lease_if_done(key);
        }
    }

    /// A reply that is none.
    #[cold]
    fn unasked(&mut self, key: LinkKey, reply: &[u8]) {
        if self.links.get(key).is_some_and(|link| link.lane == Lane::MONITOR) {
            return self.monitored(reply);
        }
        tracing::warn!(node = %self.peer_of(key), "a node sent a reply that nobody asked for; its connection is closed");
        self.lose_link(key);
    }

    /// A reply that is not passed on as it is.
    #[cold]
    fn special_reply(&mut self, key: LinkKey, entry: &InFlight, node: NodeId, reply: &[u8], request: &[u8]) {
        if entry.flags.has(RequestFlags::PROBE) {
            return self.upload_probed(entry.client);
        }
        if entry.flags.has(RequestFlags::IMPATIENT) {
            return self.question_answered(entry, reply);
        }
        if entry.flags.has(RequestFlags::BUSY) {
            return; // it is not
        }
        if entry.flags.has(RequestFlags::UNBLOCK) {
            return self.unblock_done(entry.about(), true);
        }
        if entry.flags.has(RequestFlags::BLOCKING) {
            if !self.holds_back(key, entry, reply) {
                self.tell_waited(entry, reply);
            }
            return;
        }
        let counted = self.receivers(node, request, reply);
        self.answer(entry, &counted);
    }

    /// One of the replies to several requests that count as one.
    #[cold]
    fn group_reply(&mut self, key: LinkKey, reply: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.pipe.at_mark() {
            return self.mark_reply(key, reply);
        }
        if link.pipe.in_subscription() {
            return self.subscription_reply(key, reply);
        }
        if super::block::ends_wait(reply) && link.pipe.group_goes_on() && link.pipe.group_notes().is_some() {
            return; // its first request was postponed, and will be answered once more
        }
        if let Some((entry, place)) = link.pipe.group_notes() {
            self.note_end(entry, place as usize, reply);
        }
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(group) = link.pipe.group_reply(reply) else { return };
        let Some((entry, range)) = link.pipe.answered() else { return };
        self.answering = entry.client;
        let (node, request) = (link.node, link.pipe.bytes(range).to_vec());
        if entry.flags.has(RequestFlags::TRANSACTION) {
            self.transaction_reply(node, entry, &group.refused, reply, &request);
        } else if is_error(reply) {
            self.error_reply(key, node, entry, reply, &request);
        } else if entry.flags.has(RequestFlags::BLOCKING) {
            self.special_reply(key, &entry, node, reply, &request);
        } else {
            self.answer(&entry, reply);
        }
    }

    #[cold]
    fn error_reply(&mut self, key: LinkKey, node: NodeId, entry: InFlight, reply: &[u8], request: &[u8]) {
        if entry.flags.has(RequestFlags::IGNORED)
            || entry.flags.has(RequestFlags::BLOCKING) && self.holds_back(key, &entry, reply)
        {
            return;
        }
        self.decide(entry, Some(node), Event::Error(reply), request);
    }

    /// Decides what to do about a request that a node refused or that was lost, and begins to do it.
    pub(super) fn decide(&mut self, entry: InFlight, node: Option<NodeId>, event: Event<'_>, request: &[u8]) {
        self.decide_since(entry, node, event, request, self.now);
    }

    /// As [`Engine::decide`], of a request that was unanswered since `sent_by`.
    pub(super) fn decide_since(
        &mut self,
        entry: InFlight,
        node: Option<NodeId>,
        event: Event<'_>,
        request: &[u8],
        sent_by: Instant,
    ) {
        if entry.flags.has(RequestFlags::IMPATIENT) {
            let refusal = if let Event::Error(reply) = event { reply } else { b"" };
            return self.question_answered(&entry, refusal);
        }
        if entry.flags.has(RequestFlags::BUSY) {
            if let Event::Error(reply) = event {
                self.busy_answered(entry.client, reply);
            }
            return;
        }
        self.spoil_trial(entry.client, event);
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        let attempt = client.work.as_deref_mut().and_then(|work| {
            let current =
                work.attempt.take_if(|attempt| attempt.seq == entry.seq && attempt.part == entry.part);
            current.filter(|_| entry.flags.has(RequestFlags::RETRY))
        });
        // What any node may take is taken by another at once, however long the first was waited for.
        let anywhere = entry.flags.has(RequestFlags::ANYWHERE);
        let sent_by = if anywhere { self.now } else { sent_by };
        let (hops, since) =
            attempt.map_or((0, sent_by), |attempt| (attempt.hops, attempt.since.min(sent_by)));
        if entry.flags.has(RequestFlags::BLOCKING) {
            return self.block_interrupted(entry, node, event, hops);
        }
        if entry.part != InFlight::WHOLE
            && entry.flags.has(RequestFlags::ANYWHERE.with(RequestFlags::READONLY))
            && matches!(event, Event::Lost { .. })
            && self.is_about_listeners(&entry)
        {
            return self.answer(&entry, b"*0\r\n"); // nobody listens at a node that is gone
        }
        let waited = self.now.saturating_duration_since(since);
        let facts = Facts {
            slot: entry.slot,
            readonly: entry.flags.has(RequestFlags::READONLY),
            script: entry.flags.has(RequestFlags::SCRIPT),
            can_load: self.lacks_script(&entry, node, event, request),
            streamed: entry.flags.has(RequestFlags::STREAMED),
            hops_left: self.config.max_redirections.saturating_sub(hops),
            expired: waited >= self.config.failover_timeout,
            tryagain_expired: waited >= self.config.tryagain_timeout,
        };
        let action = decide(event, facts);
        if entry.flags.has(RequestFlags::PROBE) {
            return self.upload_refused(entry.client, event, action);
        }
        let went = matches!(action, Action::Pass | Action::Refuse(_));
        if entry.flags.has(RequestFlags::GUARDED) && !went {
            return self.answer_nil(&entry);
        }
        if !entry.flags.has(RequestFlags::TRANSACTION) && (went || matches!(action, Action::Ask { .. })) {
            self.watch_failed(entry.client);
        }
        match action {
            Action::Pass => match event {
                Event::Error(reply) => self.answer(&entry, &crate::plan::advised(reply)),
                Event::Lost { .. } => {}
            },
            Action::Refuse(refusal) => self.refuse_request(&entry, node, refusal, since),
            retry => self.park(entry, request.to_vec(), retry, hops, since),
        }
    }

    /// Gives a client its reply, or a fanned out request its part.
    #[inline]
    pub(super) fn answer(&mut self, entry: &InFlight, reply: &[u8]) {
        defect(reply.get(..11).unwrap_or_default());
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        client.in_flight = client.in_flight.saturating_sub(1);
        client.learn(reply.len());
        let Some(work) = client.work.as_deref_mut() else { return };
        if entry.part != InFlight::WHOLE {
            return self.part_answered(entry, reply);
        }
        if let Some(pending) = work.queue.complete(entry.seq, reply, &mut work.out) {
            self.completed(entry.client, pending);
        }
    }

    /// What follows when a request was answered.
    #[inline]
    pub(super) fn completed(&mut self, key: ClientKey, pending: Pending) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if pending.flags.has(PendingFlags::WRITE) {
            client.writes -= 1;
        }
        if pending.flags.has(PendingFlags::MULTI_KEY) {
            client.multi_key -= 1;
        }
        if client.flags.set(ClientFlags::DIRTY) {
            self.dirty_clients.push(key);
        }
        const LOOK: ClientFlags = ClientFlags::CAREFUL.with(ClientFlags::STALLED).with(ClientFlags::HOLDS);
        let look = client.flags.any(LOOK);
        let held = client.work.as_deref().map_or(0, Work::reply_bytes);
        if look {
            self.look_again(key);
        }
        if held as u64 > self.output_watch {
            self.watch_output(key);
        }
    }

    #[cold]
    fn look_again(&mut self, key: ClientKey) {
        if self.clients.get(key).is_some_and(|client| client.flags.has(ClientFlags::HOLDS)) {
            self.tell_held(key);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(work) = client.work.as_deref() else { return };
        let outstanding = work.queue.outstanding_count();
        if outstanding == 0 && work.parked.is_empty() {
            client.flags.clear(ClientFlags::CAREFUL);
            if client.flags.has(ClientFlags::BLOCKED) {
                return self.unblock(key);
            }
        }
        if client.flags.has(ClientFlags::STALLED)
            && (outstanding < Self::RESUME_AT || client.flags.has(ClientFlags::CAREFUL))
            && client.flags.set(ClientFlags::AWOKEN)
        {
            self.awoken.push(key);
        }
    }

    /// A client holds more replies than it may: closed, as Redis closes it.
    #[cold]
    pub(super) fn over_limit(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        tracing::warn!(id = client.id, "client closed for overcoming of output buffer limits");
        self.counters.output_limit_disconnections += 1;
        self.close_client(key);
    }
}
