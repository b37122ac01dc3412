//! CLIENT REPLY: replies that a client does not want. Pushes are not replies, and go out all the same.

use super::Engine;
use super::send::Flow;
use crate::backend::ClientKey;
use crate::command::{Command, Handling, Local};
use crate::plan::{RequestArgs, Step};
use crate::session::{ClientFlags, Exec, PendingFlags};

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
            let whose = self.listener_of(key);
            if let Some(client) = self.clients.get_mut(whose) {
                client.flags.clear(QUIET);
            }
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

    /// A step of an EXEC was answered whose replies were not wanted: if that was CLIENT REPLY ON, its answer and what
    /// comes behind it are told after all, without the beginning of the array, as by Redis.
    pub(super) fn heed_reply_on(&mut self, exec: &Exec) {
        let Some(&Step::Alone(at)) = exec.steps.get(exec.begun.wrapping_sub(1)) else { return };
        let owner = self.clients.get_mut(exec.owner).filter(|owner| !owner.flags.any(QUIET));
        let Some(owner) = owner else { return };
        let pending = owner.work.as_deref_mut().and_then(|work| work.queue.get_mut(exec.seq));
        let Some(pending) = pending.filter(|pending| pending.flags.has(PendingFlags::SILENT)) else { return };
        pending.flags = pending.flags.without(PendingFlags::SILENT);
        owner.standing().unsaid = exec.replies[..at].iter().flatten().map(Vec::len).sum::<usize>().into();
    }

    /// What is told of an EXEC's reply.
    pub(super) fn said_of(reply: &[u8], unsaid: usize) -> &[u8] {
        let head = reply.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if reply.starts_with(b"*") { reply.get(head + unsaid..).unwrap_or_default() } else { reply }
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
