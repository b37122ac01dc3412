//! Requests that are looked at before they run: of clients that are in a transaction, subscribed, not let in yet or
//! do not want to be answered, and of all during CLIENT PAUSE.

use portico_resp::{Arg, Protocol};

use super::Engine;
use super::quiet::QUIET;
use super::send::Flow;
use crate::backend::ClientKey;
use crate::command::{Command, Flags, Handling, PubSub, Transaction};
use crate::plan::RequestArgs;
use crate::session::{ClientFlags, Stall};
use crate::topology::Cluster;

impl Engine {
    /// What becomes of a request that does not run now, in the order in which Redis checks (`processCommand`). None:
    /// it runs.
    #[cold]
    pub(super) fn look_first(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Option<Flow> {
        let client = self.clients.get_mut(key)?;
        client.last_command = command.name;
        let quiet = client.flags.any(QUIET);
        if !quiet && !self.shown {
            return self.look(key, cluster, command, request, args);
        }
        let run = |engine: &mut Self| {
            let flow = engine.look(key, cluster, command, request, args);
            flow.unwrap_or_else(|| {
                let words = RequestArgs::new(request, args);
                engine.run_and_show(key, command, &words, |engine| {
                    engine.run(key, cluster, command, request, args)
                })
            })
        };
        Some(if quiet { self.run_quietly(key, command, run) } else { run(self) })
    }

    fn look(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Option<Flow> {
        let client = self.clients.get(key)?;
        let (flags, protocol) = (client.flags, client.protocol());
        let let_in = flags.has(ClientFlags::AUTHENTICATED) || self.config.requirepass.is_none();
        if !let_in && !command.flags.has(Flags::NO_AUTH) {
            return Some(self.reject(key, command, b"NOAUTH Authentication required."));
        }
        if flags.has(ClientFlags::SUBSCRIBED)
            && protocol == Protocol::Resp2
            && !runs_while_subscribed(command)
        {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                command.name
            );
            return Some(self.reject(key, command, text.as_bytes()));
        }
        let words = RequestArgs::new(request, args);
        if command.name == "fcall"
            && self.pause.is_some_and(|pause| !pause.all)
            && let Err(stall) = self.known_function(key, words.word(1))
        {
            return Some(Flow::Wait(stall)); // whether it may write is not known yet
        }
        if self.is_held(key, cluster, command, &words) {
            return Some(Flow::Wait(Stall::Paused));
        }
        if flags.has(ClientFlags::MONITOR)
            && (command.flags.has(Flags::READONLY) || self.may_write(command, &words))
        {
            return Some(self.reject(key, command, b"ERR Replica can't interact with the keyspace"));
        }
        if flags.has(ClientFlags::SUBSCRIBING) && !subscribes(command) {
            return Some(Flow::Wait(Stall::Order));
        }
        if flags.has(ClientFlags::MULTI) && !runs_in_multi(command) {
            return Some(self.queue(key, cluster, command, request, &words));
        }
        if flags.has(ClientFlags::TRACKING) {
            return self.look_tracked(key, cluster, command, request, args);
        }
        None
    }
}

/// Commands that a RESP2 client may send while it is subscribed.
fn runs_while_subscribed(command: &Command) -> bool {
    const NAMES: [&str; 9] = [
        "subscribe",
        "ssubscribe",
        "psubscribe",
        "unsubscribe",
        "sunsubscribe",
        "punsubscribe",
        "ping",
        "quit",
        "reset",
    ];
    NAMES.contains(&command.name)
}

/// Commands that add to a client's subscriptions.
fn subscribes(command: &Command) -> bool {
    use PubSub as P;
    matches!(command.handling, Handling::PubSub(P::Subscribe | P::Psubscribe | P::Ssubscribe))
}

/// Commands that a transaction does not queue.
fn runs_in_multi(command: &Command) -> bool {
    match command.handling {
        Handling::Transaction(what) => what != Transaction::Unwatch,
        _ => ["quit", "reset"].contains(&command.name),
    }
}
