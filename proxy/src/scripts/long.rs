//! Which scripts and functions were seen to run long, by any worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// For how long that is believed: what another script did to the node looks the same.
const BELIEVED: Duration = Duration::from_secs(60);
/// Scripts of which it is known at a time.
const MOST: usize = 1000;

/// What was seen, by a fingerprint of what the script is called by, and until when it is believed.
#[derive(Debug, Default)]
pub struct LongScripts(ArcSwap<HashMap<u64, Instant>>);

impl LongScripts {
    /// A script runs long.
    pub fn note(&self, name: u64, now: Instant) {
        self.0.rcu(|known| {
            let young = known.iter().filter(|(_, until)| **until > now).take(MOST - 1);
            let mut known: HashMap<u64, Instant> = young.map(|(name, until)| (*name, *until)).collect();
            known.insert(name, now + BELIEVED);
            known
        });
    }

    /// Whether a script runs long, as far as is known.
    #[must_use]
    pub fn knows(&self, name: impl FnOnce() -> u64, now: Instant) -> bool {
        let known = self.0.load();
        !known.is_empty() && known.get(&name()).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_for_a_while_is_forgotten() {
        let (scripts, now) = (LongScripts::default(), Instant::now());
        assert!(!scripts.knows(|| unreachable!("nothing is known"), now));
        scripts.note(1, now);
        assert!(scripts.knows(|| 1, now) && !scripts.knows(|| 2, now));
        assert!(!scripts.knows(|| 1, now + BELIEVED));
        (0..2 * MOST as u64).for_each(|name| scripts.note(name, now + BELIEVED));
        assert_eq!(scripts.0.load().len(), MOST);
    }
}
