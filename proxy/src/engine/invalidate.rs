//! What nodes say of the keys that they track, on its way to the client that has cached them.
//!
//! Whenever a node may have forgotten what was read there, the client is told to forget everything. That can only be
//! told too often, never too late: so several nodes' FLUSHALL within a moment are told once, at its end.

use std::time::Duration;

use portico_resp::{Protocol, encode, is_null};

use super::{Effect, Engine, Note};
use crate::backend::{ClientKey, Lane};
use crate::session::{ClientFlags, Hearer, Work};

/// How an invalidation begins; the keys follow.
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
/// The same for a subscriber in RESP2.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
/// How long others that say the same are waited for.
const TOGETHER: Duration = Duration::from_millis(10);
/// When a client whose invalidations go to another has long been answered what was outstanding.
const LATER: Duration = Duration::from_millis(500);

impl Engine {
    /// Something that a node said on a leased lane without having been asked.
    pub(super) fn tracking_push(&mut self, lane: Lane, push: &[u8]) {
        let Some(keys) = push.strip_prefix(INVALIDATE) else { return };
        let lane = self.lanes[lane.index()].listens_for.unwrap_or(lane);
        let Some(key) = self.tracker(lane) else { return };
        if is_null(keys) {
            return self.flush_soon(key, false);
        }
        self.invalidate(key, keys);
    }

    /// These keys are not what they were when the client read them.
    fn invalidate(&mut self, key: ClientKey, keys: &[u8]) {
        let Some(client) = self.clients.get(key) else { return };
        let Some(tracking) = client.tracking() else { return };
        match tracking.hearer {
            None if client.protocol() == Protocol::Resp3 => self.interject(key, &[INVALIDATE, keys].concat()),
            None => {}
            Some(Hearer { worker, client }) if worker == self.worker => {
                let there = self.hear(client, keys);
                if !there {
                    self.redirection_broken(key);
                }
            }
            Some(Hearer { worker, client }) => {
                let tracker = (self.worker, key);
                let note = Note::Invalid { hearer: client, tracker, keys: keys.to_vec() };
                self.effects.push(Effect::Tell(worker, note));
            }
        }
    }

    /// Another worker has something to say about a client.
    pub fn noted(&mut self, note: Note) {
        match note {
            Note::Invalid { hearer, tracker: (worker, key), keys } => {
                if !self.hear(hearer, &keys) {
                    self.effects.push(Effect::Tell(worker, Note::Broken(key)));
                }
            }
            Note::Broken(key) => self.redirection_broken(key),
            Note::Shown(line) => self.tell_monitors(&line),
        }
    }

    /// Tells a client what is meant for another. Returns whether it is still there.
    fn hear(&mut self, key: ClientKey, keys: &[u8]) -> bool {
        let Some(client) = self.clients.get(key).filter(|client| !client.flags.has(ClientFlags::AGENT))
        else {
            return false;
        };
        if client.protocol() == Protocol::Resp3 || client.flags.has(ClientFlags::SUBSCRIBED) {
            self.tell(key, &[INVALIDATE, keys].concat(), &[MESSAGE, keys].concat());
        }
        true
    }

    /// The client that was to be told in this one's place has gone.
    fn redirection_broken(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let protocol = client.protocol();
        let standing = client.standing.as_deref_mut();
        let Some(tracking) = standing.and_then(|standing| standing.tracking.as_deref_mut()) else { return };
        tracking.broken = true;
        let redirect = tracking.mode.redirect;
        if protocol == Protocol::Resp3 {
            let mut push = b">2\r\n$21\r\ntracking-redir-broken\r\n".to_vec();
            encode::integer(&mut push, redirect.cast_signed());
            self.interject(key, &push);
        }
    }

    /// Tells a client something between two replies.
    fn interject(&mut self, key: ClientKey, push: &[u8]) {
        self.tell_pushed(key, |work, waits| match waits {
            // Nothing of what it waits for is a value of a key.
            true => work.out.extend_from_slice(push),
            false => work.queue.interject(push, &mut work.out),
        });
    }

    fn tell_pushed(&mut self, key: ClientKey, tell: impl FnOnce(&mut Work, bool)) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let waits = client.is_waiting();
        let pool = &mut self.pool;
        let work: &mut Work = client.work.get_or_insert_with(|| pool.works.pop().unwrap_or_default());
        tell(work, waits);
        let held = work.reply_bytes();
        self.mark_client(key);
        if held as u64 > self.output_watch {
            self.watch_output(key);
        }
    }

    /// Nothing that the client has cached is known to be valid: it is told so in a moment. `behind`: and again behind
    /// the replies that it waits for then.
    pub(super) fn flush_soon(&mut self, key: ClientKey, behind: bool) {
        let Some(standing) = self.clients.get_mut(key).and_then(|client| client.standing.as_deref_mut())
        else {
            return;
        };
        let Some(tracking) = standing.tracking.as_deref_mut() else { return };
        tracking.behind |= behind;
        if !std::mem::replace(&mut tracking.flush, true) {
            self.flushing.insert((self.now + TOGETHER, key));
        }
    }

    /// Tells clients to forget everything whose moment is over.
    pub(super) fn tell_flushes(&mut self) {
        while let Some(&(at, key)) = self.flushing.first() {
            if at > self.now {
                return;
            }
            self.flushing.pop_first();
            self.flush(key);
        }
    }

    /// Tells a client to forget everything if it was to be told.
    pub(super) fn flush(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let protocol = client.protocol();
        let outstanding = client.work.as_deref().map_or(0, |work| work.queue.outstanding_count());
        let standing = client.standing.as_deref_mut();
        let Some(tracking) = standing.and_then(|standing| standing.tracking.as_deref_mut()) else { return };
        if !std::mem::take(&mut tracking.flush) {
            return;
        }
        let behind = std::mem::take(&mut tracking.behind) && outstanding > 0;
        let direct = tracking.hearer.is_none();
        let mut null = Vec::new();
        encode::null(&mut null, protocol);
        self.invalidate(key, &null);
        if behind && direct && protocol == Protocol::Resp3 {
            let push = [INVALIDATE, &null].concat();
            self.tell_pushed(key, |work, _| work.queue.push_answered(&push, &mut work.out));
        } else if behind && !direct {
            self.flushing.insert((self.now + LATER, key));
            self.again(key);
        }
    }

    fn again(&mut self, key: ClientKey) {
        let standing = self.clients.get_mut(key).and_then(|client| client.standing.as_deref_mut());
        if let Some(tracking) = standing.and_then(|standing| standing.tracking.as_deref_mut()) {
            tracking.flush = true;
        }
    }
}
