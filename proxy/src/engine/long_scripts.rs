//! Scripts that run long have a connection of their own: behind them on a shared one others would wait in silence, to
//! whom a node says BUSY, as a standalone does.

use std::time::Duration;

use portico_slots::Slot;

use super::scripts::fingerprint;
use super::send::{Flow, Traits};
use super::{Engine, Link};
use crate::backend::{ClientKey, RequestFlags};
use crate::plan::{RequestArgs, with_queued};
use crate::session::{Client, ClientFlags, Stall};
use crate::topology::Cluster;

/// A script that keeps its connection from moving for so long runs long.
const LONG: Duration = Duration::from_millis(100);
/// What is no single request.
const NOT_ONE: RequestFlags = RequestFlags::GROUP.with(RequestFlags::STREAMED);

impl Engine {
    /// Sends what calls a script or a function to the owner of `slot`.
    pub(super) fn send_script(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        traits: Traits,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        let alone = match self.lane_for_script(key, words) {
            Ok(alone) => alone,
            Err(stall) => return Flow::Wait(stall),
        };
        self.before_script(key, cluster, slot, words);
        let flow = self.send(key, slot, traits, request);
        if !alone || flow != Flow::Done {
            return flow;
        }
        if self.clients.get(key).is_some_and(Client::is_answered) {
            self.leave_lane(key); // refused
            return flow;
        }
        Flow::Block
    }

    /// Whether the client has a lane for this call alone. Without a free one it shares.
    fn lane_for_script(&mut self, key: ClientKey, words: &RequestArgs<'_>) -> Result<bool, Stall> {
        const OTHERWISE: ClientFlags =
            ClientFlags::WATCHING.with(ClientFlags::TRACKING).with(ClientFlags::AGENT);
        let Some(client) = self.clients.get(key) else { return Ok(false) };
        if client.flags.any(OTHERWISE) {
            return Ok(false);
        }
        if client.lane.is_leased() {
            return Ok(true); // it has waited for this
        }
        if !self.shared.scripts.long.knows(|| fingerprint(words.word(1)), self.now) {
            return Ok(false);
        }
        if !client.is_answered() {
            return Err(Stall::Order); // it takes another way
        }
        Ok(self.take_lane(key))
    }

    /// Notes the scripts that connections have been waiting for too long.
    pub(super) fn note_long_scripts(&mut self) {
        let now = self.now;
        let stuck = |link: &Link| {
            let oldest = link.pipe.oldest().filter(|_| !link.throttled && now >= link.moved + LONG)?;
            let script = oldest.flags.has(RequestFlags::SCRIPT) && !oldest.flags.any(NOT_ONE);
            script.then(|| with_queued(link.pipe.oldest_bytes(), |words| fingerprint(words.word(1))))?
        };
        for name in self.links.values().filter_map(stuck) {
            self.shared.scripts.long.note(name, now);
        }
    }
}
