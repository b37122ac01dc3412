//! What clients are told without having asked: messages, and what MONITOR shows.

use super::Engine;
use crate::backend::ClientKey;
use crate::pubsub::in_resp2;
use crate::session::{Client, ClientFlags, Work};
use portico_resp::Protocol;

impl Engine {
    /// Tells several clients the same. `push` is as a RESP3 client gets it.
    pub(super) fn tell_all(&mut self, clients: &[ClientKey], push: &[u8]) {
        let array = in_resp2(push);
        for &key in clients {
            self.tell(key, push, &array);
        }
    }

    /// Tells a client something between two replies.
    pub(super) fn tell(&mut self, key: ClientKey, push: &[u8], array: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.flags.has(ClientFlags::CLOSING) {
            return; // nothing comes behind the reply to QUIT
        }
        let pool = &mut self.pool;
        let protocol = client.protocol();
        let work: &mut Work = client.work.get_or_insert_with(|| pool.works.pop().unwrap_or_default());
        let frame = if protocol == Protocol::Resp3 { push } else { array };
        // A RESP2 client takes whatever comes next for the reply to its request.
        let subscribing = client.standing.as_deref().is_some_and(|standing| !standing.subscribing.is_empty());
        let waits = subscribing || protocol == Protocol::Resp2 && !work.queue.is_empty();
        let bytes = if waits || client.flags.any(ClientFlags::PASSING.with(ClientFlags::HOLDS)) {
            client.flags.set(ClientFlags::HOLDS);
            let untold = work.reply_bytes();
            let held = &mut client.standing().held;
            held.extend_from_slice(frame);
            untold + held.len()
        } else {
            work.out.extend_from_slice(frame);
            work.reply_bytes()
        };
        if client.flags.set(ClientFlags::DIRTY) {
            self.dirty_clients.push(key);
        }
        if bytes as u64 > self.output_watch {
            self.watch_output(key);
        }
    }

    /// A reply is through: what waited for that is told.
    pub(super) fn tell_held(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let resp2 = client.protocol() == Protocol::Resp2;
        let Some(work) = client.work.as_deref_mut() else { return };
        if client.flags.has(ClientFlags::PASSING) || resp2 && !work.queue.is_empty() {
            return;
        }
        client.flags.clear(ClientFlags::HOLDS);
        if let Some(standing) = client.standing.as_deref_mut() {
            work.out.extend_from_slice(&std::mem::take(&mut standing.held));
        }
        self.mark_client(key);
    }

    /// A client holds more than any class of clients is sure to be allowed: closed if that is too much for its class,
    /// as Redis closes it.
    #[cold]
    pub(super) fn watch_output(&mut self, key: ClientKey) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return };
        let limits = &self.config.client_output_buffer_limit;
        let limit = if client.flags.has(ClientFlags::SUBSCRIBED) { limits.pubsub } else { limits.normal };
        let held = client.standing.as_deref().map_or(0, |standing| standing.held.len());
        let bytes = (client.work.as_deref().map_or(0, Work::reply_bytes) + held) as u64;
        let mut over = bytes > limit.hard();
        if bytes > limit.soft() {
            let since = *client.standing().soft_since.get_or_insert(now);
            over |= now.saturating_duration_since(since) > limit.patience;
        } else if let Some(standing) = client.standing.as_deref_mut() {
            standing.soft_since = None;
        }
        if over {
            self.over_limit(key);
        }
    }

    /// Once a second: clients that have held much for long.
    pub(super) fn watch_outputs(&mut self) {
        let slow: Vec<ClientKey> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                client.standing.as_deref().is_some_and(|standing| standing.soft_since.is_some())
            })
            .map(|(key, _)| key)
            .collect();
        slow.into_iter().for_each(|key| self.watch_output(key));
        let limit = self.config.client_output_buffer_limit.normal.hard();
        let over = |client: &Client| client.is_unread() && client.would_hold() > limit;
        let deaf: Vec<ClientKey> =
            self.clients.iter().filter(|(_, client)| over(client)).map(|(key, _)| key).collect();
        deaf.into_iter().for_each(|key| self.over_limit(key));
    }
}
