//! CLIENT REPLY: replies that a client does not want. Pushes are not replies, and go out all the same.

use super::Engine;
use super::send::Flow;
use crate::backend::ClientKey;
use crate::command::{Command, Handling, Local};
use crate::plan::RequestArgs;
use crate::session::ClientFlags;

/// Those of a client that does not want to be answered, for good or once.
pub(super) const QUIET: ClientFlags = ClientFlags::REPLY_OFF.with(ClientFlags::REPLY_SKIP);

impl Engine {
    /// CLIENT REPLY ON|OFF|SKIP
    pub(super) fn reply_mode(&mut self, key: ClientKey, words: &RequestArgs<'_>) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if client.flags.has(ClientFlags::AGENT) && (words.is(2, "off") || words.is(2, "skip")) {
            // Redis leaves the reply out of EXEC's, which no client can read then.
            return self
                .refuse(key, b"ERR CLIENT REPLY OFF|SKIP inside MULTI is not available through Portico");
        }
        if words.is(2, "on") {
            client.flags.clear(QUIET);
            return self.reply_ok(key);
        }
        if words.is(2, "off") {
            client.flags.clear(ClientFlags::REPLY_SKIP);
            client.flags.set(ClientFlags::REPLY_OFF);
        } else if words.is(2, "skip") {
            if !client.flags.has(ClientFlags::REPLY_OFF) {
                client.flags.set(ClientFlags::REPLY_SKIP);
            }
        } else {
            return self.refuse(key, b"ERR syntax error");
        }
        Flow::Done
    }

    /// A request whose reply is not wanted: runs it, and marks what it left in the queue of replies. What is answered
    /// at once is dropped by `reply_now`.
    pub(super) fn run_quietly(
        &mut self,
        key: ClientKey,
        command: &Command,
        run: impl FnOnce(&mut Self) -> Flow,
    ) -> Flow {
        let work = self.clients.get(key).and_then(|client| client.work.as_deref());
        let before = work.map(|work| work.queue.next());
        let flow = run(self);
        if matches!(flow, Flow::Wait(_)) || command.handling == Handling::Local(Local::ClientReply) {
            return flow;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.flags.clear(ClientFlags::REPLY_SKIP);
            if let (Some(before), Some(work)) = (before, client.work.as_deref_mut()) {
                work.queue.silence_from(before);
            }
        }
        flow
    }
}
