//! Which worker a client is with: taking new ones, and handing over those of a worker that has too much or too little.
//!
//! A client changes its worker only between two requests, when it has nothing outstanding: as it sends the next one,
//! which stays unread in its socket and is the new worker's. Idle clients stay where they are.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::balance::{Advice, Busy, place};
use super::shell::{Shell, Socket, client_token};
use super::{Accepted, Message, Stream};
use crate::backend::ClientKey;
use crate::session::{About, Client};
use crate::stats::Load;
use crate::topology::Cluster;

/// A client on its way to a worker.
#[derive(Debug)]
pub struct Handed {
    /// Its connection, registered nowhere.
    pub stream: Stream,
    /// What is known of it.
    pub client: Client,
    /// The map by which it is told what it has written to.
    pub map: Arc<Cluster>,
}

/// A worker gives clients away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Giving {
    to: usize,
    /// How many; all if it does not say.
    left: Option<usize>,
}

impl Shell {
    /// Takes everybody who waits at a listener.
    pub(super) fn accept(&mut self, index: usize) {
        loop {
            let Some(listener) = self.options.listeners.get(index) else { return };
            match listener.accept() {
                Ok(accepted) => self.place(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    // Out of descriptors, most likely: those who wait are accepted when somebody else comes.
                    tracing::warn!(%error, "cannot accept a connection");
                    return;
                }
            }
        }
    }

    /// Gives a new client to a worker.
    fn place(&mut self, accepted: Accepted) {
        let Accepted { mut stream, peer } = accepted;
        let shared = &self.options.shared;
        if shared.clients() >= self.options.config.maxclients {
            self.engine.counters.rejected_connections += 1;
            let _ = stream.write(b"-ERR max number of clients reached\r\n");
            return stream.finish();
        }
        self.engine.counters.connections += 1;
        let mut about = About::new(peer, stream.local_address(), Instant::now());
        about.descriptor = stream.descriptor();
        let handed =
            Handed { stream, client: self.engine.new_client(about), map: self.options.cluster.load_full() };
        let to = place(&self.everybody());
        self.hand(to, handed);
    }

    fn everybody(&self) -> Vec<Busy> {
        self.options.shared.loads().map(Load::busy).collect()
    }

    fn hand(&mut self, to: usize, handed: Handed) {
        // A worker that was told to end may have ended.
        let to = if self.options.shared.is_stopping() { self.options.worker } else { to };
        self.options.shared.load(to).came();
        if to == self.options.worker {
            self.serve(handed);
        } else {
            self.options.posts[to].send(Message::Serve(Box::new(handed)));
        }
    }

    /// Serves a client from now on.
    pub(super) fn serve(&mut self, handed: Handed) {
        // Its key may take the place of one whose socket is still to be closed.
        self.engine.take_effects().into_iter().for_each(|effect| self.carry_out(effect));
        let Handed { mut stream, client, map } = handed;
        let key = self.engine.take_over(client, &map);
        if let Err(error) = stream.register(self.poll.registry(), client_token(key)) {
            tracing::warn!(%error, "cannot serve a client");
            self.options.shared.load(self.options.worker).left();
            return self.engine.client_gone(key);
        }
        self.clients.insert(key, Socket::new(stream, true));
        if self.stopping {
            self.read_client(key, false);
        }
    }

    /// Hands a client that has just sent something to another worker, if that is wanted and it is between requests.
    /// Returns whether it has gone.
    #[cold]
    pub(super) fn give(&mut self, key: ClientKey) -> bool {
        let Some(Giving { to, left }) = self.giving else { return false };
        if self.stopping || !self.clients.get(key).is_some_and(Socket::is_at_rest) {
            return false;
        }
        let Some((client, map)) = self.engine.release(key) else { return false };
        self.giving = match left {
            Some(..=1) => None,
            left => Some(Giving { to, left: left.map(|left| left - 1) }),
        };
        let Some(Socket { mut stream, .. }) = self.clients.remove(key) else { return true };
        self.options.shared.load(self.options.worker).left();
        if let Err(error) = stream.deregister(self.poll.registry()) {
            tracing::warn!(%error, "cannot hand over a client; it is disconnected");
            return true;
        }
        self.hand(to, Handed { stream, client, map });
        true
    }

    /// Looks at this worker's load, and changes who is with it if need be.
    #[cold]
    pub(super) fn balance(&mut self, busy: Busy) {
        let me = self.options.worker;
        self.options.shared.load(me).set_busy(busy);
        self.giving = match self.balance.advise(me, &self.everybody()) {
            Advice::Stay => self.giving.filter(|giving| giving.left.is_some()),
            Advice::Leave(to) => Some(Giving { to, left: None }),
            Advice::Share(to) => {
                let active = self.engine.active_clients();
                tracing::debug!(me, to, busy, active, "sharing clients");
                (active > 1).then_some(Giving { to, left: Some(active / 2) })
            }
        };
    }
}
