//! Requests of a client that tracks; CLIENT CACHING goes to the node with the command that it is about.

use portico_resp::{Arg, Items, encode};
use portico_slots::{Slot, slot};

use super::Engine;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, RequestFlags};
use crate::command::{Command, Flags, Handling};
use crate::plan::RequestArgs;
use crate::session::{Caching, ClientFlags, Parked};
use crate::topology::Cluster;

impl Engine {
    /// A request of a client that tracks. None: it runs as any other.
    pub(super) fn look_tracked(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Option<Flow> {
        let client = self.clients.get(key)?;
        if client.tracking().is_some_and(|tracking| tracking.flush && tracking.hearer.is_none()) {
            self.flush(key); // as if it had been told at once
        }
        let client = self.clients.get(key)?;
        let said = client.standing.as_deref()?.caching?;
        // It holds for the next command that is no CLIENT, or for a whole transaction.
        if client.flags.has(ClientFlags::AGENT) || command.name.starts_with("client") {
            return None;
        }
        let flow = if client.flags.has(ClientFlags::MULTI) {
            self.run(key, cluster, command, request, args)
        } else {
            self.run_caching(key, cluster, command, request, args, said)
        };
        if !matches!(flow, Flow::Wait(_)) {
            self.forget_caching(key);
        }
        Some(flow)
    }

    /// What the client said held for the command that was just looked at, unless that is part of a transaction.
    pub(super) fn forget_caching(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.flags.has(ClientFlags::MULTI)
            && let Some(standing) = client.standing.as_deref_mut()
        {
            standing.caching = None;
        }
    }

    /// Sends a command with what its client said of its keys.
    fn run_caching(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
        said: Caching,
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let mut traits = Traits::of(command);
        let mut positions = Vec::new();
        let tracked = (command.flags.has(Flags::READONLY) || command.is_script())
            && command.key_positions(&words, &mut positions).is_ok();
        if !tracked || positions.is_empty() {
            return self.run(key, cluster, command, request, args);
        }
        let keys = || positions.iter().map(|&at| words.word(at as usize));
        let mut slots: Vec<Slot> = keys().map(slot).collect();
        slots.dedup();
        let plain = matches!(command.handling, Handling::Key | Handling::Fan(_)) && !command.is_script();
        match (&slots[..], command.handling) {
            (&[slot], _) if plain => {
                traits.flags = traits.flags.with(RequestFlags::GROUP);
                if positions.len() > 1 {
                    traits = traits.with_keys(keys());
                }
                let flow = self.send(key, slot, traits, &[said.request(), request].concat());
                self.counters.requests += 1;
                flow
            }
            (_, Handling::Fan(_)) => {
                self.prefix = said.request();
                let flow = self.run(key, cluster, command, request, args);
                self.prefix = b"";
                flow
            }
            _ => {
                let flow = self.run(key, cluster, command, request, args);
                if said == Caching::Yes && !matches!(flow, Flow::Wait(_)) {
                    // Read as if nothing had been said: it must not be kept.
                    self.flush_soon(key, true);
                }
                flow
            }
        }
    }
}

/// ASKING and CLIENT CACHING end each other: the latter is left out. Returns whether its keys were to be tracked, which
/// they are not.
pub(super) fn without_caching(parked: &mut Parked) -> bool {
    for said in [Caching::Yes, Caching::No] {
        if let Some(request) = parked.request.strip_prefix(said.request()) {
            parked.request = request.to_vec();
            parked.entry.flags = parked.entry.flags.without(RequestFlags::GROUP);
            return said == Caching::Yes;
        }
    }
    false
}

/// EXEC's reply without that to the CLIENT CACHING which its client did not queue.
pub(super) fn without_first(reply: &[u8]) -> Vec<u8> {
    let Some(items) = Items::new(reply) else { return reply.to_vec() };
    let rest: Vec<&[u8]> = items.skip(1).collect();
    let mut made = Vec::with_capacity(reply.len());
    encode::array_header(&mut made, rest.len());
    rest.iter().for_each(|item| made.extend_from_slice(item));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_queued_is_not_told() {
        assert_eq!(without_first(b"*3\r\n+OK\r\n*1\r\n:1\r\n$-1\r\n"), b"*2\r\n*1\r\n:1\r\n$-1\r\n");
        assert_eq!(without_first(b"*1\r\n+OK\r\n"), b"*0\r\n");
        assert_eq!(without_first(b"*-1\r\n"), b"*-1\r\n");
        assert_eq!(without_first(b"_\r\n"), b"_\r\n");
    }
}
