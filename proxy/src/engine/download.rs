//! A reply too large to keep: passed to its client as it comes, in bounded memory.

use super::{Effect, Engine, LARGE, LinkState};
use crate::backend::{ClientKey, InFlight, LinkKey, RequestFlags};
use crate::session::{ClientFlags, PendingFlags};

impl Engine {
    /// Untold bytes of a client above which the node is not read on.
    const THROTTLE_ABOVE: usize = 4 << 20;
    /// Untold bytes of a client below which the node is read again.
    const THROTTLE_BELOW: usize = 1 << 20;

    /// The reply that is being received became large. Returns whether the node may be read on.
    #[cold]
    pub(super) fn begin_large(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        if matches!(link.state, LinkState::Handshaking(_)) {
            self.lose_link(key);
            return false;
        }
        let Some(entry) = link.pipe.oldest().copied() else { return true };
        if entry.flags.has(RequestFlags::MARK) {
            let more_may_come = link.withdrawn.is_some();
            if !more_may_come {
                self.lose_link(key); // that is no number
            }
            return more_may_come;
        }
        let limit = self.config.client_output_buffer_limit.normal.hard();
        let owned = RequestFlags::IGNORED.with(RequestFlags::PROBE).with(RequestFlags::GROUP);
        let group = entry.flags.has(RequestFlags::GROUP);
        let is_push = !link.pipe.skipping && link.pipe.partial.first() == Some(&b'>');
        let agent = self.clients.get(entry.client).is_some_and(|client| client.flags.has(ClientFlags::AGENT));
        let Some(work) = self.clients.get(entry.client).and_then(|client| client.work.as_deref()) else {
            if is_push || group {
                return true; // kept whole: it is not, or not only, the answer to whoever is gone
            }
            // Whoever asked is gone.
            link.pipe.skipping = true;
            let known = link.pipe.replies.position();
            link.pipe.partial.drain(..known);
            link.pipe.replies.rebase(known);
            return true;
        };
        let passes = !agent
            && entry.part == InFlight::WHOLE
            && entry.flags.without(owned) == entry.flags
            && !matches!(link.pipe.partial.first(), Some(b'-' | b'!' | b'>'))
            && work.queue.is_oldest(entry.seq);
        if !passes {
            if link.pipe.partial.len() as u64 > limit {
                self.over_limit(entry.client);
            }
            return true;
        }
        if let Some(client) = self.clients.get_mut(entry.client)
            && let Some(work) = client.work.as_deref_mut()
            && let Some(pending) = work.queue.get_mut(entry.seq)
        {
            pending.flags = pending.flags.with(PendingFlags::STREAMING);
        }
        self.counters.large_replies += 1;
        link.learn(LARGE);
        let returns = matches!(link.state, LinkState::Ready) && link.leased_to.is_none();
        link.passing = Some(entry.client);
        if let Some(client) = self.clients.get_mut(entry.client) {
            client.flags.set(ClientFlags::PASSING);
            client.learn(LARGE);
        }
        // A client waits for nobody but itself on a lane of its own, and what it watches is watched there.
        if !link.lane.is_leased() {
            link.state = LinkState::Draining { since: self.now, returns };
            let routes = &mut self.routes[link.lane.index()];
            routes.iter_mut().filter(|route| **route == key).for_each(|route| *route = LinkKey::default());
        }
        // Who has more on this connection looks before it sends to the same slots on the one that takes its place.
        for entry in link.pipe.in_flight() {
            if let Some(client) = self.clients.get_mut(entry.client) {
                client.flags.set(ClientFlags::CAREFUL);
            }
        }
        let partial = std::mem::take(&mut link.pipe.partial);
        link.pipe.replies.reset();
        self.pass_large(key, &partial)
    }

    /// More bytes on a connection that is passing a large reply on.
    pub(super) fn pass_large(&mut self, key: LinkKey, bytes: &[u8]) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        let Some(client_key) = link.passing else { return true };
        let joined;
        let bytes = if link.pipe.partial.is_empty() {
            bytes
        } else {
            let mut partial = std::mem::take(&mut link.pipe.partial);
            partial.extend_from_slice(bytes);
            joined = partial;
            &joined
        };
        let end = match link.pipe.replies.scan(bytes) {
            Ok(end) => end,
            Err(error) => {
                let node = self.peer_of(key);
                tracing::warn!(%node, %error, "a node's reply cannot be read; its connection is closed");
                self.lose_link(key);
                return false;
            }
        };
        let known = end.unwrap_or_else(|| link.pipe.replies.position());
        if end.is_none() {
            link.pipe.replies.rebase(known);
            link.pipe.partial.extend_from_slice(&bytes[known..]);
        }
        let mut untold = 0;
        if let Some(client) = self.clients.get_mut(client_key)
            && let Some(work) = client.work.as_deref_mut()
        {
            if !work.queue.oldest_is_silent() {
                work.out.extend_from_slice(&bytes[..known]);
            }
            untold = work.untold();
            if client.flags.set(ClientFlags::DIRTY) {
                self.dirty_clients.push(client_key);
            }
        }
        if end.is_some() {
            self.end_large(key);
            return self.link_input(key, &bytes[known..]);
        }
        let behind = link.pipe.in_flight().skip(1);
        let others_wait = behind
            .into_iter()
            .any(|entry| entry.client != client_key && self.clients.contains_key(entry.client));
        if others_wait {
            // They were sent before it was known to be large: the reply is held, up to the limit, not they.
            if untold as u64 > self.config.client_output_buffer_limit.normal.hard() {
                self.over_limit(client_key);
            }
        } else if untold > Self::THROTTLE_ABOVE {
            link.throttled = true;
            if let Some(client) = self.clients.get_mut(client_key) {
                client.flags.set(ClientFlags::THROTTLING);
            }
            return false;
        }
        true
    }

    /// The large reply has passed.
    fn end_large(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.passing = None;
        let answered = link.pipe.answered();
        let (node, lane) = (link.node, link.lane);
        if let LinkState::Draining { since, returns: true } = link.state {
            let index = self.cluster.topology.index_of(&node);
            let route = index.map(|index| &mut self.routes[lane.index()][usize::from(index)]);
            match route {
                Some(route)
                    if *route == LinkKey::default()
                        && self.cluster.topology.node(index.unwrap_or(0)).is_master() =>
                {
                    *route = key;
                    link.state = LinkState::Ready;
                    self.wake_stalled();
                }
                _ => link.state = LinkState::Draining { since, returns: false },
            }
        }
        if let Some((entry, _)) = answered {
            if let Some(client) = self.clients.get_mut(entry.client) {
                client.flags.clear(ClientFlags::PASSING);
            }
            self.answer(&entry, b"");
        }
        self.close_lease_if_done(key);
    }

    /// A client drained its replies, or is gone: the node that waits for it is read again.
    pub(super) fn resume_throttled(&mut self, client: ClientKey) {
        let waiting =
            self.links.iter_mut().filter(|(_, link)| link.throttled && link.passing == Some(client));
        for (key, link) in waiting {
            link.throttled = false;
            link.moved = self.now;
            self.effects.push(Effect::ResumeLink(key));
        }
    }

    /// Whether a client that a node waits for has drained enough.
    pub(super) fn drained(&self, client: ClientKey) -> bool {
        let work = self.clients.get(client).and_then(|client| client.work.as_deref());
        work.is_none_or(|work| work.untold() < Self::THROTTLE_BELOW)
    }
}
