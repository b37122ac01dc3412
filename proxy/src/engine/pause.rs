//! CLIENT PAUSE and UNPAUSE: requests that wait until the pause ends. It is the whole process': what is paused stands
//! in what all workers share, and each is told to look at it, so that it holds everywhere once the client is answered.

use super::send::Flow;
use super::{Engine, Question};
use crate::backend::ClientKey;
use crate::command::{Command, Flags, Handling, Local, Resolved, Transaction};
use crate::local;
use crate::plan::{RequestArgs, with_queued};
use crate::scripts::Sha;
use crate::session::{Client, ClientFlags};
use crate::topology::Cluster;

impl Engine {
    /// CLIENT PAUSE or UNPAUSE.
    pub(super) fn change_pause(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Flow {
        if command.handling == Handling::Local(Local::ClientUnpause) {
            self.shared.unpause();
        } else {
            match local::pause(words, &cluster.identity) {
                Ok((time, all)) => self.shared.pause(self.now, time, all),
                Err(error) => return self.refuse(key, &error),
            }
        }
        // What this client has sent behind it is affected already.
        self.look_at_pause();
        self.fan_workers(key, command, Question::Pause)
    }

    /// The pause has begun, changed or ended.
    pub(super) fn look_at_pause(&mut self) {
        self.pause = if self.stopping { None } else { self.shared.paused(self.now) };
        self.choose_whom_to_look_at();
        if self.pause.is_some() {
            return;
        }
        self.wake_paused();
    }

    /// Whoever waits for the end of the pause is looked at again.
    fn wake_paused(&mut self) {
        self.waiting.go_on(usize::MAX);
        // The last is looked at first.
        for key in std::mem::take(&mut self.paused).into_iter().rev() {
            if let Some(client) = self.clients.get_mut(key)
                && client.is_paused()
            {
                client.stall = None;
                self.wake(key);
            }
        }
    }

    /// While there is a pause, or somebody is told of every command, whatever is let in is looked at.
    pub(super) fn choose_whom_to_look_at(&mut self) {
        self.look = ClientFlags::LOOKED_AT;
        if self.pause.is_some() || self.shown {
            self.look.set(ClientFlags::AUTHENTICATED);
        }
    }

    /// A client waits for the end of the pause.
    pub(super) fn wait_for_pause(&mut self, key: ClientKey) {
        if self.paused.len() > 2 * self.clients.len() {
            let clients = &self.clients;
            self.paused.retain(|&key| clients.get(key).is_some_and(Client::is_paused));
        }
        self.paused.push(key);
        self.waiting.pause();
    }

    /// Whether a request has to wait for the end of the pause. Portico's own never do: they are part of something that
    /// began before. Nor do those of clients that MONITOR, which Redis takes for replicas.
    pub(super) fn is_held(
        &self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> bool {
        let Some(pause) = self.pause else { return false };
        let Some(client) = self.clients.get(key) else { return false };
        const FREE: ClientFlags = ClientFlags::AGENT.with(ClientFlags::MONITOR);
        if client.flags.any(FREE) || command.name == "quit" {
            return false;
        }
        let exec = command.handling == Handling::Transaction(Transaction::Exec);
        pause.all || self.may_write(command, words) || exec && self.queued_writes(client, cluster)
    }

    /// Whether a command may change data or tell other clients something: what Redis may replicate.
    pub(super) fn may_write(&self, command: &Command, words: &RequestArgs<'_>) -> bool {
        if !command.is_script() || command.flags.has(Flags::READONLY) {
            return command.flags.has(Flags::WRITE)
                || ["publish", "spublish", "pfcount"].contains(&command.name);
        }
        match command.name {
            "eval" => !declares_no_writes(words.word(1)),
            "evalsha" => {
                let script = Sha::parse(words.word(1)).and_then(|sha| self.shared.scripts.script(&sha));
                script.is_none_or(|script| !declares_no_writes(&script.text))
            }
            "fcall" => {
                let function = self.shared.scripts.functions.find(words.word(1));
                function.is_none_or(|function| !function.no_writes)
            }
            _ => true,
        }
    }

    /// Whether a transaction has a command in its queue that may write.
    fn queued_writes(&self, client: &Client, cluster: &Cluster) -> bool {
        let Some(standing) = client.standing.as_deref() else { return false };
        let queued = &standing.transaction;
        let writes = |args: &RequestArgs<'_>| match cluster.table.resolve(args) {
            Resolved::Command(command) => self.may_write(command, args),
            _ => false,
        };
        client.flags.has(ClientFlags::MULTI)
            && queued
                .ranges
                .iter()
                .any(|range| with_queued(&queued.requests[range.clone()], writes).unwrap_or(false))
    }
}

/// Whether a script's first line says that it does not write.
fn declares_no_writes(script: &[u8]) -> bool {
    let line = script.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"#!") && line.windows(9).any(|part| part == b"no-writes")
}
