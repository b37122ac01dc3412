//! What nodes say of the scripts without keys that keep them busy, in the whole process.

use arc_swap::ArcSwap;

/// By the ids of the clients that called the scripts; almost always empty.
#[derive(Debug, Default)]
pub struct BusyNodes {
    said: ArcSwap<Vec<(u64, Box<[u8]>)>>,
}

impl BusyNodes {
    /// A node says that the script of `client` keeps it busy.
    pub fn note(&self, client: u64, text: &[u8]) {
        self.said.rcu(|said| {
            let mut said: Vec<_> = said.iter().filter(|(of, _)| *of != client).cloned().collect();
            said.push((client, text.into()));
            said
        });
    }

    /// The script of `client` ended, or nobody knows any more.
    pub fn forget(&self, client: u64) {
        self.said.rcu(|said| {
            let others = said.iter().filter(|(of, _)| *of != client);
            others.cloned().collect::<Vec<_>>()
        });
    }

    /// What the first of them says: an error without its `-`.
    #[must_use]
    pub fn said(&self) -> Option<Box<[u8]>> {
        self.said.load().first().map(|(_, text)| text.clone())
    }
}
