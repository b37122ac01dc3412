//! What nodes say of the scripts without keys that keep them busy, in the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

/// By the ids of the clients that called the scripts; almost always empty.
#[derive(Debug, Default)]
pub struct BusyNodes {
    said: ArcSwap<Vec<(u64, Box<[u8]>)>>,
    /// How many that are: every PING asks.
    count: AtomicUsize,
}

impl BusyNodes {
    /// A node says that the script of `client` keeps it busy; it has not said so yet.
    pub fn note(&self, client: u64, text: &[u8]) {
        self.said.rcu(|said| {
            let mut said = Vec::clone(said);
            said.push((client, text.into()));
            said
        });
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The script of `client`, which was noted, has ended, or nobody knows any more.
    pub fn forget(&self, client: u64) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.said.rcu(|said| {
            let others = said.iter().filter(|(of, _)| *of != client);
            others.cloned().collect::<Vec<_>>()
        });
    }

    /// What the first of them says: an error without its `-`.
    #[must_use]
    #[inline]
    pub fn said(&self) -> Option<Box<[u8]>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.said.load().first().map(|(_, text)| text.clone())
    }
}
