//! A defect costs the client whose request or reply brought it out its connection, and nobody else anything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Effect, Engine};
use crate::backend::{ClientKey, LinkKey};

impl Engine {
    /// Does something for a client. If that fails the client is closed, and there is no result.
    pub(super) fn for_client<R>(&mut self, key: ClientKey, work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let result = catch_unwind(AssertUnwindSafe(|| work(self))).ok();
        if result.is_none() {
            tracing::error!("a client's request made Portico fail; the client is disconnected");
            self.close_failed(key);
        }
        result
    }

    /// Does something for everybody. If that fails the turn goes on.
    pub(super) fn for_all(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!("a part of a worker's turn failed; it goes on with the next");
        }
    }

    /// The handling of a node's bytes failed: whoever was being answered is closed, and the connection is given up.
    pub fn link_failed(&mut self, key: LinkKey) {
        let node = self.peer_of(key);
        tracing::error!(%node, "a node's reply made Portico fail; the connection is closed");
        let answering = std::mem::take(&mut self.answering);
        self.close_failed(answering);
        self.for_all(|engine| engine.link_lost(key));
    }

    /// Closes a client about which not everything may hold that should.
    fn close_failed(&mut self, key: ClientKey) {
        if catch_unwind(AssertUnwindSafe(|| self.close_client(key))).is_err()
            && self.clients.remove(key).is_some()
        {
            self.effects.push(Effect::CloseClient(key));
        }
    }
}

/// Where the tests bring out a defect that is not there.
#[inline]
pub(super) fn defect(_bytes: &[u8]) {
    #[cfg(test)]
    assert!(!_bytes.windows(8).any(|part| part == b"a-defect"), "the test's defect");
}
