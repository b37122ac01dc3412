//! The clients of one worker that wait for something that may never come, counted as INFO tells of them.

use std::collections::HashMap;

use crate::backend::ClientKey;
use crate::stats::Blocked;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    clients: HashMap<ClientKey, Waiter>,
    counts: Blocked,
    /// Those that wait for the end of CLIENT PAUSE.
    paused: usize,
    /// The counts as they were told last.
    told: Blocked,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    /// Its wait ends with a time.
    timed: bool,
    /// The client is gone; its place is an agent's, who puts back what comes all the same.
    gone: bool,
}

impl Waiting {
    /// A client waits, with or without a time limit.
    pub(super) fn insert(&mut self, client: ClientKey, timed: bool) {
        self.remove(client);
        self.clients.insert(client, Waiter { timed, gone: false });
        self.counts.all += 1;
        self.counts.timed += usize::from(timed);
    }

    /// It waits no longer.
    pub(super) fn remove(&mut self, client: ClientKey) {
        let waiter = self.clients.remove(&client);
        self.discount(waiter);
    }

    /// A client waits for the end of CLIENT PAUSE.
    pub(super) fn pause(&mut self) {
        self.counts.all += 1;
        self.paused += 1;
    }

    /// So many that waited for that do no longer.
    pub(super) fn go_on(&mut self, clients: usize) {
        let clients = clients.min(self.paused);
        self.counts.all -= clients;
        self.paused -= clients;
    }

    /// It has gone, but its wait is still to be ended at the node.
    pub(super) fn leave(&mut self, client: ClientKey) {
        let waiter = self.clients.get_mut(&client).map(|waiter| {
            let before = *waiter;
            waiter.gone = true;
            before
        });
        self.discount(waiter);
    }

    fn discount(&mut self, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter.filter(|waiter| !waiter.gone) {
            self.counts.all -= 1;
            self.counts.timed -= usize::from(waiter.timed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ClientKey> {
        self.clients.keys().copied()
    }

    /// How many clients wait, if that has changed since it was told last.
    pub(super) fn changed(&mut self) -> Option<Blocked> {
        (self.counts != std::mem::replace(&mut self.told, self.counts)).then_some(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn who_waits_is_counted_until_it_leaves() {
        let mut keys = SlotMap::<ClientKey, ()>::with_key();
        let (a, b) = (keys.insert(()), keys.insert(()));
        let mut waiting = Waiting::default();
        assert_eq!(waiting.changed(), None);
        waiting.insert(a, true);
        waiting.insert(b, false);
        waiting.insert(b, false);
        assert_eq!(waiting.changed(), Some(Blocked { all: 2, timed: 1 }));
        assert_eq!(waiting.changed(), None);
        waiting.leave(a);
        assert_eq!(waiting.changed(), Some(Blocked { all: 1, timed: 0 }));
        assert_eq!(waiting.iter().count(), 2);
        waiting.remove(a);
        waiting.remove(b);
        assert_eq!(waiting.changed(), Some(Blocked::default()));
        assert!(waiting.is_empty());
        waiting.pause();
        waiting.pause();
        assert_eq!(waiting.changed(), Some(Blocked { all: 2, timed: 0 }));
        waiting.go_on(1);
        waiting.go_on(usize::MAX);
        assert_eq!(waiting.changed(), Some(Blocked::default()));
    }
}
