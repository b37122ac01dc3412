//! Clients that wait: nothing else of them runs before they are answered, but they are read on, so that one that
//! goes away is noticed at once.

use super::Engine;
use crate::backend::ClientKey;
use crate::session::ClientFlags;

impl Engine {
    /// Nothing more of this client runs before its outstanding requests are answered.
    pub(super) fn block(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.flags.set(ClientFlags::BLOCKED.with(ClientFlags::STALLED));
        }
    }

    /// A blocked client was answered: it goes on with what it sent meanwhile.
    #[cold]
    pub(super) fn unblock(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::BLOCKED);
        if let Some(standing) = client.standing.as_deref_mut() {
            standing.block = None;
            if std::mem::take(&mut standing.leaving) {
                self.end_watch(key);
            }
        }
        self.leave_lane(key);
        self.wake(key);
    }
}
